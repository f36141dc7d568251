//go:build unix

package mqtt_test

import (
	"net"
	"testing"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/mqtt"
)

// closing is a socket that tells when the server has closed it.
type closing struct {
	*net.TCPConn
	closed chan struct{}
}

func (c *closing) Close() error {
	err := c.TCPConn.Close()
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	return err
}

// sendsAndLeaves is a client that sends something and closes its socket before the
// server looks. It returns when the server is done with it.
func sendsAndLeaves(t *testing.T, e *edge, b []byte) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Write(b)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	k := &closing{s.(*net.TCPConn), make(chan struct{})}
	e.Serve(k)
	select {
	case <-k.closed:
	case <-time.After(30 * time.Second):
		t.Fatal("the socket is open 30 s after its client has closed it")
	}
}

// TestAClientThatHasLeftTakesNothing: one whose CONNECT is read when it is gone, and
// may be connected again. One that has sent more is served.
func TestAClientThatHasLeftTakesNothing(t *testing.T) {
	e := openLimited(t, "", mqtt.Bare, auth.Rates{}, broker.Options{})
	at, _ := stay(t, e, "x")
	sendsAndLeaves(t, e, stayPacket("x"))
	at.ping()
	sendsAndLeaves(t, e, append(stayPacket("x"), 0xC0, 0))
	at.ends(0x8E)
}

func TestAClientThatHasLeftTakesNothingFromAnotherNode(t *testing.T) {
	a, b, _, _ := two(t)
	at, _ := stay(t, a, "x")
	clean := pipeIn(t, a, true, "clean")
	sendsAndLeaves(t, b, stayPacket("x"))
	sendsAndLeaves(t, b, connectPacket(true, "clean", nil))
	at.ping()
	clean.ping()
	sendsAndLeaves(t, b, append(stayPacket("x"), 0xC0, 0))
	at.ends(0x8E)
}

// TestAClientWhoseConnectFillsTheBufferIsThere: there is no room to look for more.
func TestAClientWhoseConnectFillsTheBufferIsThere(t *testing.T) {
	e := open(t)
	for range 2 {
		r := dial(t, e)
		r.v5 = true
		r.send(willed(64 << 10).packet())
		if head, body := r.packet(); head != 0x20 || body[1] != 0 {
			t.Errorf("CONNACK is %x %x", head, body)
		}
	}
}
