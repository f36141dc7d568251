package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
)

// The model of a stream is a slice for each partition, and of a subscription a
// map of what is in flight. Times are those of the model of queues. Where the
// contract leaves a choice the model looks at what the store did, and checks that
// it may: which partition is next, which runs retention takes, and when a delay is
// found out.

// modelRetention is how long the stream under test keeps messages.
const modelRetention = 16 * time.Second

// RunStreamModel compares streams and subscriptions of a store with the model
// over random operations, at least as many as MILLRACE_MODEL_STEPS says.
func RunStreamModel(t *testing.T, newPlace func(tb testing.TB) Place) {
	t.Helper()
	kinds := []string{
		"append", "append", "append", "append", "receive", "receive", "receive", "settle", "settle", "settle at",
		"settle up to", "nack", "extend", "return", "seek", "read", "read since", "sleep", "cursor", "reopen", "settle old", "roll", "upkeep",
	}
	runSteps(t, newPlace, kinds, func(h *harness, steps []step) error { return (&streamModel{h: h}).run(steps) })
}

// smessage is a message of the model of a stream.
type smessage struct {
	text      string
	at        int64 // when it was published
	notBefore int64
	stored    int64 // when the store says that it came, once it was read
}

// spartition is a partition of the model.
type spartition struct {
	messages []smessage // by offset
	first    uint64     // what retention has left
}

// sentry is a message that a subscription of the model has in flight.
type sentry struct {
	state    mstate
	until    int64
	attempt  uint32
	delivery broker.Delivery // the newest
}

// slane is a partition as a subscription of the model sees it.
type slane struct {
	next    uint64
	entries map[uint64]*sentry
}

type streamModel struct {
	h       *harness
	stream  broker.Target
	sub     broker.Target
	parts   [2]spartition
	lanes   [2]slane
	out     [broker.Reasons]uint64
	cursor  string
	written int
	old     []broker.Delivery // of before a seek
}

func (m *streamModel) run(steps []step) error {
	m.stream = m.h.stream(broker.Def{Partitions: 2, Retention: modelRetention})
	m.sub = m.h.subscribe(m.stream)
	for p := range m.lanes {
		m.lanes[p].entries = map[uint64]*sentry{}
	}
	for i, s := range steps {
		m.h.sleep(10*time.Millisecond - time.Duration(time.Now().UnixMilli()%10)*time.Millisecond)
		err := m.retained()
		now := time.Now().UnixMilli()
		m.advance(now)
		if err == nil {
			err = m.do(s, now)
		}
		if err == nil {
			err = m.retained()
		}
		m.advance(time.Now().UnixMilli())
		if err == nil {
			err = m.compare()
		}
		if err != nil {
			return fmt.Errorf("step %d %+v: %w", i, s, err)
		}
	}
	return nil
}

func (m *streamModel) do(s step, now int64) error {
	p := uint32(s.a % len(m.parts))
	switch s.kind {
	case "roll":
		return m.h.roll(1 + s.b)
	case "upkeep":
		m.h.upkeep()
		return nil
	case "append":
		return m.append(p, s, now)
	case "receive":
		return m.receive(1+s.b%5, time.Duration(s.c*100+5)*time.Millisecond)
	case "settle", "nack", "extend", "return":
		return m.settle(s, now)
	case "settle old":
		return m.settleOld(s)
	case "settle at":
		return m.settleAt(p, s)
	case "settle up to":
		return m.settleUpTo(p, s)
	case "seek":
		return m.seek(p, s)
	case "read":
		return m.read(p, uint64(s.b*s.c), 1+s.b)
	case "read since":
		return m.readSince(p, now-int64(s.b*s.c)*300)
	case "sleep":
		m.h.sleep(time.Duration(s.b*s.c) * 100 * time.Millisecond)
	case "cursor":
		return m.moveCursor(s)
	case "reopen":
		if m.h.keeps() {
			m.h.reopen()
			m.stream, m.sub = m.h.target("s"), m.h.target("sub")
		}
	}
	return nil
}

func (m *streamModel) append(p uint32, s step, now int64) error {
	for range 1 + s.b {
		m.written++
		x := smessage{text: fmt.Sprint(m.written), at: now}
		b := m.h.message(x.text)
		if s.c == 1 {
			x.notBefore = now + int64(s.b)*100 + 5
			b.NotBefore = x.notBefore
		}
		r := m.h.submit(func(u *broker.Batch) { u.Publish(b, broker.Route{Target: m.stream, Partition: p}) })
		if want := uint64(len(m.parts[p].messages)); r.Err != nil || r.Seq != want {
			return fmt.Errorf("append answers offset %d and %w, want %d", r.Seq, r.Err, want)
		}
		m.parts[p].messages = append(m.parts[p].messages, x)
	}
	return nil
}

