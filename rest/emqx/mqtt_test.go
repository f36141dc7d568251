package emqx_test

import (
	"context"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"millrace/mqtt"
	"millrace/rest/internal/resttest"
)

// edge is the MQTT edge of a door, whose clients come over pipes.
type edge struct {
	*mqtt.Server
	clients map[string]*client
}

// client is an MQTT 5 client that notes what it is told.
type client struct {
	net.Conn
	packets chan []byte
}

// start opens the edge when the first client comes.
func (d *door) start(t *testing.T) *edge {
	t.Helper()
	if d.edge != nil {
		return d.edge
	}
	s, err := mqtt.Listen(mqtt.Options{Broker: d.Broker, Clients: d.clients, Log: zerolog.Nop()})
	resttest.Must(t, err)
	d.edge = &edge{s, map[string]*client{}}
	t.Cleanup(func() {
		for _, c := range d.edge.clients {
			_ = c.Close()
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		resttest.Must(t, s.Close(ctx))
	})
	return d.edge
}

// connect logs a client in, with a session that lasts if its id says so, and
// subscribes it.
func (d *door) connect(t *testing.T, id string, filters []string) {
	t.Helper()
	e := d.start(t)
	ours, theirs := net.Pipe()
	e.ServeAs(theirs, mqtt.Listener{})
	e.clients[id] = logIn(t, ours, id, filters)
	synctest.Wait()
}

// logIn sends what a client sends first.
func logIn(t *testing.T, conn net.Conn, id string, filters []string) *client {
	t.Helper()
	c := &client{conn, make(chan []byte, 100)}
	go c.read()
	flags, props := "c2", "00"
	if strings.HasPrefix(id, "kept") {
		flags, props = "c0", "0511"+"00000e10" // session expiry 3600
	}
	c.send(t, 0x10, "00044d515454"+"05"+flags+"003c"+props+str(id)+str("app")+str(resttest.Secret))
	c.want(t, "20")
	for i, f := range filters {
		c.send(t, 0x82, hex.EncodeToString([]byte{0, byte(i + 1), 0})+str(f)+"01")
		c.want(t, "90")
	}
	return c
}

func str(s string) string {
	return hex.EncodeToString([]byte{byte(len(s) >> 8), byte(len(s))}) + hex.EncodeToString([]byte(s))
}

func (c *client) send(t *testing.T, head byte, body string) {
	t.Helper()
	b, err := hex.DecodeString(body)
	resttest.Must(t, err)
	_, err = c.Write(append([]byte{head, byte(len(b))}, b...))
	resttest.Must(t, err)
}

// read notes packets until the end; all that come here are short.
func (c *client) read() {
	defer close(c.packets)
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(c.Conn, head); err != nil {
			return
		}
		body := make([]byte, head[1])
		if _, err := io.ReadFull(c.Conn, body); err != nil {
			return
		}
		c.packets <- append(head, body...)
	}
}

// want waits for a packet that begins like this, in hex.
func (c *client) want(t *testing.T, prefix string) {
	t.Helper()
	for p := range c.packets {
		if strings.HasPrefix(hex.EncodeToString(p), prefix) {
			return
		}
	}
	t.Errorf("the client was never told %s", prefix)
}

// told wants the next packet that a client got, in hex, and "closed" for the end.
func (d *door) told(t *testing.T, id, what string) {
	t.Helper()
	synctest.Wait()
	c := d.edge.clients[id]
	for want := range strings.FieldsSeq(what) {
		p, ok := <-c.packets
		switch {
		case want == "closed" && ok:
			t.Errorf("client %s was told %x", id, p)
		case want != "closed" && !strings.HasPrefix(hex.EncodeToString(p), want):
			t.Errorf("client %s was told %x, want %s", id, p, want)
		}
	}
}

// disconnect has a client leave.
func (d *door) disconnect(t *testing.T, id string) {
	t.Helper()
	c := d.edge.clients[id]
	c.send(t, 0xe0, "")
	_ = c.Close()
	synctest.Wait()
}
