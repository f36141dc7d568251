package mqtt

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// readBuffer is what one read takes, and so what one batch holds.
	readBuffer = 64 << 10
	// keepSmall is the rest of a packet that is set aside while the socket is
	// silent, so that a slow sender does not hold a whole buffer.
	keepSmall = 4 << 10
)

var readBuffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// input is the read side: bytes from the socket.
type input struct {
	buf  *[readBuffer]byte // borrowed; nil while nothing is in it
	r, w int
	part []byte // what is left of a packet, while buf is given back
	big  []byte // a packet larger than buf; grows with what was received
	// since is how much was taken since the last Flush.
	since int
	dirty bool
	loose bool // the length of the packet is not in its shortest form
}

// serve reads until the connection is over. The first packet is the CONNECT.
func (c *conn) serve() {
	for {
		if c.waitOutput(); c.stop.Load() {
			return
		}
		raw, head, body, err := c.next()
		if err == nil {
			c.got.count(head, len(raw))
		}
		if err == nil && !c.open {
			err = c.greet(body)
		} else if err == nil {
			err = c.handle(head, body)
		}
		if err != nil {
			c.failed(err)
			return
		}
	}
}

// failed ends the connection for a fault, or books an error of the socket.
func (c *conn) failed(err error) {
	f, fault := errors.AsType[*faultError](err)
	switch {
	case fault:
		c.end(f)
	case c.stop.Load(): // woken, c.ending says why
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.open:
		c.end(&faultError{success, "no CONNECT in time", closeTimeout})
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.end(&faultError{keepAliveTimeout, "keep alive timed out", closeTimeout})
	}
}

// readOut takes what a client had sent when it came again on another connection,
// or the server stops: publishes, acks, and the DISCONNECT that takes its will
// back. It waits for nothing, and takes a buffer at most.
func (c *conn) readOut() {
	c.wmu.Lock()
	f := c.ending
	more := c.open && !c.said && f != nil && (f.why == closeTakenOver || f.why == closeServer)
	if more {
		_ = c.Conn.SetReadDeadline(time.Time{}) // which had woken us
	}
	c.wmu.Unlock()
	if !more {
		return
	}
	in := &c.input
	if p := in.room(); len(p) > 0 {
		if n, ok, _ := c.receive(p); ok { // an error is the end, which there is already
			in.w += n
		}
	}
	for in.w > in.r && !c.said {
		b := in.buf[in.r:in.w]
		hlen, total, f := c.header(b)
		if f != nil || total == 0 || total > len(b) {
			return
		}
		switch b[0] >> 4 {
		case typePublish, typePuback, typePubrec, typePubrel, typePubcomp, typeDisconnect:
		default:
			return
		}
		in.r += total
		c.got.count(b[0], total)
		if c.handle(b[0], b[hlen:total:total]) != nil {
			return
		}
	}
}

// next returns the next packet: all of it, its first byte, and what follows
// the fixed header. The slices are good until the next call, but for a packet
// larger than the buffer, which the caller may keep (c.owned).
func (c *conn) next() (raw []byte, head byte, body []byte, err error) {
	in := &c.input
	in.big = nil
	for {
		if have := in.w - in.r; have > 0 {
			b := in.buf[in.r:in.w]
			hlen, total, f := c.header(b)
			if f != nil {
				return nil, 0, nil, f
			}
			switch {
			case total == 0: // the header is not complete
			case total <= have:
				in.r += total
				return b[:total:total], b[0], b[hlen:total:total], nil
			case total > readBuffer:
				if err := c.fillBig(b, total); err != nil {
					return nil, 0, nil, err
				}
				return in.big, in.big[0], in.big[hlen:], nil
			}
		}
		if err := c.fill(); err != nil {
			return nil, 0, nil, err
		}
	}
}

