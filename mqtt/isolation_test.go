package mqtt_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"millrace/mqtt"
)

// crowd are subscribers that read as fast as they can, and a publisher.
type crowd struct {
	pub  *raw
	n    int
	done chan struct{}
}

const crowdMessages = 4000 // of 256 bytes, in one round

func newCrowd(tb testing.TB, e *edge, n int) *crowd {
	tb.Helper()
	c := &crowd{pub: login(tb, e, false, "pub"), n: n, done: make(chan struct{})}
	for i := range n {
		r := login(tb, e, false, fmt.Sprint("good", i))
		r.subscribe(1, 0, "t")
		_ = r.SetDeadline(noDeadline)
		size := int64(len(r.publishPacket("t", strings.Repeat("x", 256), 0, 0)))
		go func() { // ends with the connection, which the test closes
			for {
				if _, err := io.CopyN(io.Discard, r.br, size*crowdMessages); err != nil {
					return
				}
				c.done <- struct{}{}
			}
		}()
	}
	return c
}

// round publishes to all of them, and returns the processor time that it took.
func (c *crowd) round() (cost float64) {
	one := c.pub.publishPacket("t", strings.Repeat("x", 256), 0, 0)
	start := cpu()
	for range crowdMessages / 20 {
		c.pub.send(bytes.Repeat(one, 20))
	}
	for range c.n {
		<-c.done
	}
	return float64(cpu() - start)
}

// BenchmarkBadSubscriber reports what rounds with a bad subscriber cost, as a
// share of those without: in processor time, less the bad one's own part. At
// 1.1 the others would have lost a tenth of their rate. Rounds alternate, and
// the best of each kind counts.
func BenchmarkBadSubscriber(b *testing.B) { // B25
	const n = 20
	for name, bad := range map[string]func(e *edge) *raw{
		"does not read": func(e *edge) *raw {
			r := login(b, e, false, "bad")
			r.subscribe(1, 0, "t")
			return r
		},
		"does not read, QoS 1": func(e *edge) *raw {
			r := login(b, e, false, "bad")
			r.subscribe(1, 1, "t")
			return r
		},
		"never acks": func(e *edge) *raw {
			r := login(b, e, true, "bad")
			r.subscribe(1, 1, "t")
			go func() { _, _ = io.Copy(io.Discard, r.br) }() // ends with the connection
			return r
		},
		"reads slowly": func(e *edge) *raw {
			r := login(b, e, false, "bad")
			r.subscribe(1, 0, "t")
			go func() { // ends with the connection
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for p := make([]byte, 1<<10); ; <-tick.C {
					if _, err := r.Read(p); err != nil {
						return
					}
				}
			}()
			return r
		},
	} {
		b.Run(name, func(b *testing.B) {
			e := open(b, silent, func(o *mqtt.Options) { o.MaxOutput, o.BacklogMessages = 1<<20, 10_000 })
			c := newCrowd(b, e, n)
			c.round()
			for b.Loop() {
				with, without := math.Inf(1), math.Inf(1)
				for range 8 {
					without = min(without, c.round())
					r := bad(e)
					with = min(with, c.round()*n/(n+1))
					_ = r.Close()
					eventually(b, "it is gone", func() bool { return e.Stats().Open == n+1 })
				}
				b.ReportMetric(with/without, "cost-ratio")
			}
		})
	}
}

// full is a client that has taken all that its socket holds, and reads nothing.
func full(t *testing.T, e *edge, id string) *raw {
	t.Helper()
	r := login(t, e, true, id)
	r.subscribe(1, 0, "stuck/"+id)
	pub := login(t, e, false, "")
	before := e.Stats().Dropped["shed"]
	eventually(t, "its output is full", func() bool {
		pub.publish("stuck/"+id, strings.Repeat("x", 64<<10), 0, 0)
		return e.Stats().Dropped["shed"] > before
	})
	pub.send([]byte{0xE0, 0})
	return r
}

func TestAStuckClientHoldsNobodyUp(t *testing.T) { // B35
	e := open(t, func(o *mqtt.Options) { o.MaxOutput, o.StallTimeout = 256<<10, time.Minute })
	full(t, e, "a")
	start := time.Now()
	login(t, e, true, "a").ping()
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("a take-over took %v", took)
	}
	eventually(t, "it is gone", func() bool { return e.Stats().Closed["taken_over"] == 1 })
	full(t, e, "b")
	start = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := e.Close(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("a stop took %v", took)
	}
}

func TestWhatABadSubscriberHoldsIsBounded(t *testing.T) { // B25, test 24
	e := open(t, func(o *mqtt.Options) { o.MaxOutput, o.BacklogMessages, o.MaxInflight = 128<<10, 500, 100 })
	never := login(t, e, true, "never")
	never.subscribe(1, 1, "t")
	pub := login(t, e, true, "pub")
	for i := range 1000 {
		pub.publish("t", "x", 1, uint16(i+1))
		pub.packet()
	}
	if n := e.Stats().Dropped["backlog"]; n != 400 { // 100 on their way, 500 wait
		t.Errorf("%d dropped", n)
	}
	for i := range 100 {
		if m := never.recv(); m.dup || m.id != uint16(i+1) {
			t.Fatalf("message %d is %+v", i, m)
		}
	}
	never.quiet() // and nothing is sent again
}
