package main_test

import (
	"io"
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
		if _, err := c.Conn.Read(p); err != nil {
			return
		}
	}
}

// TestABadSubscriberCostsTheOthersLittle compares rounds with a bad subscriber
// among twenty and rounds without, which take turns: the time that the broker
// spends on what the good ones get, and the time until they have it. What it
// spends on the bad one counts as theirs: a good one more would cost a twentieth.
func TestABadSubscriberCostsTheOthersLittle(t *testing.T) {
	rounds := fromEnv(t, "MILLRACE_ISOLATION_ROUNDS", 0)
	if rounds == 0 {
		t.Skip("it takes a machine without other work: MILLRACE_ISOLATION_ROUNDS=20")
	}
	const subscribers, times = 20, 10
	for _, bad := range badSubscribers {
		t.Run(bad.name, func(t *testing.T) {
			f := openFanOut(t, subscribers, 100, 1, "--set", "mqtt.max_output=1MiB", "--set", "mqtt.max_session_queue=10000", "--emqx-listen", "127.0.0.1:0")
			f.subscribe()
			round := func() (spent, took int64) {
				f.publish(times) // and what it is kept is full
				start, from := time.Now(), f.spent()
				f.publish(times)
				return (f.spent() - from) / (times * subscribers * int64(f.messages)), int64(time.Since(start))
			}
			round()
			var spent, took [2][]int64 // without, and with it
			for range rounds {
				s, d := round()
				spent[0], took[0] = append(spent[0], s), append(took[0], d)
				c := f.dial("bad")
				if err := c.Subscribe("devices/#", bad.qos); err != nil {
					t.Fatal(err)
				}
				ended := make(chan struct{})
				go func() { defer close(ended); bad.live(c) }()
				s, d = round()
				spent[1], took[1] = append(spent[1], s), append(took[1], d)
				_ = c.Close()
				<-ended
				f.gone("bad")
			}
			cost, rate := lowest(spent[1])/lowest(spent[0]), lowest(took[0])/lowest(took[1])
			t.Logf("%.3f of the processor time, %.3f of the rate (%.0f ns and %.0f ns a delivery)", cost, rate, lowest(spent[0]), lowest(spent[1]))
			if cost > 1.1 || rate < 0.9 {
				t.Errorf("the others cost %.3f of what they cost without it, and have %.3f of their rate", cost, rate)
			}
		})
	}
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
