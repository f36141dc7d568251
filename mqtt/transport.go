package mqtt

import (
	"crypto/tls"
	"errors"
	"net"
)

// transport is what stands between the socket of a connection and its packets.
// The socket itself is conn.Conn: whoever closes it, or moves its deadlines,
// need not know what is above. Only the goroutine that reads uses the rest, but
// for what drain writes through.
type transport struct {
	raw rawReader
	pre []byte     // bytes that were read too early, to be read first
	tls *tls.Conn  // nil = plain
	ws  *webSocket // nil = packets follow one another
	// ready says that the handshakes are over: reads do not wait any more, and
	// a write that moves nothing is a slow consumer's.
	ready bool
	user  string // named by the client's certificate
}

// lower is the socket as TLS sees it.
type lower struct {
	net.Conn
	c *conn
}

// errAgain is a read that would wait. TLS keeps what it has of a record, and
// can be asked again: to it this is a timeout.
var errAgain net.Error = againError{}

type againError struct{}

func (againError) Error() string   { return "nothing to read yet" }
func (againError) Timeout() bool   { return true }
func (againError) Temporary() bool { return true }

func (l *lower) Read(p []byte) (int, error) {
	if l.c == nil || !l.c.via.ready {
		return l.Conn.Read(p)
	}
	n, ok, err := l.c.via.raw.read(l.Conn, p)
	if !ok && err == nil {
		err = errAgain
	}
	return n, err
}

func (l *lower) Write(p []byte) (n int, err error) {
	if l.c == nil || !l.c.via.ready {
		return l.Conn.Write(p)
	}
	err = l.c.writing(func() (int64, bool, error) {
		k, err := l.Conn.Write(p[n:])
		n += k
		return int64(k), n == len(p), err
	})
	return n, err
}

// prepare makes the handshakes of the listener: PROXY header, TLS, WebSocket.
// All of them have the time until the deadline for CONNECT.
func (c *conn) prepare(o *Listener) error {
	if o.Proxy == nil && o.TLS == nil && !o.WebSocket {
		c.via.ready = true
		return nil
	}
	done := make(chan error, 1)
	go func() { // its stack grows, and would stay with the connection otherwise
		defer close(done)
		defer c.recovered()
		done <- c.handshakes(o)
	}()
	return <-done
}

func (c *conn) handshakes(o *Listener) error {
	if err := c.arm(); err != nil {
		return err
	}
	_ = c.Conn.SetWriteDeadline(c.accepted.Add(c.srv.o.ConnectTimeout)) // a closed socket says so in a moment
	if o.Proxy != nil {
		if err := c.proxied(o.Proxy); err != nil {
			return err
		}
	}
	if o.TLS != nil {
		c.via.tls = tls.Server(&lower{c.Conn, c}, o.TLS)
		if err := c.via.tls.Handshake(); err != nil { //nolint:noctx // the socket has a deadline
			return c.handshakeFailed("TLS", closeTLS, err)
		}
		if f := c.certified(o, c.via.tls.ConnectionState()); f != nil {
			return f
		}
	}
	if o.WebSocket {
		if err := c.upgrade(o); err != nil {
			return err
		}
	}
	c.via.ready = true
	return nil
}

// handshakeFailed is the fault of a handshake that broke off, unless it was too
// slow, or ended by ourselves.
func (c *conn) handshakeFailed(what string, why closeReason, err error) error {
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() || c.stop.Load() {
		return err
	}
	return &faultError{success, what + " failed: " + clip(err.Error()), why}
}

// certified takes the user's name from the client's certificate.
func (c *conn) certified(o *Listener, state tls.ConnectionState) *faultError {
	if o.Identity == nil {
		return nil
	}
	name, err := o.Identity(state)
	if err != nil {
		return &faultError{success, clip(err.Error()), closeAuth}
	}
	c.via.user = name
	return nil
}

// receive reads what there is; ok is false, without an error, when that is
// nothing.
func (c *conn) receive(p []byte) (n int, ok bool, err error) {
	for ws := c.via.ws; ; {
		if ws != nil && ws.err != nil {
			return 0, true, ws.err
		}
		n, ok, err = c.via.read(c.Conn, p)
		if ws == nil || n == 0 {
			return n, ok, err
		}
		n, err = ws.decode(p[:n], c.sendControl)
		if n > 0 || err != nil {
			return n, true, err
		}
	}
}

func (v *transport) read(sock net.Conn, p []byte) (n int, ok bool, err error) {
	if len(v.pre) > 0 {
		n = copy(p, v.pre)
		if v.pre = v.pre[n:]; len(v.pre) == 0 {
			v.pre = nil
		}
		return n, true, nil
	}
	if v.tls == nil {
		return v.raw.read(sock, p)
	}
	n, err = v.tls.Read(p)
	if errors.Is(err, errAgain) {
		return 0, false, nil
	}
	return n, true, err
}

// net puts ps in the form in which they are written: in a WebSocket, what was
// gathered is one frame. more is how many bytes that adds.
func (v *transport) net(ps []piece) (bs net.Buffers, more int) {
	bs = make(net.Buffers, 0, len(ps)+1)
	for i, p := range ps {
		if v.ws != nil && !p.control && (i == 0 || ps[i-1].control) {
			n := 0
			for j := i; j < len(ps) && !ps[j].control; j++ {
				n += len(ps[j].b)
			}
			head := appendFrameHead(nil, wsBinary, n)
			more += len(head)
			bs = append(bs, head)
		}
		bs = append(bs, p.b)
	}
	return bs, more
}

// writeTLS writes bs in records as large as they may be.
func (c *conn) writeTLS(bs net.Buffers) error {
	chunk := outChunks.Get().(*[outChunk]byte)
	defer outChunks.Put(chunk)
	n := 0
	for i, b := range bs {
		for len(b) > 0 {
			k := copy(chunk[n:], b)
			n, b = n+k, b[k:]
			if n < outChunk && (len(b) > 0 || i < len(bs)-1) {
				continue
			}
			if _, err := c.via.tls.Write(chunk[:n]); err != nil {
				return err
			}
			c.took(n)
			n = 0
		}
	}
	return nil
}

// sendControl appends a control frame of WebSocket to the output.
func (c *conn) sendControl(frame []byte) {
	c.wmu.Lock()
	c.out.control(frame)
	c.wrote(len(frame))
	c.wmu.Unlock()
}

// farewell ends the layers above the socket, after the last packet.
func (c *conn) farewell(f *faultError) {
	if c.via.ws != nil {
		c.sendControl(c.via.ws.closeFrame(f))
	}
}
