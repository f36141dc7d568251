package mqtt_test

import (
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
)

// TestWillOutlivesTheProcess has it sent once, at its time, unless the client
// came back or took it back.
func TestWillOutlivesTheProcess(t *testing.T) { // X066, SB24, P13
	seconds := func(id byte, n byte) []byte { return []byte{id, 0, 0, 0, n} }
	for _, row := range []struct {
		name            string
		expiry, delay   byte
		leave, takeBack bool          // before the process ends
		away            time.Duration // without a process
		back            bool          // at once after the start
		clean           bool          // with Clean Start
		none            bool          // nothing is sent at all
		at              time.Duration // after the start
	}{
		{name: "connected at the end", at: 5 * time.Second},
		{name: "connected, and a session that lasts", expiry: 100, at: 5 * time.Second},
		{name: "connected, with a delay", expiry: 100, delay: 60, at: 60 * time.Second},
		{name: "connected, with a delay longer than the session", expiry: 20, delay: 60, at: 20 * time.Second},
		{name: "connected, and back", expiry: 100, back: true, none: true},
		{name: "connected, clean, and back", back: true, clean: true, none: true},
		{name: "left, and its delay runs", expiry: 100, delay: 60, leave: true, away: 20 * time.Second, at: 40 * time.Second},
		{name: "left, and its delay is over", expiry: 100, delay: 60, leave: true, away: 90 * time.Second},
		{name: "left, and its session is over", expiry: 10, delay: 60, leave: true, away: 20 * time.Second},
		{name: "left, and back in time", expiry: 100, delay: 60, leave: true, away: 20 * time.Second, back: true, none: true},
		{name: "left, and back with Clean Start", expiry: 100, delay: 60, leave: true, away: 20 * time.Second, back: true, clean: true},
		{name: "taken back", expiry: 100, takeBack: true, none: true},
		{name: "taken back, clean", takeBack: true, none: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			aged(t, func(t *testing.T, e *edge, again func(time.Duration) *edge) {
				w, _ := keptPipe(t, e, "watcher", false, broker.NeverExpires)
				w.subscribe(1, 1, "w")
				_ = w.Close()
				r := pipe(t, e)
				r.v5 = true
				props := []byte{}
				if row.expiry > 0 {
					props = seconds(17, row.expiry)
				}
				r.begin(willPacket("c", 8, props, append(seconds(24, row.delay), 3, 0, 1, 'x')))
				switch {
				case row.takeBack:
					r.sendHex("E0 00")
					_ = r.Close()
				case row.leave:
					_ = r.Close()
				default:
					go drainRaw(r)
				}
				synctest.Wait()
				e = again(row.away)
				start := time.Now()
				if row.back {
					keptPipe(t, e, "c", row.clean, 100)
				}
				w, _ = keptPipe(t, e, "watcher", false, broker.NeverExpires)
				if row.none {
					<-time.After(time.Hour)
					w.quiet()
					return
				}
				m := w.recv()
				if m.payload != "gone" || m.qos != 1 || string(m.props) != "\x03\x00\x01x" {
					t.Errorf("got %+v", m)
				}
				if took := time.Since(start); took < row.at-time.Millisecond || took > row.at+time.Second {
					t.Errorf("sent after %v, want %v", took, row.at)
				}
				w.settle(m)
				w.quiet()
				e = again(0)
				<-time.After(time.Hour)
				w, _ = keptPipe(t, e, "watcher", false, broker.NeverExpires)
				w.quiet()
			})
		})
	}
}

// TestWillOfATakenOverConnection keeps MQTT 5 section 3.1.4.
func TestWillOfATakenOverConnection(t *testing.T) { // F15, X067, X068
	for _, row := range []struct {
		name   string
		expiry byte // of the first connection
		delay  byte
		clean  bool // of the second
		sent   bool
	}{
		{"no delay", 100, 0, false, true},
		{"no delay, Clean Start", 100, 0, true, true},
		{"delay", 100, 30, false, false},
		{"delay, Clean Start", 100, 30, true, true},
		{"delay, and a session that ends with its connection", 0, 30, false, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *edge) {
				w, _ := keptPipe(t, e, "watcher", false, 1000)
				w.subscribe(1, 1, "w")
				r := pipe(t, e)
				r.v5 = true
				r.begin(willPacket("c", 8, []byte{17, 0, 0, 0, row.expiry}, []byte{24, 0, 0, 0, row.delay}))
				end := make(chan []byte, 1)
				go func() {
					head, body, _ := r.read()
					end <- append([]byte{head}, body...)
				}()
				keptPipe(t, e, "c", row.clean, 100)
				if got := <-end; string(got) != "\xe0\x8e\x00" {
					t.Errorf("the first connection got %x, want DISCONNECT 8e", got)
				}
				if row.sent {
					if m := w.recv(); m.payload != "gone" {
						t.Errorf("got %+v", m)
					}
				}
				go func() { <-time.After(time.Hour); w.send([]byte{0xC0, 0}) }()
				if head, body := w.packet(); head != 0xD0 {
					t.Errorf("got %x %x after an hour", head, body)
				}
			})
		})
	}
}

// TestWillIsARetainedMessageToo and keeps its expiry, which counts from its
// publication.
func TestWillIsPublishedLikeAnyMessage(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		r := pipe(t, e)
		r.v5 = true
		r.begin(willPacket("c", 2|32, []byte{17, 0, 0, 0, 100}, []byte{24, 0, 0, 0, 60, 2, 0, 0, 0, 50}))
		_ = r.Close()
		<-time.After(80 * time.Second) // 20 s after it was sent
		s := pipe(t, e)
		s.v5 = true
		s.begin(connectPacket(true, "late", nil))
		s.subscribe(1, 0, "w")
		if m := s.recv(); m.payload != "gone" || !m.retain || string(m.props) != "\x02\x00\x00\x00\x1e" {
			t.Errorf("got %+v", m)
		}
	})
}
