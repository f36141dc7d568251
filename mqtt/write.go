package mqtt

import (
	"errors"
	"os"
	"sync"
	"time"
)

const (
	// outChunk is the piece in which output grows. Pieces are borrowed: a
	// connection with nothing to write holds none.
	outChunk = 16 << 10
	// shareFrom is the payload size from which output keeps a reference
	// instead of a copy, so that a large message is in memory once however
	// many clients it waits for.
	shareFrom = 16 << 10
	// stallSteps is how often within Options.StallTimeout a write that moves
	// nothing is looked at.
	stallSteps = 4
)

var outChunks = sync.Pool{New: func() any { return new([outChunk]byte) }}

// output is what waits to be written to one client. All of it is guarded by
// conn.wmu.
type output struct {
	full    []piece // before tail, in order
	tail    []byte  // a chunk, being filled
	size    int     // bytes in full and tail, and in the write under way
	running bool    // there is a goroutine in drain
	closed  bool    // nothing more is taken
	blocked bool    // the session waits for room
	until   time.Time
	room    sync.Cond // size fell, running ended, or the connection did
}

// piece is a chunk of ours, or a payload that is shared.
type piece struct {
	b       []byte
	ours    bool
	control bool // a frame of WebSocket, not packets
}

// write appends a copy of p. The caller holds wmu, and calls wrote.
func (o *output) write(p []byte) {
	for {
		n := copy(o.tail[len(o.tail):cap(o.tail)], p)
		o.tail = o.tail[:len(o.tail)+n]
		if p = p[n:]; len(p) == 0 {
			return
		}
		o.seal()
		o.tail = outChunks.Get().(*[outChunk]byte)[:0]
	}
}

// share appends p by reference; it must not change any more.
func (o *output) share(p []byte) {
	o.seal()
	o.full = append(o.full, piece{b: p})
}

// control appends a whole frame of WebSocket.
func (o *output) control(frame []byte) {
	o.seal()
	o.full = append(o.full, piece{b: frame, control: true})
}

func (o *output) seal() {
	if len(o.tail) > 0 {
		o.full = append(o.full, piece{b: o.tail, ours: true})
	}
	o.tail = nil
}

// take returns all that waits.
func (o *output) take() []piece {
	o.seal()
	ps := o.full
	o.full = nil
	return ps
}

// recycle gives the chunks among ps back.
func recycle(ps []piece) {
	for _, p := range ps {
		if p.ours {
			outChunks.Put((*[outChunk]byte)(p.b[:outChunk]))
		}
	}
}

// send appends one packet to the output. It never blocks.
func (c *conn) send(b []byte) {
	if len(b) == 0 {
		return
	}
	c.wmu.Lock()
	c.out.write(b)
	c.put.count(b[0], len(b))
	c.wrote(len(b))
	c.wmu.Unlock()
}

// wrote books n appended bytes, and sees that somebody writes them. The caller
// holds wmu.
func (c *conn) wrote(n int) {
	o := &c.out
	if o.closed {
		o.full, o.tail = nil, nil // nobody will write it
		return
	}
	o.size += n
	if !o.running {
		o.running = true
		go c.drain()
	}
}

// drain writes until nothing is left. One write takes all that was appended
// during the one before.
func (c *conn) drain() {
	o := &c.out
	defer func() {
		if p := recover(); p != nil { // only from pump, which holds no lock then
			c.panicked(p)
			c.wmu.Lock()
			o.closed, o.running = true, false
			o.room.Broadcast()
			c.wmu.Unlock()
			_ = c.Conn.Close()
		}
	}()
	c.wmu.Lock()
	for !o.closed && (len(o.tail) > 0 || len(o.full) > 0) {
		ps := o.take()
		c.put.book(&c.srv.stats.sent, &c.sent)
		c.wmu.Unlock()
		err := c.writeAll(ps)
		c.wmu.Lock()
		if err != nil {
			o.closed, o.size = true, 0
			break
		}
		if o.blocked && o.size <= c.srv.o.MaxOutput {
			o.blocked = false
			c.wmu.Unlock()
			c.session.pump()
			c.session.refill() // a client that is slow to acknowledge gives no other occasion
			c.wmu.Lock()
		}
	}
	o.tail, o.full, o.running = nil, nil, false
	o.room.Broadcast()
	c.wmu.Unlock()
}