// header reads the fixed header, section 2.1, of the packet at the start of b
// and returns its length and that of the packet, 0 if more is needed to tell.
func (c *conn) header(b []byte) (hlen, total int, f *faultError) {
	if !c.open && b[0] != typeConnect<<4 {
		c.sniff(b)
		return 0, 0, &faultError{success, "first packet is not CONNECT", closeProtocol}
	}
	v, n, st := varint(b[1:])
	switch {
	case st == varintLong:
		return 0, 0, broken(malformed, "packet length is too long")
	case st == varintShort:
		return 0, 0, nil
	case n > varintLen(v) && c.open && c.v5:
		return 0, 0, broken(malformed, "packet length is not minimal")
	}
	hlen, total = 1+n, 1+n+int(v)
	c.input.loose = n > varintLen(v)
	if c.open {
		if total > c.srv.o.MaxPacket {
			return 0, 0, &faultError{packetTooLarge, "packet is too large", closeQuota}
		}
		return hlen, total, nil
	}
	return hlen, total, c.checkConnectSize(b, hlen, total)
}

// checkConnectSize holds a CONNECT to 16 KiB, or 64 KiB if it carries a will,
// judging by as much as is there: nothing is allocated for a length declared.
func (c *conn) checkConnectSize(b []byte, hlen, total int) *faultError {
	if total <= maxConnect {
		return nil
	}
	flagsAt := 7 // 00 04 M Q T T level flags
	if b = b[hlen:]; len(b) > 1 && b[1] == 6 {
		flagsAt = 9 // 00 06 M Q I s d p level flags
	}
	if len(b) >= flagsAt {
		c.spoke, c.hello.v5 = true, flagsAt == 7 && b[6] == 5 // so that the refusal is in its words
	}
	if total <= maxConnectWill && (len(b) <= flagsAt || b[flagsAt]&4 != 0) {
		return nil
	}
	return &faultError{packetTooLarge, "CONNECT is too large", closeQuota}
}

// sniff names what else likes to knock on the port, once a second at most.
func (c *conn) sniff(b []byte) {
	if now, last := time.Now().Unix(), c.srv.sniffed.Load(); now == last || !c.srv.sniffed.CompareAndSwap(last, now) {
		return
	}
	switch string(b[:min(3, len(b))]) {
	case "GET", "HEA", "POS", "PUT", "DEL", "OPT", "CON", "PAT", "PRI":
		c.srv.log.Warn().Str("remote", c.remote).Msg("HTTP request on the MQTT port")
	case "\x16\x03\x00", "\x16\x03\x01", "\x16\x03\x02", "\x16\x03\x03":
		c.srv.log.Warn().Str("remote", c.remote).Msg("TLS handshake on the plain port")
	}
}

// fill reads what the socket has into the buffer, waiting if that is nothing.
func (c *conn) fill() error {
	in := &c.input
	if in.buf != nil && in.r > 0 {
		in.w = copy(in.buf[:], in.buf[in.r:in.w])
		in.r = 0
	}
	if in.since >= readBuffer {
		c.flush()
	}
	for {
		n, ok, err := c.receive(in.room())
		if n == 0 && c.early(err) {
			if err := c.arm(); err != nil {
				return err
			}
			continue
		}
		if ok {
			c.lastRead = time.Now()
			in.w += n
			in.since += n
			return err
		}
		if err != nil {
			return err
		}
		c.flush()
		if err := c.await(); err != nil {
			return err
		}
	}
}

// fillBig reads a packet larger than the buffer. The memory for it grows with
// what was received: it is 4 KiB, or twice as much.
func (c *conn) fillBig(b []byte, total int) error {
	in := &c.input
	in.big = append(make([]byte, 0, min(total, max(keepSmall, 2*len(b)))), b...)
	in.give()
	for len(in.big) < total {
		if len(in.big) == cap(in.big) {
			grown := make([]byte, len(in.big), min(total, 2*cap(in.big)))
			copy(grown, in.big)
			in.big = grown
		}
		room := in.big[len(in.big):min(cap(in.big), total)]
		n, ok, err := c.receive(room)
		if n == 0 && c.early(err) {
			if err := c.arm(); err != nil {
				return err
			}
			continue
		}
		if !ok && err == nil {
			c.flush()
			err = c.await()
		}
		if n > 0 {
			c.lastRead = time.Now()
		}
		if in.big = in.big[:len(in.big)+n]; err != nil && len(in.big) < total {
			return err
		}
	}
	in.since += total
	return nil
}