// retained looks at what retention has taken: nothing that is young enough, and
// everything that is much too old.
func (m *streamModel) retained() error {
	synctest.Wait()
	in, err := m.h.store.Info(context.Background(), m.stream)
	if err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	keep := modelRetention.Milliseconds()
	for p, at := range in.Partitions {
		part := &m.parts[p]
		if at.Next != uint64(len(part.messages)) || at.First < part.first || at.First > at.Next {
			return fmt.Errorf("partition %d is %d to %d, was from %d and has %d", p, at.First, at.Next, part.first, len(part.messages))
		}
		for o, x := range part.messages {
			switch {
			case uint64(o) < at.First && now-x.at < keep:
				return fmt.Errorf("offset %d of partition %d went after %d ms", o, p, now-x.at)
			case uint64(o) >= at.First && now-x.at > keep+keep/8+2000:
				return fmt.Errorf("offset %d of partition %d is there after %d ms", o, p, now-x.at)
			}
		}
		if at.First > part.first {
			m.cut(p, at.First)
		}
	}
	return nil
}

// cut takes what retention has taken from the subscription too.
func (m *streamModel) cut(p int, first uint64) {
	m.parts[p].first = first
	l := &m.lanes[p]
	for o := range l.entries {
		if o < first {
			m.gone(l, o, broker.ReasonRetention)
		}
	}
	m.pass(l, first, broker.ReasonRetention)
}

func (m *streamModel) gone(l *slane, o uint64, why broker.Reason) {
	delete(l.entries, o)
	m.out[why]++
}

// pass has a lane go on at an offset, and counts what that leaves out.
func (m *streamModel) pass(l *slane, to uint64, why broker.Reason) {
	if to > l.next {
		m.out[why] += to - l.next
		l.next = to
	}
}

// advance ends leases and delays.
func (m *streamModel) advance(now int64) {
	for p := range m.lanes {
		for _, e := range m.lanes[p].entries {
			if e.state != mReady && e.until <= now {
				e.state = mReady
			}
		}
	}
}

// ready counts what can be received in a partition.
func (m *streamModel) ready(p int, now int64) (n int) {
	l := &m.lanes[p]
	for o, e := range l.entries {
		if e.state == mReady && m.parts[p].messages[o].notBefore <= now { // one that a settlement behind it took may be early
			n++
		}
	}
	for _, x := range m.parts[p].messages[l.next:] {
		if x.notBefore <= now {
			n++
		}
	}
	return n
}

func (m *streamModel) receive(limit int, lease time.Duration) error {
	got := m.h.receive(m.sub, limit, lease)
	now := time.Now().UnixMilli()
	there := m.ready(0, now) + m.ready(1, now)
	if len(got) > limit || len(got) == 0 && there > 0 || len(got) > there {
		return fmt.Errorf("received %d of %d, wanted %d", len(got), there, limit)
	}
	last := [2]int{-1, -1}
	for _, d := range got {
		l := &m.lanes[d.Partition]
		if int(d.Offset) <= last[d.Partition] {
			return fmt.Errorf("offset %d of partition %d came after %d", d.Offset, d.Partition, last[d.Partition])
		}
		last[d.Partition] = int(d.Offset)
		m.take(int(d.Partition), d.Offset)
		e := l.entries[d.Offset]
		if e == nil || e.state != mReady {
			return fmt.Errorf("offset %d of partition %d was not ready", d.Offset, d.Partition)
		}
		e.attempt++
		e.state, e.until, e.delivery = mLeased, now+lease.Milliseconds(), d
		if want := m.parts[d.Partition].messages[d.Offset].text; string(d.Payload) != want || d.Attempt != e.attempt || d.Until != e.until {
			return fmt.Errorf("received %s attempt %d until %d, want %s, %d, %d", d.Payload, d.Attempt, d.Until, want, e.attempt, e.until)
		}
	}
	// Nothing that is ready lies before what came.
	for p := range m.lanes {
		for o, e := range m.lanes[p].entries {
			if e.state == mReady && int(o) < last[p] && m.parts[p].messages[o].notBefore == 0 {
				return fmt.Errorf("offset %d of partition %d was left out", o, p)
			}
		}
	}
	return nil
}

