package mqtt_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/broker/clustertest"
	"millrace/mqtt"
)

// quiet shows that nothing has come, by a ping that comes first.
func (r *raw) quiet() { r.t.Helper(); r.ping() }

// TestNoAckBeforeTheCommit holds back the store's fsync.
func TestNoAckBeforeTheCommit(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		e := open(t)
		e.queue(t, "q", "t")
		r := login(t, e, v5, "")
		e.store.hold()
		r.publish("t", "x", 1, 1)
		r.publish("t", "x", 2, 2)
		r.publish("$SYS/refused", "x", 1, 3) // answered in its place
		r.publish("nowhere", "x", 1, 4)
		eventually(t, "the publishes in the store", func() bool { return e.store.published() == 2 })
		r.quiet()
		e.store.open()
		if v5 {
			r.want("40 02 00 01", "50 02 00 02", "40 03 00 03 90", "40 03 00 04 10")
		} else {
			r.want("40 02 00 01", "50 02 00 02", "40 02 00 03", "40 02 00 04")
		}
	}
}

func TestFailedCommitIsNeverAckedPositively(t *testing.T) {
	for _, row := range []struct {
		err   error
		v5    string // ack of a QoS 1 publish
		v5end byte   // or how the connection ends
	}{
		{err: broker.ErrFull, v5: "40 03 00 01 97"},
		{err: broker.ErrClosed, v5: "40 03 00 01 83"},
		{err: errors.New("disk on fire"), v5: "40 03 00 01 80"},
		{err: broker.ErrUnknown, v5end: 0x80},
	} {
		e := open(t)
		e.queue(t, "q", "t")
		e.store.fail(row.err)
		r := login(t, e, true, "")
		s := login(t, e, true, "")
		s.subscribe(1, 1, "t")
		r.publish("t", "x", 1, 1)
		if row.v5end != 0 {
			r.wantEnd(row.v5end)
		} else {
			r.want(row.v5)
			r.publish("t", "x", 2, 1) // a refused id is free again
			r.want("5" + row.v5[1:])
		}
		r = login(t, e, false, "")
		r.publish("nowhere", "x", 1, 9)
		r.want("40 02 00 09")
		r.publish("t", "x", 1, 1)
		r.wantEnd(0)
		s.quiet()
	}
}

// TestNothingIsPublishedBehindWhatFailed: the client sends again all that has no ack,
// in its order. A rate holds the reader back while the outcome of the first comes.
func TestNothingIsPublishedBehindWhatFailed(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		for _, expiry := range []uint32{0, 3600} { // where a session is kept, it ends otherwise
			rated(t, auth.Rates{Messages: 1}, func(t *testing.T, e *edge) {
				e.queue(t, "q", "t")
				r, _ := keptPipe(t, e, "press", expiry == 0, expiry)
				e.store.fail(broker.ErrUnknown)
				e.store.hold()
				r.publish("t", "1", qos, 1)
				synctest.Wait()
				e.store.fail(nil)
				r.publish("t", "2", qos, 2)
				synctest.Wait()
				if n := e.store.published(); n != 1 || e.Stats().Limited != 1 {
					t.Fatalf("%d publishes are in the store, and %d are held back", n, e.Stats().Limited)
				}
				e.store.open()
				r.wantEnd(0x80)
				if n := e.store.published(); n != 1 {
					t.Errorf("with QoS %d and an expiry of %d s the one behind it is published", qos, expiry)
				}
			})
		}
	}
}

