package main_test

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/cmd/millrace/wire"
)

// badSubscribers are clients of which nobody else may notice much.
var badSubscribers = []struct {
	name string
	qos  byte
	live func(c *wire.Conn) // until its connection is closed
}{
	{"does not read, QoS 0", 0, func(*wire.Conn) {}},
	{"does not read, QoS 1", 1, func(*wire.Conn) {}},
	{"never acknowledges", 1, func(c *wire.Conn) { _, _ = io.Copy(io.Discard, c.Conn) }},
	{"reads slowly, QoS 0", 0, readSlowly},
	{"reads slowly, QoS 1", 1, readSlowly},
}

// readSlowly takes 100 KiB a second.
func readSlowly(c *wire.Conn) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for p := make([]byte, 1<<10); ; <-tick.C {
		if _, err := c.Read(p); err != nil {
			return
		}
	}
}

// TestABadSubscriberCostsTheOthersLittle compares two brokers of twenty
// subscribers each, one of which has a bad one besides: the time that they spend
// on what the good ones get, and the time until these have it. What is spent on
// the bad one counts as theirs: a good one more would cost a twentieth. The two
// take turns every few milliseconds, and the bad one changes sides, so that
// other work on the machine is the same for both.
func TestABadSubscriberCostsTheOthersLittle(t *testing.T) {
	rounds := fromEnv(t, "MILLRACE_ISOLATION_ROUNDS", 0)
	if rounds == 0 {
		t.Skip("it takes half a minute for every kind of them: MILLRACE_ISOLATION_ROUNDS=20")
	}
	for _, bad := range badSubscribers {
		t.Run(bad.name, func(t *testing.T) {
			var fs [2]*fanOut
			for i := range fs {
				fs[i] = openFanOut(t, 20, 100, 1, "--set", "mqtt.max_output=1MiB", "--set", "mqtt.max_session_queue=10000", "--emqx-listen", "127.0.0.1:0")
				fs[i].subscribe()
				fs[i].publish(10)
			}
			var spent, took []float64 // with it, as shares of without
			for r := range int(rounds) {
				with, without := fs[r%2], fs[(r+1)%2]
				c := with.dial("bad")
				if err := c.Subscribe("devices/#", bad.qos); err != nil {
					t.Fatal(err)
				}
				ended := make(chan struct{})
				go func() { defer close(ended); bad.live(c) }()
				with.publish(20) // and what it is kept is full
				without.publish(20)
				for range 50 {
					s0, d0 := without.piece()
					s, d := with.piece()
					spent, took = append(spent, s/s0), append(took, d/d0)
				}
				_ = c.Close()
				<-ended
				with.gone("bad")
			}
			cost, rate := median(spent), 1/median(took)
			t.Logf("%.3f of the processor time, %.3f of the rate", cost, rate)
			if cost > 1.1 || rate < 0.9 {
				t.Errorf("the others cost %.3f of what they cost without it, and have %.3f of their rate", cost, rate)
			}
		})
	}
}

// piece publishes once, and returns what it has spent and taken.
func (f *fanOut) piece() (spent, took float64) {
	f.t.Helper()
	start, from := time.Now(), f.spent()
	f.publish(1)
	return float64(f.spent() - from), float64(time.Since(start))
}

func median(xs []float64) float64 {
	slices.Sort(xs)
	return xs[len(xs)/2]
}

// gone waits until a client is not connected any more.
func (f *fanOut) gone(id string) {
	f.t.Helper()
	if !eventually(30*time.Second, func() bool {
		status, answer := f.request("http://"+f.s.ports["emqx"], "Bearer "+testKey, "GET", "/api/v5/clients/"+id, "", false)
		return status == 404 || strings.Contains(string(answer), `"connected":false`)
	}) {
		f.t.Fatalf("%s stays", id)
	}
}
