package rest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/persistence/local"
	"millrace/rest"
)

// pipes is a listener whose connections are in memory, and so live in fake time.
type pipes struct {
	conns chan net.Conn
	ended context.Context //nolint:containedctx // the life of the listener
	end   context.CancelFunc
	work  sync.WaitGroup // of the clients
	took  time.Duration  // to close the server
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended.Done():
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.end()
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

// inFakeTime runs f against a server reached by pipes only.
func inFakeTime(t *testing.T, f func(t *testing.T, p *pipes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.WithoutCancel(t.Context())
		store, err := local.Open(local.Options{})
		must(t, err)
		a, err := auth.Open(ctx, auth.Options{Store: broker.NewKeys(store, broker.SpaceAuth)})
		must(t, err)
		_, _, err = a.AddKey(ctx, auth.KeySpec{ID: "root", Secret: "sixteen-or-more-characters", Role: "administrator"})
		must(t, err)
		b, err := broker.Open(ctx, broker.Options{Store: store, Auth: a})
		must(t, err)
		s, err := rest.Listen(ctx, rest.Options{Broker: b, Log: zerolog.Nop(), MaxNewcomers: newcomers, Listeners: []rest.Listener{
			{Name: "http", Address: "127.0.0.1:0", Dialects: []rest.Dialect{rest.FlowMQ, rest.EMQX}},
		}})
		must(t, err)
		p := &pipes{conns: make(chan net.Conn)}
		p.ended, p.end = context.WithCancel(ctx)
		served := make(chan error, 1)
		go func() { served <- s.ServeOn(p) }()
		f(t, p)
		p.work.Wait()
		begun := time.Now()
		must(t, s.Close(ctx))
		p.took = time.Since(begun)
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		must(t, b.Close(ctx))
		must(t, a.Close(ctx))
		must(t, store.Close(ctx))
	})
}

func head(method, path string, length int) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n", method, path, bearer, length)
}

// drip writes text a byte at a time, one each pause, until it fails.
func drip(c net.Conn, text string, pause time.Duration) {
	for i := range len(text) {
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			return
		}
		time.Sleep(pause)
	}
}

// A client that opens a connection before it needs one does not hold up a stop.
func TestAStopDoesNotWaitForAConnectionWithoutARequest(t *testing.T) {
	var p *pipes
	inFakeTime(t, func(t *testing.T, with *pipes) {
		p = with
		c := p.dial()
		t.Cleanup(func() { _ = c.Close() })
		synctest.Wait()
	})
	if p.took > time.Second {
		t.Errorf("a stop took %s", p.took)
	}
}

func TestHeadersThatDripAreCutAtFiveSeconds(t *testing.T) {
	inFakeTime(t, func(t *testing.T, p *pipes) {
		c := p.dial()
		start := time.Now()
		p.work.Go(func() { drip(c, "GET /livez HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 1000), time.Second) })
		_, _ = io.Copy(io.Discard, c)
		if d := time.Since(start); d < 4*time.Second || d > 6*time.Second {
			t.Errorf("cut after %v", d)
		}
	})
}

func TestBodiesThatDripAre408(t *testing.T) {
	inFakeTime(t, func(t *testing.T, p *pipes) {
		c := p.dial()
		defer c.Close()
		start := time.Now()
		p.work.Go(func() {
			_, _ = io.WriteString(c, head("POST", "/api/v1/queues", 10_000))
			drip(c, strings.Repeat("x", 10_000), time.Second)
		})
		w, err := http.ReadResponse(bufio.NewReader(c), nil)
		must(t, err)
		_, _ = io.Copy(io.Discard, w.Body)
		if d := time.Since(start); w.StatusCode != 408 || !w.Close || d > 6*time.Second {
			t.Errorf("status %d, close %v after %v", w.StatusCode, w.Close, d)
		}
	})
}

func TestBodiesAtTheMinimumRateAreTaken(t *testing.T) {
	inFakeTime(t, func(t *testing.T, p *pipes) {
		c := p.dial()
		defer c.Close()
		body := `{"payload":"` + strings.Repeat("x", 100<<10) + `"}`
		p.work.Go(func() {
			_, _ = io.WriteString(c, head("POST", "/api/v1/topics/a/messages", len(body)))
			for ; len(body) > 1<<10; body = body[1<<10:] {
				_, _ = io.WriteString(c, body[:1<<10])
				time.Sleep(time.Second)
			}
			_, _ = io.WriteString(c, body)
		})
		w, err := http.ReadResponse(bufio.NewReader(c), nil)
		must(t, err)
		if _, _ = io.Copy(io.Discard, w.Body); w.StatusCode != 200 {
			t.Errorf("status %d", w.StatusCode)
		}
	})
}

func TestClientsThatDoNotReadAreCut(t *testing.T) {
	inFakeTime(t, func(t *testing.T, p *pipes) {
		c := p.dial()
		defer c.Close()
		start := time.Now()
		_, err := io.WriteString(c, head("GET", "/api-docs/flowmq.yaml", 0))
		must(t, err)
		b := make([]byte, 1)
		_, err = io.ReadFull(c, b)
		must(t, err)
		time.Sleep(90 * time.Second)
		synctest.Wait()
		if _, err := io.Copy(io.Discard, c); err != nil || time.Since(start) > 91*time.Second {
			t.Errorf("still open: %v", err)
		}
	})
}

func TestALongPollOutlivesItsWriteDeadline(t *testing.T) {
	inFakeTime(t, func(t *testing.T, p *pipes) {
		c := p.dial()
		defer c.Close()
		r := bufio.NewReader(c)
		for _, x := range [][2]string{{"/api/v1/queues", `{"name":"q","topic_filter":"a"}`}, {"/api/v1/queues/q/messages/consume", `{"timeout_seconds":60}`}} {
			_, err := io.WriteString(c, head("POST", x[0], len(x[1]))+x[1])
			must(t, err)
			w, err := http.ReadResponse(r, nil)
			must(t, err)
			if _, _ = io.Copy(io.Discard, w.Body); w.StatusCode/100 != 2 {
				t.Errorf("%s: status %d", x[0], w.StatusCode)
			}
		}
	})
}

// newcomers is how many connections without a request the tests allow.
const newcomers = 100

func TestTheOldestOfTooManyNewConnectionsIsClosed(t *testing.T) {
	inFakeTime(t, func(t *testing.T, p *pipes) {
		conns := make([]net.Conn, 0, newcomers+1)
		for range newcomers + 1 {
			conns = append(conns, p.dial())
		}
		synctest.Wait()
		if _, err := conns[0].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the oldest: %v", err)
		}
		last := conns[len(conns)-1]
		_, err := io.WriteString(last, head("GET", "/livez", 0))
		must(t, err)
		w, err := http.ReadResponse(bufio.NewReader(last), nil)
		must(t, err)
		if _, _ = io.Copy(io.Discard, w.Body); w.StatusCode != 200 {
			t.Errorf("the newest: status %d", w.StatusCode)
		}
		for _, c := range conns {
			_ = c.Close()
		}
	})
}
