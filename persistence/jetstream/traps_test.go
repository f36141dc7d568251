package jetstream_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"millrace/persistence/jetstream/jetstreamtest"
)

// The tests of the files traps* are of NATS alone: each is of one of its ways that the store
// relies upon, or avoids. Where one fails, a version of the servers or of nats.go has changed
// what the store was made for.

const (
	trapLease = 30 * time.Second      // AckWait of the consumers of these tests
	trapLate  = 15 * time.Millisecond // how much later than its time something may come, as State says
)

// trap is a server in a bubble of fake time, with nothing of ours on it.
type trap struct {
	*testing.T
	c  *jetstreamtest.Cluster
	nc *nats.Conn
	js natsjs.JetStream
}

func inTrap(t *testing.T, f func(x *trap)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := jetstreamtest.InProcess(t)
		x := &trap{T: t, c: c, nc: dial(t, c)}
		js, err := natsjs.New(x.nc)
		if err != nil {
			t.Fatal(err)
		}
		x.js = js
		f(x)
	})
}

// connect opens another connection.
func (x *trap) connect(o ...nats.Option) *nats.Conn {
	x.Helper()
	nc, err := nats.Connect("nats://lone", o...)
	if err != nil {
		x.Fatal(err)
	}
	x.Cleanup(nc.Close)
	return nc
}

// stream makes a stream, called "q" unless it has a name, of the subjects that begin so.
func (x *trap) stream(c natsjs.StreamConfig) {
	x.Helper()
	c.Name = cmp.Or(c.Name, "q")
	c.Subjects = []string{c.Name + ".>"}
	if _, err := x.js.CreateStream(x.Context(), c); err != nil {
		x.Fatal(err)
	}
}

// queue makes a stream as queues have, and its consumer.
func (x *trap) queue(c natsjs.StreamConfig) {
	x.Helper()
	c.Retention = natsjs.WorkQueuePolicy
	x.stream(c)
	x.consumer(natsjs.ConsumerConfig{})
}

// consumer makes the consumer "c" of the stream "q".
func (x *trap) consumer(c natsjs.ConsumerConfig) {
	x.Helper()
	c.Durable, c.AckPolicy, c.AckWait, c.MaxDeliver = "c", natsjs.AckExplicitPolicy, trapLease, -1
	if _, err := x.js.CreateConsumer(x.Context(), "q", c); err != nil {
		x.Fatal(err)
	}
}

// send publishes, with pairs of header and value.
func (x *trap) send(subject, body string, headers ...string) (*natsjs.PubAck, error) {
	m := &nats.Msg{Subject: subject, Data: []byte(body), Header: nats.Header{}}
	for i := 0; i < len(headers); i += 2 {
		m.Header[headers[i]] = []string{headers[i+1]}
	}
	return x.js.PublishMsg(x.Context(), m)
}

// put publishes to the stream "q", one message for each body.
func (x *trap) put(bodies ...string) {
	x.Helper()
	for _, body := range bodies {
		if _, err := x.send("q.m", body); err != nil {
			x.Fatal(err)
		}
	}
}

// take receives what is there now, at most n messages.
func (x *trap) take(n int) (got []natsjs.Msg) {
	x.Helper()
	synctest.Wait() // the server is done with what it confirmed
	c, err := x.js.Consumer(x.Context(), "q", "c")
	if err != nil {
		x.Fatal(err)
	}
	batch, err := c.FetchNoWait(n)
	if err != nil {
		x.Fatal(err)
	}
	for m := range batch.Messages() {
		got = append(got, m)
	}
	if err := batch.Error(); err != nil {
		x.Fatal(err)
	}
	return got
}

// one receives the only message that is there now.
func (x *trap) one() natsjs.Msg {
	x.Helper()
	got := x.take(2)
	if len(got) != 1 {
		x.Fatalf("%q are received, want one message", bodiesOf(got))
	}
	return got[0]
}

// next waits for a message, for an hour.
func (x *trap) next() natsjs.Msg {
	x.Helper()
	c, err := x.js.Consumer(x.Context(), "q", "c")
	if err != nil {
		x.Fatal(err)
	}
	m, err := c.Next(natsjs.FetchMaxWait(time.Hour))
	if err != nil {
		x.Fatal(err)
	}
	return m
}

// comes fails the test unless a message comes at a time, within trapLate.
func (x *trap) comes(what string, at time.Time) natsjs.Msg {
	x.Helper()
	m := x.next()
	if by := time.Since(at); by < 0 || by > trapLate {
		x.Errorf("%s: it comes %s after its time", what, by)
	}
	return m
}

// ask sends a request, and returns the answer.
func (x *trap) ask(subject, body string) (*nats.Msg, error) {
	return request(x.T, x.nc, &nats.Msg{Subject: subject, Data: []byte(body)})
}

// settle sends a settlement of a delivery, and returns its confirmation.
func (x *trap) settle(m natsjs.Msg, how string) string {
	x.Helper()
	answer, err := x.ask(m.Reply(), how)
	if err != nil {
		x.Fatalf("%s of %s: %v", how, m.Data(), err)
	}
	return fmt.Sprintf("%s %v", answer.Data, answer.Header)
}

// nack is the settlement that gives a message back for later.
func nack(d time.Duration) string { return fmt.Sprintf(`-NAK {"delay":%d}`, d) }

// holds fails the test unless the stream "q" has n messages, m of them leased.
func (x *trap) holds(n uint64, m int) {
	x.Helper()
	synctest.Wait() // as take
	if at := x.state("q"); at.Msgs != n {
		x.Errorf("the stream has %d messages, want %d", at.Msgs, n)
	}
	c, err := x.js.Consumer(x.Context(), "q", "c")
	if err != nil {
		x.Fatal(err)
	}
	if is := c.CachedInfo().NumAckPending; is != m {
		x.Errorf("%d messages are leased, want %d", is, m)
	}
}

// state is that of a stream.
func (x *trap) state(stream string) natsjs.StreamState {
	x.Helper()
	s, err := x.js.Stream(x.Context(), stream)
	if err != nil {
		x.Fatal(err)
	}
	return s.CachedInfo().State
}

// purge removes from the stream "q".
func (x *trap) purge(o ...natsjs.StreamPurgeOpt) {
	x.Helper()
	s, err := x.js.Stream(x.Context(), "q")
	if err != nil {
		x.Fatal(err)
	}
	if err := s.Purge(x.Context(), o...); err != nil {
		x.Fatal(err)
	}
}

// left fails the test unless these are received now, in that order.
func (x *trap) left(bodies ...string) {
	x.Helper()
	if got := bodiesOf(x.take(10)); !slices.Equal(got, bodies) {
		x.Errorf("%q are received, want %q", got, bodies)
	}
}

// waitFor fails the test unless something happens within an hour: without an end a bubble turns
// for ever.
func waitFor[T any](x *trap, what string, happens <-chan T) {
	x.Helper()
	select {
	case <-happens:
	case <-time.After(time.Hour):
		x.Fatalf("not within an hour: %s", what)
	}
}

// refused fails the test unless err is one of JetStream, by its number.
func (x *trap) refused(what string, err error, number int) {
	x.Helper()
	if e, ok := errors.AsType[*natsjs.APIError](err); !ok || int(e.ErrorCode) != number {
		x.Errorf("%s: %v, want error %d", what, err, number)
	}
}

func bodiesOf(ms []natsjs.Msg) (list []string) {
	for _, m := range ms {
		list = append(list, string(m.Data()))
	}
	return list
}