// TestAFullBatchIsNotPublishedBehindWhatFailed: that is handed over by itself, once the
// last of it has waited for a leader, and the outcome of the first came meanwhile.
func TestAFullBatchIsNotPublishedBehindWhatFailed(t *testing.T) {
	sharing(t, func(t *testing.T, e, _ *edge, n *clustertest.View, _ *clustertest.View) {
		const batch = 1024
		e.queue(t, "q", "t")
		r := pipeIn(t, e, false, "press")
		e.store.fail(broker.ErrUnknown)
		e.store.hold()
		r.publish("t", "x", 1, 1)
		synctest.Wait()
		e.store.fail(nil)
		led, left := make(chan struct{}), batch
		var wait func()
		wait = func() {
			if left--; left > 0 {
				n.Behind(wait)
				return
			}
			<-led
		}
		n.Behind(wait)
		var b []byte
		for i := range uint16(batch) {
			b = append(b, r.publishPacket("t", "x", 1, i+2)...)
		}
		r.send(b)
		synctest.Wait()
		e.store.open()
		close(led)
		r.wantEnd(0)
		if n := e.store.published(); n != 1 || left != 0 {
			t.Errorf("%d publishes are in the store; %d did not wait", n, left)
		}
	})
}

// TestQoS2IsDeliveredOnce has the cases of mochi.md 1.4 that one connection
// can show; B13, SB19 and X111 are among them.
func TestQoS2IsDeliveredOnce(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		e := open(t)
		e.queue(t, "q", "t")
		s := login(t, e, v5, "")
		s.subscribe(1, 0, "t")
		r := login(t, e, v5, "")
		again := r.publishPacket("t", "other payload", 2, 5)
		again[0] |= 8
		e.store.hold()
		r.publish("t", "first", 2, 5)
		r.send(again) // before the commit: no answer yet
		eventually(t, "the publish in the store", func() bool { return e.store.published() == 1 })
		r.quiet()
		e.store.open()
		r.want("50 02 00 05")
		r.send(again) // after it: PUBREC, and nothing published
		r.want("50 02 00 05")
		r.send([]byte{0x62, 2, 0, 5})
		r.want("70 02 00 05")
		r.send([]byte{0x62, 2, 0, 5}) // X107
		if v5 {
			r.want("70 03 00 05 92")
		} else {
			r.want("70 02 00 05")
		}
		r.publish("t", "second", 2, 5) // the id is free
		r.want("50 02 00 05")
		for _, want := range []string{"first", "second"} {
			if m := s.recv(); m.payload != want {
				t.Errorf("got %q, want %q", m.payload, want)
			}
		}
		s.quiet()
	}
}

func TestAThousandInFlightAreAckedInOrder(t *testing.T) {
	e := open(t)
	e.queue(t, "q", "t")
	for _, v5 := range []bool{false, true} {
		s := login(t, e, v5, "")
		s.subscribe(1, 0, "t")
		for _, qos := range []byte{1, 2} {
			r := login(t, e, v5, "")
			e.store.hold()
			var b []byte
			for i := range uint16(1000) {
				b = append(b, r.publishPacket("t", fmt.Sprint(i), qos, i+1)...)
			}
			from := e.store.published()
			r.send(b)
			eventually(t, "a thousand in the store", func() bool { return e.store.published() == from+1000 })
			r.quiet()
			e.store.open()
			for i := range uint16(1000) {
				head, body := r.packet()
				if want := 0x30 + 0x10*qos; head != want || body[0] != byte((i+1)>>8) || body[1] != byte(i+1) {
					t.Fatalf("ack %d is %x %x", i+1, head, body)
				}
				if qos == 2 {
					r.send([]byte{0x62, 2, body[0], body[1]})
				}
			}
			for i := range 1000 {
				if qos == 2 {
					if head, _ := r.packet(); head != 0x70 {
						t.Fatalf("got %x, want PUBCOMP", head)
					}
				}
				if m := s.recv(); m.payload != fmt.Sprint(i) {
					t.Fatalf("message %d is %q", i, m.payload)
				}
			}
		}
	}
}

