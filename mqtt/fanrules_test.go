package mqtt_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/mqtt"
)

// drain is the connection of a subscriber whose network costs nothing: it says
// what it was made to say, and counts what it is sent.
type drain struct {
	net.Conn // of a pipe, for addresses and deadlines
	says     []byte
	end      chan struct{}
	got      *atomic.Int64
}

func (d *drain) Read(p []byte) (int, error) {
	if len(d.says) == 0 {
		<-d.end
		return 0, net.ErrClosed
	}
	n := copy(p, d.says)
	d.says = d.says[n:]
	return n, nil
}

func (d *drain) Write(p []byte) (int, error) {
	d.got.Add(int64(len(p)))
	return len(p), nil
}

// fan is a broker with subscribers to everything, and nothing else to do.
type fan struct {
	e        *edge
	p        *broker.Producer
	n        int
	got      atomic.Int64
	want     int64
	messages []*broker.Message
	took     []int64 // processor time of each round
}

func newFan(tb testing.TB, n, topics int, rules ...auth.Rule) *fan {
	tb.Helper()
	f := &fan{e: openWith(tb, "", mqtt.Bare, silent), n: n}
	f.e.rules(tb, rules...)
	end := make(chan struct{})
	tb.Cleanup(func() { close(end) })
	for i := range n {
		r := &raw{}
		says := append(connectPacket(false, fmt.Sprint("sub", i), nil), r.subscribePacket(1, 0, nil, "devices/#")...)
		a, b := net.Pipe()
		tb.Cleanup(func() { _, _ = a.Close(), b.Close() })
		f.e.Serve(&drain{Conn: a, says: says, end: end, got: &f.got})
	}
	f.want = int64(n * (4 + 5)) // CONNACK and SUBACK
	f.all(tb)
	f.p = f.e.broker.NewProducer(&auth.Principal{Kind: auth.Anonymous, ClientID: "pub"}, nil)
	for i := range topics {
		f.messages = append(f.messages, &broker.Message{Topic: fmt.Sprintf("devices/%05d/temperature", i), Payload: make([]byte, 256)})
	}
	return f
}

// all waits until everyone was sent everything.
func (f *fan) all(tb testing.TB) {
	tb.Helper()
	for end := time.Now().Add(time.Minute); f.got.Load() < f.want; runtime.Gosched() {
		if time.Now().After(end) {
			tb.Fatalf("%d of %d bytes were sent", f.got.Load(), f.want)
		}
	}
}

// round publishes so many messages to all.
func (f *fan) round(tb testing.TB, messages int) {
	tb.Helper()
	start := cpu()
	for i := range messages {
		m := *f.messages[(len(f.took)*messages+i)%len(f.messages)]
		f.want += int64(f.n * (2 + 1 + 2 + len(m.Topic) + len(m.Payload)))
		f.p.Publish(&m, 0)
	}
	f.all(tb)
	f.took = append(f.took, cpu()-start)
}

// TestFanOutUnderRulesCostsWhatItCostsWithout compares the processor time of
// deliveries under 40 denies that each of them has to be asked about with that
// of deliveries without rules. Other work on the machine disturbs longer than a round
// takes: rounds are short and take turns, and the lowest tenth of each kind
// counts. A second broker without rules tells what the measure is worth. To one
// subscriber alone, a delivery is all there is: no network, and one look-up of the topic.
func TestFanOutUnderRulesCostsWhatItCostsWithout(t *testing.T) {
	rounds, topics, most := 20, 100, 2.0 // enough to see that each delivery decides anew
	if n, err := strconv.Atoi(os.Getenv("MILLRACE_FANOUT_ROUNDS")); err == nil {
		rounds, topics, most = n, 1000, 1.05
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, c := range []struct{ subscribers, topics, messages int }{{100, 1, 20}, {100, topics, 20}, {1, 1, 1000}, {1, topics, 1000}} {
		if c.subscribers == 1 && most > 1.05 {
			continue // nothing is asked of it
		}
		fans := []*fan{newFan(t, c.subscribers, c.topics), newFan(t, c.subscribers, c.topics, overlapping...), newFan(t, c.subscribers, c.topics)}
		for _, f := range fans {
			f.round(t, c.topics) // what is asked for the first time is decided
			f.took = nil
		}
		for i := range rounds {
			for _, f := range fans {
				f.round(t, c.messages)
			}
			if i%50 == 49 {
				runtime.GC()
			}
		}
		var cost [3]float64
		for i, f := range fans {
			slices.Sort(f.took)
			cost[i] = float64(f.took[len(f.took)/10]) / float64(c.messages*c.subscribers)
		}
		ratio := cost[1] / cost[0]
		t.Logf("%d subscribers, %d topics: a delivery without rules takes %.0f ns, with 40 %.0f: %.3f (again without: %.3f)",
			c.subscribers, c.topics, cost[0], cost[1], ratio, cost[2]/cost[0])
		if c.subscribers > 1 && ratio > most {
			t.Errorf("%d subscribers, %d topics: fan-out under rules costs %.3f of what it costs without", c.subscribers, c.topics, ratio)
		}
	}
}
