package rest

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// newcomers keeps connections without a request in order of their coming, and
// closes the oldest when there are too many: whoever opens connections for
// nothing displaces his own first.
type newcomers struct {
	mu    sync.Mutex
	order list.List // of net.Conn
	at    map[net.Conn]*list.Element
	most  int
}

func newNewcomers(most int) *newcomers {
	return &newcomers{at: map[net.Conn]*list.Element{}, most: most}
}

// track is an http.Server's ConnState.
func (n *newcomers) track(c net.Conn, state http.ConnState) {
	if state == http.StateIdle {
		return // was active before
	}
	if oldest := n.update(c, state == http.StateNew); oldest != nil {
		_ = oldest.Close() // it is dropped either way
	}
}

// dismiss closes all there are.
func (n *newcomers) dismiss() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for e := n.order.Front(); e != nil; e = e.Next() {
		_ = e.Value.(net.Conn).Close() // it is dropped either way
	}
}

func (n *newcomers) update(c net.Conn, arrived bool) (oldest net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e, ok := n.at[c]; ok {
		n.order.Remove(e)
		delete(n.at, c)
	}
	if !arrived {
		return nil
	}
	n.at[c] = n.order.PushBack(c)
	if n.order.Len() <= n.most {
		return nil
	}
	oldest = n.order.Remove(n.order.Front()).(net.Conn)
	delete(n.at, oldest)
	return oldest
}