func TestInboundReceiveMaximum(t *testing.T) { // X106, B37, SB21
	e := open(t, func(o *mqtt.Options) { o.ReceiveMaximum = 10 })
	r, s := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 0, "t")
	for i := range uint16(10) {
		r.publish("t", "x", 2, i+1)
		r.packet()
		s.recv()
	}
	r.publish("t", "still", 0, 0)
	if m := s.recv(); m.payload != "still" {
		t.Errorf("got %+v", m)
	}
	r.publish("t", "too many", 2, 11)
	r.wantEnd(0x93)
	s.quiet()
	r = login(t, e, false, "")
	for i := range uint16(2000) { // 3.1.1 knows no such limit
		r.publish("t", "x", 2, i+1)
	}
	for range 2000 {
		if head, _ := r.packet(); head != 0x50 {
			t.Fatalf("got %x", head)
		}
	}
}

func TestTopicAlias(t *testing.T) { // X093 to X097, B12, SB20
	e := open(t)
	e.rules(t, deny("publish", "no/#"))
	s := login(t, e, true, "")
	s.subscribe(1, 0, "#")
	r := login(t, e, true, "")
	r.publish("t", "1", 1, 1, 0x23, 0, 32)
	r.publish("", "2", 1, 2, 0x23, 0, 32)
	r.publish("u", "3", 1, 3, 0x23, 0, 32)
	r.publish("", "4", 1, 4, 0x23, 0, 32)
	r.publish("no/x", "5", 1, 5, 0x23, 0, 1) // the right is asked of the topic that it means
	r.publish("", "6", 1, 6, 0x23, 0, 1)
	r.want("40 02 00 01", "40 02 00 02", "40 02 00 03", "40 02 00 04", "40 03 00 05 87", "40 03 00 06 87")
	for i, want := range []string{"t", "t", "u", "u"} {
		if m := s.recv(); m.topic != want || m.payload != fmt.Sprint(i+1) || len(m.props) > 0 {
			t.Errorf("got %+v", m)
		}
	}
	s.quiet()
}

func TestMessagesKeepTheirProperties(t *testing.T) { // X129, B28, SB18
	e := open(t)
	s, r := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 1, "t")
	props := []byte{1, 1, 3, 0, 1, 'c', 8, 0, 1, 'r', 9, 0, 2, 0, 255}
	for _, kv := range [][2]string{{"b", "1"}, {"a", "2"}, {"b", "1"}, {"Nats-Rollup", "all\r\n"}} {
		props = str(str(append(props, 38), kv[0]), kv[1])
	}
	r.publish("t", "x", 1, 1, props...)
	r.want("40 02 00 01")
	if m := s.recv(); string(m.props) != string(props) {
		t.Errorf("got  %x\nwant %x", m.props, props)
	}
	r.publish("t", "x", 1, 2, 2, 0, 0, 0, 100)
	m := s.recv()
	if len(m.props) != 5 || m.props[0] != 2 || m.props[4] > 100 || m.props[4] < 90 {
		t.Errorf("expiry came out as %x", m.props)
	}
	r.publish("t", "x", 1, 3, 2, 255, 255, 255, 255) // X102
	if m := s.recv(); len(m.props) != 5 || m.props[1] != 255 {
		t.Errorf("expiry came out as %x", m.props)
	}
	r.publish("t", "expired", 1, 4, 2, 0, 0, 0, 0) // X101
	r.publish("t", "last", 1, 5)
	if m := s.recv(); m.payload != "last" || len(m.props) > 0 {
		t.Errorf("got %+v", m)
	}
}

func TestRetainFlagIsClearedUnlessAskedFor(t *testing.T) {
	e := open(t)
	plain, rap, r := login(t, e, true, ""), login(t, e, true, ""), login(t, e, true, "")
	plain.subscribe(1, 1, "t")
	rap.subscribe(1, 1|8, "t")
	b := r.publishPacket("t", "x", 1, 1)
	b[0] |= 1
	r.send(b)
	r.want("40 02 00 01")
	if m := plain.recv(); m.retain {
		t.Error("retain flag is set")
	}
	if m := rap.recv(); !m.retain {
		t.Error("retain flag is cleared in spite of Retain As Published")
	}
}

