package main_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
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

// subscribe has everyone subscribe.
func (f *fanOut) subscribe() {
	f.t.Helper()
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
