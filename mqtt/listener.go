package mqtt

import (
	"container/list"
	"errors"
	"net"
	"time"
)

// The back-off of an accept that fails, as with no file descriptor left.
const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
)

// waiter is a place among the connections before CONNECT.
type waiter struct{ at *list.Element }

// accept takes connections until the listener is closed. An error that is not
// the end costs a pause, never the listener.
func (s *Server) accept(l net.Listener, o *Listener) {
	backoff := acceptBackoffMin
	for {
		sock, err := l.Accept()
		if err == nil {
			backoff = acceptBackoffMin
			if wait := s.pace.take(time.Now()); wait > 0 && !s.pause(wait) {
				_ = sock.Close() // nobody serves it any more
				return
			}
			s.admit(sock, o, func(c *conn) error { return c.prepare(o) })
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		s.log.Warn().Str("listener", l.Addr().String()).Err(err).Msg("accept failed")
		if !s.pause(backoff) {
			return
		}
		backoff = min(2*backoff, acceptBackoffMax)
	}
}

// pause waits, and reports whether the server still accepts.
func (s *Server) pause(d time.Duration) bool {
	select {
	case <-s.stopped:
		return false
	case <-time.After(d):
		return true
	}
}

// ServeAs serves a connection that somebody else accepted, as one of a listener.
func (s *Server) ServeAs(c net.Conn, o Listener) {
	s.admit(c, &o, func(c *conn) error { return c.prepare(&o) })
}

// admit starts a connection, or refuses its address. prepare runs first, and
// on the connection's time.
func (s *Server) admit(sock net.Conn, o *Listener, prepare func(*conn) error) {
	s.stats.accepted.Add(1)
	c := &conn{
		Conn: sock, srv: s, remote: sock.RemoteAddr().String(), anonOK: o.AllowAnonymous,
		accepted: time.Now(), left: make(chan struct{}), listener: o.id(),
	}
	c.out.room.L = &c.wmu
	if c.host = hostOf(sock.RemoteAddr()); o.unix() {
		c.remote, c.host = "unix", ""
	}
	s.mu.Lock()
	if s.closing || o.Proxy == nil && !s.bookLocked(c) {
		s.mu.Unlock()
		_ = sock.Close() // nothing was said on it
		s.stats.refused[closeAddress].Add(1)
		return
	}
	s.all[c] = struct{}{}
	c.waiting = &waiter{s.waiting.PushBack(c)}
	var oldest *conn
	if s.waiting.Len() > s.limits.Load().MaxWaiting {
		oldest = s.waiting.Front().Value.(*conn)
		s.dequeue(oldest)
	}
	s.stats.waiting.Store(int64(s.waiting.Len()))
	s.conns.Add(1)
	s.mu.Unlock()
	if oldest != nil {
		oldest.abort(&faultError{success, "too many connections before CONNECT", closeCrowded})
	}
	go func() {
		defer s.conns.Done()
		defer s.forget(c)
		c.run(prepare)
	}()
}

// book counts c among the connections of its address, if there is room.
func (s *Server) book(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bookLocked(c)
}

// bookLocked is book for a caller that holds mu.
func (s *Server) bookLocked(c *conn) bool {
	if limit := s.limits.Load().MaxPerAddress; limit > 0 && c.host != "" && s.addresses[c.host] >= limit {
		return false
	}
	s.addresses[c.host]++
	c.booked = true
	return true
}

// forget takes an ended connection out of the books.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
	s.dropIdentity(c)
	if !c.booked {
		return
	}
	if s.addresses[c.host]--; s.addresses[c.host] <= 0 {
		delete(s.addresses, c.host)
	}
}

// leaveWaiting says that c sent its CONNECT, or is gone.
func (s *Server) leaveWaiting(c *conn) {
	s.mu.Lock()
	s.dequeue(c)
	s.stats.waiting.Store(int64(s.waiting.Len()))
	s.mu.Unlock()
}

// dequeue is leaveWaiting for a caller that holds mu.
func (s *Server) dequeue(c *conn) {
	if c.waiting != nil {
		s.waiting.Remove(c.waiting.at)
		c.waiting = nil
	}
}