func TestPublishesBeforeDisconnectAreTaken(t *testing.T) {
	e := open(t)
	e.queue(t, "q", "t")
	s := login(t, e, false, "")
	s.subscribe(1, 1, "t")
	r := login(t, e, false, "")
	b := r.publishPacket("t", "0", 0, 0)
	b = append(b, r.publishPacket("t", "1", 1, 1)...)
	r.send(append(b, 0xE0, 0))
	for _, want := range []string{"0", "1"} {
		if m := s.recv(); m.payload != want {
			t.Errorf("got %+v", m)
		}
	}
}

func TestLargeMessagesComeInPieces(t *testing.T) {
	e := open(t)
	s, r := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 1, "t")
	for i, n := range []int{100, 65_520, 65_530, 65_536, 200_000, 1 << 20} {
		payload := make([]byte, n)
		for k := range payload {
			payload[k] = byte(k * 7)
		}
		b := r.publishPacket("t", string(payload), 1, uint16(i+1))
		for len(b) > 0 { // pieces that fit nothing
			k := min(len(b), 40_007)
			r.send(b[:k])
			b = b[k:]
		}
		m := s.recv()
		if m.payload != string(payload) {
			t.Errorf("payload of %d bytes came out as %d bytes", n, len(m.payload))
		}
		s.ackFor(m)
		if head, _ := r.packet(); head != 0x40 {
			t.Errorf("got %x", head)
		}
	}
}

func TestPacketByteByByte(t *testing.T) {
	e := open(t)
	r := login(t, e, true, "")
	for _, b := range r.publishPacket("t", "x", 1, 1) {
		r.send([]byte{b})
	}
	r.want("40 03 00 01 10")
}

// TestOneReadIsOneBatch counts what the store is handed: publishes that arrive
// together share a commit.
func TestOneReadIsOneBatch(t *testing.T) {
	e := open(t)
	e.queue(t, "q", "t")
	r := login(t, e, false, "")
	var b []byte
	for i := range uint16(500) {
		b = append(b, r.publishPacket("t", "x", 1, i+1)...)
	}
	r.send(b)
	for range 500 {
		r.packet()
	}
	e.store.mu.Lock()
	defer e.store.mu.Unlock()
	if e.store.batches > 5 { // one, unless the kernel hands them over in pieces
		t.Errorf("%d publishes came in %d batches", e.store.n, e.store.batches)
	}
}

// TestLateAckDoesNotReachTheNextConnection takes a client over between its
// publish and the commit, and uses the packet id again at once.
func TestLateAckDoesNotReachTheNextConnection(t *testing.T) { // X113
	e := open(t)
	e.queue(t, "q", "t")
	e.store.hold()
	old := login(t, e, true, "same")
	old.publish("t", "first", 1, 1)
	eventually(t, "the first in the store", func() bool { return e.store.published() == 1 })
	now := login(t, e, true, "same")
	old.wantEnd(0x8E)
	now.publish("t", "second", 1, 1)
	eventually(t, "the second in the store", func() bool { return e.store.published() == 2 })
	now.quiet()
	e.store.open()
	now.want("40 02 00 01")
	now.quiet()
}

func TestPingsDoNotDisturbOthers(t *testing.T) { // X127
	e := open(t)
	s, r := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 0, "t")
	noisy := login(t, e, true, "")
	pings := bytes.Repeat([]byte{0xC0, 0}, 100_000)
	go func() {
		_, _ = noisy.Write(pings) // whose answers nobody reads, for a while
	}()
	for i := range uint16(100) {
		r.publish("t", "x", 1, i+1)
		s.recv()
		r.packet()
	}
	got := make([]byte, len(pings))
	if n, err := io.ReadFull(noisy.br, got); err != nil {
		t.Errorf("%d bytes of PINGRESP, then %v", n, err)
	}
}
