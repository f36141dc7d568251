package jetstream_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// lossy is a way to a server on which messages of the log of sessions get lost.
type lossy struct {
	*server.Server
	lose atomic.Int32 // so many of those that come next
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
		if !bytes.Contains(line, []byte(" $JS.ACK.mr_log.")) || c.way.lose.Add(-1) < 0 {
			c.rest = slices.Concat(line, payload)
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// said is a log that keeps the lines with a text in them.
type said struct {
	text  string
	lines chan string
}

func (s said) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.text) {
		s.lines <- string(p)
	}
	return len(p), nil
}

// asked counts what is asked of the server on a subject from now on.
func (x *clients) asked(subject string) *atomic.Int32 {
	x.Helper()
	nc, err := nats.Connect(x.o.URL, x.c.Dial())
	if err != nil {
		x.Fatal(err)
	}
	x.Cleanup(nc.Close)
	n := new(atomic.Int32)
	if _, err := nc.Subscribe(subject, func(*nats.Msg) { n.Add(1) }); err != nil {
		x.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		x.Fatal(err)
	}
	return n
}

// TestATailThatLosesAMessageIsReplacedOnce, and that is said once, however many came
// behind the one that is missing.
func TestATailThatLosesAMessageIsReplacedOnce(t *testing.T) {
	inBubble(t, func(x *clients) {
		x.end()
		way := &lossy{Server: x.c.Servers[0]}
		again := said{"the log of sessions is read again", make(chan string, 1000)}
		x.o.Dial, x.o.Log = []nats.Option{nats.InProcessServer(way)}, zerolog.New(again)
		tails := x.asked("$JS.API.CONSUMER.CREATE.mr_log.>")
		x.start()
		s := x.session("s")
		x.publishAll(bodies(0, 10), s)
		for stall := range 2 {
			way.lose.Store(1)
			x.publishAll(bodies(10+stall*500, 500), s)
			time.Sleep(time.Minute)
			if n := len(again.lines); n != stall+1 {
				x.Errorf("%d lines say that the log is read again, want %d", n, stall+1)
			}
			if n := int(tails.Load()); n != stall+2 {
				x.Errorf("the log was read %d times, want %d: from the start, and after each loss", n, stall+2)
			}
		}
		x.expect(s, bodies(0, 1010)...)
	})
}
