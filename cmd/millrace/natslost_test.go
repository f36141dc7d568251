package main_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace/persistence/jetstream/jetstreamtest"
)

// lose deletes the streams of all queues and partitions, and returns how many those were.
func lose(t *testing.T, url string) (n int) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for name := range js.StreamNames(t.Context()).Name() {
		if strings.HasPrefix(name, "mr_q_") || strings.HasPrefix(name, "mr_s_") {
			n++
			if err := js.DeleteStream(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

// TestWhatADoorSaysOfAQueueThatNATSHasLost: nothing is added to it, and what to do. Others
// go on, and so does it once that is accepted.
func TestWhatADoorSaysOfAQueueThatNATSHasLost(t *testing.T) {
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1})
	s, _ := overNATS(t, c.URL(), "--memfifo-listen", "127.0.0.1:0")
	makeForDoors(s)
	adds := func(q errand) bool {
		return q.method == http.MethodPost && strings.Contains(q.path, "e/x") || q.path == "/api/v5/publish" || strings.HasSuffix(q.path, "/queue/e") ||
			q.path == "/queues/m/messages" && q.method == http.MethodPost || q.path == pulsarDoor
	}
	askAt(s, func(q errand, status int, _, text string) {
		if adds(q) && status/100 != 2 {
			t.Errorf("%s %s: %d %s", q.method, q.path, status, text)
		}
	})
	s.stop()
	if n := lose(t, c.URL()); n < 3 {
		t.Fatalf("%d streams were lost", n)
	}
	s, _ = overNATS(t, c.URL(), "--memfifo-listen", "127.0.0.1:0")
	var doors atomic.Int32
	askAt(s, func(q errand, status int, _, text string) {
		if !adds(q) {
			return
		}
		doors.Add(1)
		if status != http.StatusServiceUnavailable || !strings.Contains(text, "--accept-loss") {
			t.Errorf("%s %s: %d %s", q.method, q.path, status, text)
		}
	})
	if n := doors.Load(); n != 5 {
		t.Errorf("%d doors were asked", n)
	}
	device, reason, _ := five(t, s, "five", false)
	if device == nil || reason != 0 {
		t.Fatalf("CONNACK 0x%02X", reason)
	}
	if reason := pubackOf(t, device, "e/x", []byte("x")); reason != 0x80 {
		t.Errorf("PUBACK 0x%02X", reason)
	}
	if reason := pubackOf(t, device, "other/x", []byte("x")); reason >= 0x80 {
		t.Errorf("PUBACK 0x%02X for a topic that has nothing to do with it", reason)
	}
	old, err := dial(s, "old", true)
	if err != nil {
		t.Fatal(err)
	}
	if token := old.Publish("e/x", 1, false, "x"); !token.WaitTimeout(time.Minute) || token.Error() == nil {
		t.Error("a client of 3.1.1 has a PUBACK")
	}
	alarms := errand{listener: "http", method: http.MethodGet, path: "/api/v5/alarms"}
	for end := time.Now().Add(time.Minute); ; {
		status, _, text := alarms.ask(s)
		if strings.Count(text, `"store_loss:mr_`) == 3 {
			break
		}
		if time.Now().After(end) {
			t.Errorf("alarms: %d %s", status, text)
			break
		}
		<-time.After(100 * time.Millisecond)
	}
	s.stop()

	s, _ = overNATS(t, c.URL(), "--memfifo-listen", "127.0.0.1:0", "--accept-loss")
	askAt(s, func(q errand, status int, _, text string) {
		if adds(q) && status/100 != 2 {
			t.Errorf("once it is accepted: %s %s: %d %s", q.method, q.path, status, text)
		}
	})
}
