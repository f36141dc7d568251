package jetstream_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"sync/atomic"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// lossy is a way to a server on which some of what comes from it gets lost.
type lossy struct {
	*server.Server
	what string       // in the messages that get lost, or in how they are addressed
	lose atomic.Int32 // so many of those that come next
}

// lossy has the next store of x connect by such a way.
func (x *clients) lossy(what string) *lossy {
	way := &lossy{Server: x.c.Servers[0], what: what}
	x.o.Dial = []nats.Option{nats.InProcessServer(way)}
	return way
}

func (l *lossy) InProcessConn() (net.Conn, error) {
	c, err := l.Server.InProcessConn()
	return &lossyConn{Conn: c, from: bufio.NewReader(c), way: l}, err
}

type lossyConn struct {
	net.Conn
	from *bufio.Reader
	rest []byte // of a line, with its payload
	way  *lossy
}

func (c *lossyConn) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		line, err := c.from.ReadBytes('\n')
		if err != nil {
			return 0, err
		}
		if !bytes.HasPrefix(line, []byte("MSG ")) && !bytes.HasPrefix(line, []byte("HMSG ")) {
			c.rest = line
			break
		}
		head := bytes.Fields(line)
		size, err := strconv.Atoi(string(head[len(head)-1]))
		if err != nil {
			return 0, err
		}
		payload := make([]byte, size+len("\r\n"))
		if _, err := io.ReadFull(c.from, payload); err != nil {
			return 0, err
		}
		line = append(line, payload...)
		if !bytes.Contains(line, []byte(c.way.what)) || c.way.lose.Add(-1) < 0 {
			c.rest = line
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// asked counts what is asked of the server on a subject from now on.
func (x *clients) asked(subject string) *atomic.Int32 {
	x.Helper()
	nc := dial(x.T, x.c)
	n := new(atomic.Int32)
	if _, err := nc.Subscribe(subject, func(*nats.Msg) { n.Add(1) }); err != nil {
		x.Fatal(err)
	}
	flush(x.T, nc)
	return n
}
