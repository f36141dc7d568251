package jetstreamtest

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
)

// Proxy carries TCP connections to a server until they are cut, or stand still.
type Proxy struct {
	target   string
	listener net.Listener
	done     sync.WaitGroup

	mu    sync.Mutex
	moves *sync.Cond // that they stand still no more
	cut   bool
	still bool
	conns map[net.Conn]bool
}

// NewProxy listens on loopback until the test ends.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{target: target, listener: l, conns: map[net.Conn]bool{}}
	p.moves = sync.NewCond(&p.mu)
	p.done.Go(p.accept)
	tb.Cleanup(func() {
		_ = l.Close()
		p.Cut()
		p.done.Wait()
	})
	return p
}

// Address is where the proxy listens.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Cut ends all connections, and every new one until Mend.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.moves.Broadcast()
}

// Stall leaves all connections as they are, and carries nothing until Mend. What
// was sent meanwhile arrives then, also what somebody sent who has hung up since:
// so does a network that loses packets for a while.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.still = true
}

// Mend lets connections through again.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.still = false, false
	p.moves.Broadcast()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.done.Go(func() { p.carry(c) })
	}
}

// keep has c closed by Cut; it reports whether it may live.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	_ = c.Close()
}

// carry copies both ways until one of them ends.
func (p *Proxy) carry(c net.Conn) {
	defer p.drop(c)
	s, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		return
	}
	defer p.drop(s)
	if !p.keep(c) || !p.keep(s) {
		return
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		p.copy(c, s)
		_ = c.Close()
	}()
	p.copy(s, c)
	_ = s.Close()
	<-back
}

// copy copies until one of both ends.
func (p *Proxy) copy(to, from net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		p.mu.Lock()
		for p.still && !p.cut {
			p.moves.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Way is one client's own way to every server: a Proxy for each.
type Way []*Proxy

// NewWay listens on loopback until the test ends.
func NewWay(tb testing.TB, targets ...string) Way {
	tb.Helper()
	var w Way
	for _, target := range targets {
		w = append(w, NewProxy(tb, target))
	}
	return w
}

// URL names the servers, by that way.
func (w Way) URL() string {
	var urls []string
	for _, p := range w {
		urls = append(urls, "nats://"+p.Address())
	}
	return strings.Join(urls, ",")
}

// Cut is Proxy.Cut to every server.
func (w Way) Cut() {
	for _, p := range w {
		p.Cut()
	}
}

// Stall is Proxy.Stall to every server.
func (w Way) Stall() {
	for _, p := range w {
		p.Stall()
	}
}

// Mend is Proxy.Mend to every server.
func (w Way) Mend() {
	for _, p := range w {
		p.Mend()
	}
}
