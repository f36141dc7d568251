package jetstream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// deaf is a way to a server on which answers can be held back, and requests lost.
type deaf struct {
	*server.Server
	shut atomic.Pointer[chan struct{}]
	mute atomic.Bool // what is published does not arrive
	cut  atomic.Bool // the next answer is lost, and the connection with it
	jams atomic.Pointer[jam]
}

// newDeaf returns a way to a server. As for request, nats.go keeps the timer of its first flush
// when it connects again: two collections take it away before the next test.
func newDeaf(t *testing.T, s *server.Server) *deaf {
	t.Helper()
	t.Cleanup(func() { runtime.GC(); runtime.GC() })
	return &deaf{Server: s}
}

// jam is one of a way on which nothing is read.
type jam struct {
	begun chan struct{} // something waits
	over  chan struct{}
	once  sync.Once
}

// jam has the server read nothing until read is called. Something waits for that once
// begun is closed.
func (d *deaf) jam() (begun <-chan struct{}, read func()) {
	j := &jam{begun: make(chan struct{}), over: make(chan struct{})}
	d.jams.Store(j)
	return j.begun, sync.OnceFunc(func() {
		d.jams.Store(nil)
		close(j.over)
	})
}

// hold holds answers back until what it returns is called.
func (d *deaf) hold() (release func()) {
	c := make(chan struct{}) // a lock would stop the fake time
	d.shut.Store(&c)
	return func() {
		d.shut.Store(nil)
		close(c)
	}
}

func (d *deaf) InProcessConn() (net.Conn, error) {
	c, err := d.Server.InProcessConn()
	return &deafConn{c, d}, err
}

type deafConn struct {
	net.Conn
	d *deaf
}

// Read waits while the way is deaf, and ends once it is cut.
func (c *deafConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.d.cut.CompareAndSwap(true, false) {
		_ = c.Close()
		return 0, io.EOF
	}
	if shut := c.d.shut.Load(); shut != nil {
		<-*shut
	}
	return n, err
}

// Write loses messages while the way is mute, and waits while it is jammed.
func (c *deafConn) Write(p []byte) (int, error) {
	if j := c.d.jams.Load(); j != nil {
		j.once.Do(func() { close(j.begun) })
		<-j.over
	}
	if c.d.mute.Load() && (bytes.HasPrefix(p, []byte("PUB ")) || bytes.HasPrefix(p, []byte("HPUB "))) {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// TestASettlementThatIsNotAnswered may have happened; the next one finds out, and
// nothing that was answered is forgotten.
func TestASettlementThatIsNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		way := newDeaf(t, jetstreamtest.InProcess(t).Servers[0])
		o := jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{nats.InProcessServer(way)}}
		s, stream, sub := subscribed(t, o, 1)
		fill(t, s, stream, 4)
		got := take(s, sub, 4, time.Hour, time.Second)
		settle := func(i int) error {
			return commit(s, func(b *broker.Batch) { b.Settle(got[i].Ref, broker.ReasonAcked) }).Err
		}
		if err := settle(0); err != nil {
			t.Fatal(err)
		}
		release := way.hold()
		if err := settle(1); !errors.Is(err, broker.ErrUnknown) {
			t.Errorf("a settlement without an answer is %v, want unknown", err)
		}
		release()
		<-time.After(time.Minute)
		for _, i := range []int{1, 2} {
			if err := settle(i); err != nil {
				t.Errorf("settlement %d after the answers came back: %v", i, err)
			}
		}
		s.Crash()
		again := open(t, o)
		again.Bind(make(heard, 10))
		<-time.After(2 * time.Hour)
		if have := take(again, sub, 10, time.Minute, time.Second); len(have) != 1 || have[0].Offset != 3 {
			t.Errorf("%v come again, want 3", offsets(have))
		}
		if err := again.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestACloseIsAsPatientAsAnElection.
func TestACloseIsAsPatientAsAnElection(t *testing.T) {
	for away, patient := range map[time.Duration]bool{12 * time.Second: true, time.Minute: false} {
		synctest.Test(t, func(t *testing.T) {
			way := newDeaf(t, jetstreamtest.InProcess(t).Servers[0])
			s := open(t, jetstream.Options{URL: "nats://lone", Replicas: 1, Dial: []nats.Option{nats.InProcessServer(way)}})
			for i := range 20 {
				if _, err := s.Define(t.Context(), broker.Def{Name: fmt.Sprint(i), Kind: broker.QueueTarget}); err != nil {
					t.Fatal(err)
				}
			}
			release := way.hold()
			time.AfterFunc(away, release)
			began := time.Now()
			err := s.Close(t.Context())
			if (err == nil) != patient {
				t.Errorf("a close while nothing is answered for %s: %v", away, err)
			}
			if took := time.Since(began); took > 40*time.Second {
				t.Errorf("it took %s", took)
			}
			<-time.After(away) // what holds the answers back ends with it
		})
	}
}