func (c *conn) writeAll(ps []piece) error {
	defer recycle(ps)
	if len(ps) == 1 && c.via.ws == nil && c.via.tls == nil {
		b := ps[0].b
		return c.writing(func() (int64, bool, error) {
			n, err := c.Conn.Write(b)
			b = b[n:]
			c.took(n)
			return int64(n), len(b) == 0, err
		})
	}
	rest, more := c.via.net(ps) // used up in writing
	c.took(-more)
	if c.via.tls != nil {
		return c.writeTLS(rest)
	}
	return c.writing(func() (int64, bool, error) {
		n, err := rest.WriteTo(c.Conn)
		c.took(int(n))
		return n, len(rest) == 0, err
	})
}

// writing repeats write until all is written. A socket that took nothing for
// StallTimeout belongs to a slow consumer, and is closed.
func (c *conn) writing(write func() (n int64, all bool, err error)) error {
	step := c.srv.o.StallTimeout / stallSteps
	for idle := 0; ; {
		c.wmu.Lock()
		at := time.Now().Add(step)
		last := !c.out.until.IsZero() && c.out.until.Before(at)
		if last {
			at = c.out.until
		}
		_ = c.Conn.SetWriteDeadline(at) // a closed socket says so in write
		c.wmu.Unlock()
		n, all, err := write()
		if all && err == nil {
			return nil
		}
		if idle++; n > 0 {
			idle = 0
		}
		switch {
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err // the socket is dead both ways: the reader takes what came before its end
		case last && n == 0:
			return err
		case idle >= stallSteps:
			c.srv.stats.slow.Add(1)
			c.abort(&faultError{success, "socket took nothing", closeSlow})
			return err
		}
	}
}

// took books n bytes as written.
func (c *conn) took(n int) {
	c.wmu.Lock()
	c.out.size -= n
	c.out.room.Broadcast()
	c.wmu.Unlock()
}

// waitOutput keeps the reader from taking more while the client does not take
// our answers. A client that never does is closed as a slow consumer.
func (c *conn) waitOutput() {
	c.wmu.Lock()
	for c.out.size > c.srv.o.MaxOutput && !c.out.closed && !c.stop.Load() {
		c.out.room.Wait()
	}
	c.wmu.Unlock()
}

// pause keeps the reader from taking more for a while. The keep alive counts
// from its end: what the client sends meanwhile is not looked at.
func (c *conn) pause(d time.Duration) {
	over := false
	timer := time.AfterFunc(d, func() {
		c.wmu.Lock()
		defer c.wmu.Unlock()
		over = true
		c.out.room.Broadcast()
	})
	defer timer.Stop()
	c.wmu.Lock()
	for !over && !c.stop.Load() {
		c.out.room.Wait()
	}
	c.wmu.Unlock()
	c.lastRead = time.Now()
}

// lastWords writes what is left, within a second, and ends the output.
func (c *conn) lastWords() {
	c.wmu.Lock()
	c.out.until = time.Now().Add(lingerTimeout)
	_ = c.Conn.SetWriteDeadline(c.out.until)
	for c.out.running {
		c.out.room.Wait()
	}
	c.out.closed = true
	c.wmu.Unlock()
}

// closeSocket closes. After an error of the client's the read side is emptied
// first, until the client has closed or a second is over: closing a socket with
// unread bytes sends a reset, which would overtake our DISCONNECT. A client of
// WebSocket has that second to answer our Close frame, RFC 6455 section 7.1.1.
func (c *conn) closeSocket(f *faultError) {
	if c.via.tls != nil {
		_ = c.via.tls.CloseWrite() // fails where the handshake was not made
	}
	last := c.via.ws != nil || f != nil && (f.code != success || f.why == closeUpgrade)
	if t, ok := c.Conn.(interface{ CloseWrite() error }); ok && last {
		_ = t.CloseWrite()
		_ = c.Conn.SetReadDeadline(time.Now().Add(lingerTimeout))
		buf := readBuffers.Get().(*[readBuffer]byte)
		for {
			if _, err := c.Conn.Read(buf[:]); err != nil {
				break
			}
		}
		readBuffers.Put(buf)
	}
	c.input.give()
	_ = c.Conn.Close()
}