// flush hands the publishes gathered so far to the broker: they will share a
// commit.
func (c *conn) flush() {
	c.input.since = 0
	c.got.book(&c.srv.stats.received, &c.received)
	if c.input.dirty {
		c.input.dirty = false
		c.producer.Flush()
		c.session.settle()
	}
}

// await waits until the socket has something, within the keep alive or the
// deadline for CONNECT. The buffer is given back meanwhile.
func (c *conn) await() error {
	c.input.settle()
	for {
		if err := c.arm(); err != nil {
			return err
		}
		err := c.via.raw.wait(c.Conn)
		if c.early(err) {
			continue
		}
		return err
	}
}

// stays lets d go by, and returns an error if the connection ends meanwhile. What the
// client sends is kept; once that is a buffer, nobody looks whether it is still there.
func (c *conn) stays(d time.Duration) error {
	end := time.Now().Add(d)
	err := c.until(end)
	for err == nil {
		p := c.input.room()
		if len(p) == 0 {
			select {
			case <-time.After(time.Until(end)):
			case <-c.srv.stopped:
			}
			return nil
		}
		n, ok, failed := c.receive(p)
		c.input.w += n
		if err = failed; !ok && err == nil {
			err = c.via.raw.wait(c.Conn)
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && !c.stop.Load() {
		return nil
	}
	return err
}

// here reports whether the client is still connected, or has sent something after its
// CONNECT that is to be served; it does not wait, and keeps what came. A connection
// that is no socket counts as there.
func (c *conn) here() bool {
	in := &c.input
	p := in.room()
	if in.r < in.w || len(p) == 0 { // of a full buffer nothing more is known
		return true
	}
	n, _, err := c.receive(p)
	in.w += n
	return n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) && !c.stop.Load()
}

// arm sets the deadline of the next read, unless it would hardly move.
func (c *conn) arm() error {
	at := c.accepted.Add(c.srv.o.ConnectTimeout)
	if c.open {
		at = time.Time{}
		keepAlive := time.Duration(c.keepAlive.Load())
		if keepAlive > 0 {
			at = c.lastRead.Add(keepAlive)
		}
		if d := at.Sub(c.deadline); !c.rearm.Swap(false) && at.IsZero() == c.deadline.IsZero() && d >= 0 && d < keepAlive/16+1 {
			return nil
		}
	} else if at.Equal(c.deadline) {
		return nil
	}
	return c.until(at)
}

// until sets the deadline of the next read.
func (c *conn) until(at time.Time) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.stop.Load() { // end has set a deadline of its own, which must stay
		return io.EOF
	}
	c.deadline = at
	return c.Conn.SetReadDeadline(at)
}

// early reports that err is a deadline which passed, and was an older one, or
// one that was set to wake the reader.
func (c *conn) early(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.stop.Load() || !c.open {
		return false
	}
	keepAlive := time.Duration(c.keepAlive.Load())
	return keepAlive == 0 || time.Since(c.lastRead) < keepAlive
}

// settle gives the buffer back if little or nothing is in it.
func (in *input) settle() {
	if in.buf == nil || in.w-in.r > keepSmall {
		return
	}
	if in.w > in.r {
		in.part = append([]byte(nil), in.buf[in.r:in.w]...)
	}
	in.give()
}

func (in *input) give() {
	if in.buf != nil {
		readBuffers.Put(in.buf)
		in.buf, in.r, in.w = nil, 0, 0
	}
}

// room is the free end of the buffer, which is borrowed if there is none.
func (in *input) room() []byte {
	if in.buf == nil {
		in.buf = readBuffers.Get().(*[readBuffer]byte)
		in.r, in.w = 0, copy(in.buf[:], in.part)
		in.part = nil
	}
	return in.buf[in.w:]
}
