package mqtt_test

import (
	"fmt"
	"testing"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// stream makes a stream fed by filter, with texts in it.
func (e *edge) stream(tb testing.TB, name, filter string, partitions int) {
	tb.Helper()
	c := broker.NewStreamConfig(name, filter)
	c.Partitions = partitions
	if _, err := e.broker.CreateStream(system(), c); err != nil {
		tb.Fatal(err)
	}
}

// stands waits until a cursor of a stream has everything before an offset of
// its first partition behind it.
func (e *edge) stands(tb testing.TB, stream, cursor string, acked uint64) {
	tb.Helper()
	eventually(tb, fmt.Sprintf("cursor %s stands at %d", cursor, acked), func() bool {
		s, err := e.broker.Subscription(system(), stream, cursor)
		return err == nil && s.Partitioned[0].Acked == acked
	})
}

// from subscribes with the user property stream-offset.
func (r *raw) from(start string, filters ...string) []byte {
	r.t.Helper()
	r.send(r.subscribePacket(1, 1, str(str([]byte{38}, "stream-offset"), start), filters...))
	return r.suback()
}

func TestStreamDelivery(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		for _, filter := range []string{"$stream/log/@first", "$stream/log/@first/#", "$stream/log/@0/jobs/+"} {
			e := open(t)
			e.stream(t, "log", "jobs/#", 1)
			e.put(t, "jobs/1", "one", "two")
			s := login(t, e, v5, "reader")
			if got := s.subscribe(1, 1, filter); got[0] != 1 {
				t.Fatalf("SUBACK is %x", got)
			}
			topic := map[string]string{
				"$stream/log/@first":    "$stream/log/@first",
				"$stream/log/@first/#":  "$stream/log/@first/jobs/1",
				"$stream/log/@0/jobs/+": "$stream/log/@0/jobs/1",
			}[filter]
			one, two := s.recv(), s.recv()
			if one.topic != topic || one.payload != "one" || one.qos != 1 || two.payload != "two" {
				t.Errorf("%s: got %+v and %+v", filter, one, two)
			}
			if u := users(two.props); v5 && (u["original-topic"] != "jobs/1" || u["offset"] != "1" || u["partition"] != "0" || u["delivery-count"] != "1") {
				t.Errorf("user properties %v", u)
			}
			cursor := "mqtt/client/reader"
			if filter == "$stream/log/@0/jobs/+" {
				cursor += "/jobs/+"
			}
			s.ackFor(two)
			e.put(t, "jobs/1", "three") // it waits for more
			s.ackFor(s.recv())
			s.ackFor(one)
			e.stands(t, "log", cursor, 3)
			s.quiet()
			e.stop(t)
		}
	}
}

func TestStreamCursorOfAClientGoesOn(t *testing.T) {
	e := open(t)
	e.stream(t, "log", "jobs/#", 1)
	e.put(t, "jobs/1", "one", "two", "three")
	s := login(t, e, true, "reader")
	if got := s.from("earliest", "$stream/log"); got[0] != 1 {
		t.Fatalf("SUBACK is %x", got)
	}
	m := s.recv()
	s.ackFor(m)
	e.stands(t, "log", "mqtt/client/reader", 1)
	_ = s.Close()
	e.gone(t)
	s = login(t, e, true, "reader") // clean: the cursor is not the session's
	s.from("earliest", "$stream/log")
	two, three := s.recv(), s.recv()
	if two.payload != "two" || three.payload != "three" {
		t.Fatalf("went on with %s and %s", two.payload, three.payload)
	}
	s.nackFor(two, 0x80)
	s.ackFor(three)
	if again := s.recv(); again.payload != "two" || users(again.props)["delivery-count"] == "1" {
		t.Fatalf("after a nack: %+v", again)
	}
}

func TestStreamStarts(t *testing.T) {
	e := open(t)
	e.stream(t, "a/b c", "jobs/#", 1)
	e.put(t, "jobs/1", "one", "two")
	<-time.After(5 * time.Millisecond)
	now := time.Now().UTC()
	<-time.After(5 * time.Millisecond)
	e.put(t, "jobs/1", "three")
	for i, row := range []struct{ start, first string }{
		{"earliest", "one"}, {"1", "two"}, {"2", "three"}, {now.Format(time.RFC3339Nano), "three"}, {"latest", "new"}, {"", "new"}, {"99", "new"},
	} {
		s := login(t, e, true, fmt.Sprint("r", i))
		if got := s.from(row.start, "$stream/a%2Fb%20c"); got[0] != 1 {
			t.Fatalf("%s: SUBACK is %x", row.start, got)
		}
		if row.first == "new" {
			s.quiet()
			e.put(t, "jobs/1", "new")
		}
		if m := s.recv(); m.payload != row.first || m.topic != "$stream/a%2Fb%20c" {
			t.Errorf("%s: got %+v, want %s", row.start, m, row.first)
		}
		_ = s.Close()
	}
}

