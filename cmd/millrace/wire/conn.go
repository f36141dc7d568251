package wire

import (
	"context"
	"fmt"
	"net"
	"time"
)

// RefusedError is the code of a CONNACK that lets nobody in, section 3.2.2.3.
type RefusedError struct{ Code byte }

func (e *RefusedError) Error() string { return fmt.Sprintf("refused with code %d", e.Code) }

// Conn is a connection that is logged in. It is used by one goroutine.
type Conn struct {
	net.Conn
	in         []byte
	start, end int
}

// Dial connects to addr, logs in and waits for the answer, while ctx lasts.
func Dial(ctx context.Context, addr string, l Login) (*Conn, error) {
	nc, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	defer context.AfterFunc(ctx, func() { _ = nc.Close() })()
	return LogIn(nc, l)
}

// LogIn logs in on a connection that is open, and closes it where that fails.
func LogIn(nc net.Conn, l Login) (*Conn, error) {
	c := &Conn{Conn: nc, in: make([]byte, 64<<10)}
	if err := c.login(l); err != nil {
		_ = nc.Close() // the refusal is what matters
		return nil, fmt.Errorf("log in to %s: %w", nc.RemoteAddr(), err)
	}
	return c, nil
}

func (c *Conn) login(l Login) error {
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(AppendConnect(nil, l)); err != nil {
		return err
	}
	p, err := c.Read1()
	if err != nil {
		return err
	}
	if p.Type != Connack || len(p.Body) < 2 {
		return fmt.Errorf("refused: packet type %d, % x", p.Type, p.Body)
	}
	if code := p.Body[1]; code != 0 {
		return &RefusedError{code}
	}
	return c.SetDeadline(time.Time{})
}

// Subscribe subscribes to one filter and waits for the answer; what arrives
// before it is lost, so it comes first on a connection.
func (c *Conn) Subscribe(filter string, qos byte) error {
	if _, err := c.Write(AppendSubscribe(nil, 1, filter, qos)); err != nil {
		return err
	}
	for {
		p, err := c.Read1()
		if err != nil {
			return err
		}
		if p.Type != Suback {
			continue
		}
		if len(p.Body) < 3 || p.Body[2] > 2 {
			return fmt.Errorf("subscription to %s refused", filter)
		}
		return nil
	}
}

// Buffered returns the next packet that was read already.
func (c *Conn) Buffered() (Packet, bool, error) {
	p, n, err := Next(c.in[c.start:c.end])
	c.start += n
	return p, n > 0, err
}

// Fill reads once more from the network.
func (c *Conn) Fill() error {
	if c.start > 0 {
		c.end = copy(c.in, c.in[c.start:c.end])
		c.start = 0
	}
	if c.end == len(c.in) {
		c.in = append(c.in, make([]byte, len(c.in))...)
	}
	n, err := c.Read(c.in[c.end:])
	c.end += n
	if n > 0 {
		return nil
	}
	return err
}

// Read1 waits for one packet.
func (c *Conn) Read1() (Packet, error) {
	for {
		p, ok, err := c.Buffered()
		if ok || err != nil {
			return p, err
		}
		if err := c.Fill(); err != nil {
			return Packet{}, err
		}
	}
}
