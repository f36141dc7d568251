package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/cmd/millrace/wire"
)

// fanOut is a broker with subscribers, in QoS 0, to everything of one publisher.
type fanOut struct {
	*doors
	publisher   *wire.Conn
	subscribers []*wire.Conn
	chunk       []byte // publishes of every topic, as they are delivered
	sent        []byte // the same as they are published
	acks        int    // bytes of the answers
	messages    int    // in it
}

const fanSecret = "planted-secret-of-fan"

// openFanOut has the publisher send with qos, more arguments are the broker's.
func openFanOut(t *testing.T, subscribers, topics int, qos byte, args ...string) *fanOut {
	t.Helper()
	const window = 1000
	f := &fanOut{doors: openDoorsWith(t, args, "- {id: fan, secret: "+fanSecret+"}\n", fanSecret), messages: window}
	f.publisher = f.dial("publisher")
	for i := range subscribers {
		f.subscribers = append(f.subscribers, f.dial(fmt.Sprint("subscriber-", i)))
	}
	for i := range window {
		topic, payload := fmt.Sprintf("devices/%05d/temperature", i%topics), make([]byte, 256)
		f.chunk = wire.AppendPublish(f.chunk, topic, 0, 0, payload)
		f.sent = wire.AppendPublish(f.sent, topic, qos, uint16(i+1), payload)
	}
	if qos > 0 {
		f.acks = 4 * window
	}
	return f
}

func (f *fanOut) dial(id string) *wire.Conn {
	f.t.Helper()
	c, err := wire.Dial(f.t.Context(), f.s.ports["mqtt"], wire.Login{ClientID: id, User: "fan", Password: fanSecret})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

// rule puts rules in force, and has everyone subscribe under them.
func (f *fanOut) rule(rules []rule) {
	f.t.Helper()
	text, err := json.Marshal(map[string]any{"rules": rules})
	if err != nil {
		f.t.Fatal(err)
	}
	f.admin("PUT", "/rules", string(text))
	for _, c := range f.subscribers {
		if err := c.Subscribe("devices/#", 0); err != nil {
			f.t.Fatal(err)
		}
	}
}

// publish sends the chunk so many times, and waits until everyone has it.
func (f *fanOut) publish(times int) {
	f.t.Helper()
	var all sync.WaitGroup
	for range times {
		for _, c := range f.subscribers {
			all.Go(func() {
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				if _, err := io.CopyN(io.Discard, c.Conn, int64(len(f.chunk))); err != nil {
					f.t.Error(err)
				}
			})
		}
		if _, err := f.publisher.Write(f.sent); err != nil {
			f.t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, f.publisher.Conn, int64(f.acks)); err != nil {
			f.t.Fatal(err)
		}
		all.Wait()
	}
}

// spent is the time on a processor of all threads of the broker.
func (f *fanOut) spent() (ns int64) {
	f.t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", f.s.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		f.t.Skip("there is no /proc/PID/task/*/schedstat here: the broker's time cannot be told")
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			f.t.Fatal(err)
		}
		n, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			f.t.Fatal(err)
		}
		ns += n
	}
	return ns
}

// everywhere are denies that each delivery has to be asked about: they overlap
// the subscription, and half of them name the client.
func everywhere() (rules []rule) {
	for i := range 20 {
		rules = append(rules, rule{"deny", "all", []string{"subscribe"}, fmt.Sprintf("devices/+/secret-%d/#", i)},
			rule{"deny", "all", []string{"subscribe"}, fmt.Sprintf("devices/%%c/%d", i)})
	}
	return rules
}

// lowest sorts the costs of rounds, and returns the mean of the quarter that
// other work on the machine has disturbed least.
func lowest(costs []int64) (mean float64) {
	slices.Sort(costs)
	n := max(1, len(costs)/4)
	for _, c := range costs[:n] {
		mean += float64(c) / float64(n)
	}
	return mean
}

// TestFanOutUnderRulesCostsWhatItCostsWithout compares the time that the broker
// spends on deliveries, in rounds that take turns.
func TestFanOutUnderRulesCostsWhatItCostsWithout(t *testing.T) {
	rounds := fromEnv(t, "MILLRACE_FANOUT_ROUNDS", 0)
	if rounds == 0 {
		t.Skip("it takes a machine without other work: MILLRACE_FANOUT_ROUNDS=20")
	}
	for _, c := range []struct{ subscribers, topics, times int }{{100, 1, 1}, {100, 1000, 1}, {1, 1000, 20}} {
		f := openFanOut(t, c.subscribers, c.topics, 0)
		f.rule([]rule{})
		f.publish(2)
		var without, under []int64
		for range rounds {
			for _, side := range []struct {
				rules []rule
				took  *[]int64
			}{{[]rule{}, &without}, {everywhere(), &under}} {
				f.rule(side.rules)
				f.publish(1)
				start := f.spent()
				f.publish(c.times)
				*side.took = append(*side.took, (f.spent()-start)/int64(c.times*f.messages*c.subscribers))
			}
		}
		low0, low1 := lowest(without), lowest(under)
		ratio, median := low1/low0, float64(under[rounds/2])/float64(without[rounds/2])
		t.Logf("%d subscribers, %d topics: without rules %.0f ns a delivery, with 40 %.0f: %.3f; least %d and %d; medians %d and %d: %.3f",
			c.subscribers, c.topics, low0, low1, ratio, without[0], under[0], without[rounds/2], under[rounds/2], median)
		if ratio > 1.05 {
			t.Errorf("%d subscribers, %d topics: fan-out under rules costs %.3f of what it costs without", c.subscribers, c.topics, ratio)
		}
		f.s.kill()
	}
}