func TestStreamGroupSharesACursor(t *testing.T) {
	e := open(t)
	e.stream(t, "log", "jobs/#", 1)
	a := login(t, e, true, "a")
	a.subscribe(1, 1, "$share/g/$stream/log")
	e.put(t, "jobs/1", "one")
	m := a.recv()
	if m.topic != "$stream/log" || m.payload != "one" {
		t.Fatalf("got %+v", m)
	}
	a.ackFor(m)
	e.stands(t, "log", "mqtt/share/g", 1)
	b := login(t, e, false, "b")
	b.subscribe(1, 1, "$share/g/$stream/log")
	other := login(t, e, true, "other")
	other.subscribe(1, 1, "$share/h/$stream/log/@first")
	if m := other.recv(); m.payload != "one" {
		t.Errorf("another group got %+v", m)
	}
	b.quiet()
	_ = a.Close()
	e.put(t, "jobs/1", "two")
	if m := b.recv(); m.payload != "two" {
		t.Errorf("got %+v", m)
	} else {
		b.ackFor(m)
	}
	e.stands(t, "log", "mqtt/share/g", 2)
}

func TestStreamFilterPassesOverTheRest(t *testing.T) {
	e := open(t)
	e.stream(t, "log", "jobs/#", 1)
	for i := range 300 {
		e.put(t, fmt.Sprint("jobs/", i%3), fmt.Sprint(i))
	}
	s := login(t, e, true, "reader")
	s.from("earliest", "$stream/log/jobs/1")
	for i := 1; i < 300; i += 3 {
		m := s.recv()
		if m.payload != fmt.Sprint(i) || m.topic != "$stream/log/jobs/1" {
			t.Fatalf("got %+v, want %d", m, i)
		}
		s.ackFor(m)
	}
	e.stands(t, "log", "mqtt/client/reader/jobs/1", 300)
	info, err := e.broker.Subscription(system(), "log", "mqtt/client/reader/jobs/1")
	if err != nil || info.Out[broker.ReasonSkipped] != 200 || info.Out[broker.ReasonAcked] != 100 {
		t.Errorf("out is %v, %v", info.Out, err)
	}
}

func TestStreamSubscriptionRefused(t *testing.T) {
	e := open(t)
	e.stream(t, "log", "jobs/#", 1)
	e.stream(t, "secret", "s/#", 1)
	e.queue(t, "work", "jobs/#")
	e.rules(t, auth.Rule{Effect: "deny", Who: "all", Do: []string{"consume"}, Filter: "stream:secret"})
	s, old := login(t, e, true, ""), login(t, e, false, "")
	for _, row := range []struct {
		filter string
		qos    byte
		code   byte
	}{
		{"$stream/log", 0, 0x83},
		{"$stream/nothing", 1, 0x83},
		{"$stream/secret", 1, 0x87},
		{"$stream/", 1, 0x8F},
		{"$stream/+", 1, 0x8F},
		{"$stream/%zz", 1, 0x8F},
		{"$stream/log/@never", 1, 0x8F},
		{"$stream/log/@first/a#", 1, 0x8F},
		{"$share//$stream/log", 1, 0x8F},
		{"$share/g/$stream/log", 0, 0x83},
	} {
		s.send(s.subscribePacket(1, row.qos, nil, row.filter))
		_, body := s.packet()
		if code := body[len(body)-1]; code != row.code {
			t.Errorf("%s: SUBACK is %x, want %x", row.filter, body, row.code)
		}
		if got := old.subscribe(1, row.qos, row.filter); got[0] != 0x80 {
			t.Errorf("%s: SUBACK is %x", row.filter, got)
		}
	}
}

func TestASharedQueueIsTheQueue(t *testing.T) {
	e := open(t)
	e.queue(t, "work", "jobs/#")
	s := login(t, e, true, "")
	if got := s.subscribe(1, 1, "$share/g/$queue/work/#"); got[0] != 1 {
		t.Fatalf("SUBACK is %x", got)
	}
	e.put(t, "jobs/1", "one")
	if m := s.recv(); m.topic != "$queue/work/jobs/1" || m.payload != "one" {
		t.Errorf("got %+v", m)
	} else {
		s.ackFor(m)
	}
	e.want(t, "work", "ready=0 leased=0 delayed=0 dead=0")
}