// take moves a lane behind an offset. What is passed on the way is not due.
func (m *streamModel) take(p int, o uint64) {
	l := &m.lanes[p]
	for ; l.next <= o; l.next++ {
		e := &sentry{state: mReady}
		if x := m.parts[p].messages[l.next]; x.notBefore > time.Now().UnixMilli() {
			e.state, e.until = mDelayed, x.notBefore
		}
		l.entries[l.next] = e
	}
}

// delivered picks an entry that was handed out, or nil.
func (m *streamModel) delivered(n int) (p int, o uint64, e *sentry) {
	for range 2 {
		p = n % 2
		for o := m.parts[p].first; o < m.lanes[p].next; o++ {
			if e := m.lanes[p].entries[o]; e != nil && e.attempt > 0 && e.delivery.Attempt == e.attempt { // not returned
				if n -= 2; n < 0 {
					return p, o, e
				}
			}
		}
		n = 1 - p
	}
	return 0, 0, nil
}

func (m *streamModel) read(p uint32, from uint64, limit int) error {
	got, err := m.h.store.Read(context.Background(), m.stream, broker.Pos{Partition: p, Seq: from}, limit, nil)
	part := &m.parts[p]
	if from < part.first {
		if out, ok := errors.AsType[*broker.RangeError](err); !ok || out.First != part.first {
			return fmt.Errorf("read of %d answers %w, want the first, %d", from, err, part.first)
		}
		return nil
	}
	if err != nil {
		return err
	}
	want := part.messages[min(from, uint64(len(part.messages))):]
	return m.same(p, got, want[:min(limit, len(want))], from)
}

func (m *streamModel) readSince(p uint32, since int64) error {
	part := &m.parts[p]
	got, err := m.h.store.Read(context.Background(), m.stream, broker.Pos{Partition: p, Time: time.UnixMilli(since)}, 1000, nil)
	if err != nil {
		return err
	}
	from := part.first
	for from < uint64(len(part.messages)) && part.messages[from].at < since {
		from++
	}
	return m.same(p, got, part.messages[from:], from)
}

// same compares what was read with the messages from an offset on.
func (m *streamModel) same(p uint32, got []broker.Delivery, want []smessage, from uint64) error {
	if len(got) != len(want) {
		return fmt.Errorf("read %s of partition %d from %d, want %d messages", bodies(got), p, from, len(want))
	}
	for i, d := range got {
		x := &want[i]
		if string(d.Payload) != x.text || d.Seq != from+uint64(i) || d.Partition != p || d.Queued < x.at || x.stored != 0 && x.stored != d.Queued {
			return fmt.Errorf("read %s at %d:%d from %d, want %s at %d:%d", d.Payload, d.Partition, d.Seq, d.Queued, x.text, p, from+uint64(i))
		}
		x.stored = d.Queued
	}
	return nil
}

// moveCursor writes where a reader stands, and reads what was written before.
func (m *streamModel) moveCursor(s step) error {
	e, err := m.h.store.Get(context.Background(), broker.SpaceCursors, "reader")
	if string(e.Value) != m.cursor || m.cursor == "" && !errors.Is(err, broker.ErrNotFound) {
		return fmt.Errorf("the cursor is %q, %w; want %q", e.Value, err, m.cursor)
	}
	rev := e.Rev
	if m.cursor == "" {
		rev = broker.RevNone
	}
	m.cursor = fmt.Sprint(s.a, s.b, s.c)
	return m.h.submit(func(b *broker.Batch) { b.Put(broker.SpaceCursors, "reader", []byte(m.cursor), rev) }).Err
}

// compare compares the counts of the subscription, and lets the store check itself.
func (m *streamModel) compare() error {
	synctest.Wait()
	if c, ok := m.h.store.(Checker); ok {
		if err := c.Check(); err != nil {
			return err
		}
	}
	in, err := m.h.store.Info(context.Background(), m.sub)
	if err != nil {
		return err
	}
	var waiting, leased int64
	for p := range m.lanes {
		l := &m.lanes[p]
		waiting += int64(len(m.parts[p].messages)) - int64(l.next)
		first := l.next
		for o, e := range l.entries {
			if e.state == mLeased {
				leased++
			} else {
				waiting++
			}
			first = min(first, o)
		}
		if at := in.Partitions[p]; at.First != first {
			return fmt.Errorf("partition %d is settled before %d, want %d", p, at.First, first)
		}
	}
	if in.Ready+in.Delayed != waiting || in.Leased != leased || in.Out != m.out || in.Difference() != 0 {
		return fmt.Errorf("waiting %d, leased %d, out %v, difference %d; want %d, %d, %v",
			in.Ready+in.Delayed, in.Leased, in.Out, in.Difference(), waiting, leased, m.out)
	}
	return nil
}
