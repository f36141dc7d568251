package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"millrace/broker"
	"millrace/router"
)

// The model is a slice of messages and the rules in plain words. Operations
// happen at multiples of 10 ms; leases and delays end 5 ms after one, messages
// expire 3 ms and queues' times to live 7 ms after one, so that no two things
// happen at once and their order is never a matter of taste.

// step is one drawn operation. What its numbers mean depends on the kind.
type step struct {
	kind    string
	a, b, c int
}

// modelQueues are the definitions under test.
var modelQueues = []broker.Def{
	{Name: "plain", LapseAt: 2},
	{Name: "ttl", TTL: 507 * time.Millisecond},
	{Name: "small", MaxMessages: 4, DropOldest: true, LapseAt: 3},
}

// RunModel compares a store with the model over random operations, at least as
// many as MILLRACE_MODEL_STEPS says.
func RunModel(t *testing.T, newPlace func(tb testing.TB) Place) {
	t.Helper()
	kinds := []string{"publish", "publish", "publish", "receive", "receive", "select", "select", "settle", "settle", "nack", "extend", "park", "sleep", "purge", "reopen", "roll", "upkeep"}
	runSteps(t, newPlace, kinds, func(h *harness, steps []step) error { return (&model{h: h}).run(steps) })
}

// runSteps runs random sequences of steps of some kinds, each on a store of its
// own, a hundred at a time until there were enough.
func runSteps(t *testing.T, newPlace func(tb testing.TB) Place, kinds []string, run func(h *harness, steps []step) error) {
	t.Helper()
	want, err := strconv.Atoi(cmp.Or(os.Getenv("MILLRACE_MODEL_STEPS"), "1"))
	if err != nil {
		t.Fatalf("MILLRACE_MODEL_STEPS: %v", err)
	}
	one := rapid.Custom(func(rt *rapid.T) step {
		return step{
			kind: rapid.SampledFrom(kinds).Draw(rt, "kind"),
			a:    rapid.IntRange(0, 9).Draw(rt, "a"), b: rapid.IntRange(0, 9).Draw(rt, "b"), c: rapid.IntRange(0, 9).Draw(rt, "c"),
		}
	})
	done := 0
	for done < want && !t.Failed() {
		rapid.Check(t, func(rt *rapid.T) {
			steps := rapid.SliceOfN(one, 1, 60).Draw(rt, "steps")
			done += len(steps)
			var err error
			synctest.Test(t, func(t *testing.T) {
				h := &harness{T: t, place: newPlace(t)}
				h.open()
				err = run(h, steps)
				_ = h.store.Close(context.Background()) // the error of the model says more
			})
			if err != nil {
				rt.Fatalf("%v", err)
			}
		})
	}
	t.Logf("%d steps", done)
}

// Keeper is a store that does work behind the scenes, which Tidy does now.
type Keeper interface{ Tidy() }

// upkeep has a store that keeps anything do what it does now and then.
func (h *harness) upkeep() {
	if k, ok := h.store.(Keeper); ok && h.keeps() {
		k.Tidy()
	}
}

// roll fills segments with what does not stay.
func (h *harness) roll(n int) error {
	noise := h.queue(broker.Def{Name: "noise"})
	for range n {
		m := h.message("noise")
		m.Payload = make([]byte, 3000)
		r := h.submit(func(b *broker.Batch) { b.Publish(m, broker.Route{Target: noise}) })
		if r.Err != nil {
			return fmt.Errorf("publish of noise: %w", r.Err)
		}
		for _, d := range h.receive(noise, 1, time.Minute) {
			if err := h.settle(d, broker.ReasonAcked); err != nil {
				return fmt.Errorf("settle of noise: %w", err)
			}
		}
	}
	return nil
}

// mstate is the state of a message in the model.
type mstate int

const (
	mReady mstate = iota
	mDelayed
	mLeased
	mHeld
	mDead
	mGone
)

// mmessage is a message of the model.
type mmessage struct {
	n        int
	state    mstate
	place    int64 // when it was queued, or due
	late     bool  // it was published with a delay: behind others of its time
	until    int64
	expires  int64
	attempt  uint32
	delivery broker.Delivery // the newest
}

// topic is where it was published.
func (x *mmessage) topic() string { return fmt.Sprintf("t/%d/%d", x.n%3, x.n) }

// modelFilters are the parts that are asked for.
var modelFilters = []string{"t/0/#", "t/+/+", "t/1/+", "#", "t/2", "t/2/#"}

// mqueue is a queue of the model.
type mqueue struct {
	def      broker.Def
	target   broker.Target
	messages []*mmessage
	in       uint64
	out      [broker.Reasons]uint64
}

type model struct {
	h      *harness
	queues []*mqueue
	n      int
}

func (m *model) run(steps []step) error {
	for _, d := range modelQueues {
		m.queues = append(m.queues, &mqueue{def: d, target: m.h.queue(d)})
	}
	for i, s := range steps {
		m.h.sleep(10*time.Millisecond - time.Duration(time.Now().UnixMilli()%10)*time.Millisecond)
		synctest.Wait()
		now := time.Now().UnixMilli()
		for _, q := range m.queues {
			q.advance(now)
		}
		q := m.queues[s.a%len(m.queues)]
		err := m.do(q, s, now)
		if err == nil {
			err = m.compare()
		}
		if err != nil {
			return fmt.Errorf("step %d %+v on %s: %w", i, s, q.def.Name, err)
		}
	}
	return nil
}

func (m *model) do(q *mqueue, s step, now int64) error {
	switch s.kind {
	case "publish":
		return m.publish(q, s, now)
	case "receive":
		return m.receive(q, "", s, now)
	case "select":
		if m.h.store.State().Selective {
			return m.receive(q, modelFilters[s.b%len(modelFilters)], s, now)
		}
	case "settle":
		return m.settle(q, s, now)
	case "nack", "extend":
		return m.postpone(q, s, now)
	case "park":
		return m.park(q, now)
	case "sleep":
		m.h.sleep(time.Duration(s.b*s.c) * 50 * time.Millisecond)
		for _, q := range m.queues {
			q.advance(time.Now().UnixMilli())
		}
	case "purge":
		return m.purge(q, s.b == 0)
	case "roll":
		return m.h.roll(1 + s.b)
	case "upkeep":
		m.h.upkeep()
	case "reopen":
		if m.h.keeps() {
			m.h.reopen()
			for _, q := range m.queues {
				q.target = m.h.target(q.def.Name)
			}
		}
	}
	return nil
}

func (m *model) publish(q *mqueue, s step, now int64) error {
	m.n++
	x := &mmessage{n: m.n, place: now}
	b := m.h.message(fmt.Sprint(m.n))
	b.Topic = x.topic()
	if s.b == 1 {
		x.state, x.late, x.place = mDelayed, true, now+int64(s.c)*100+5
		x.until, b.NotBefore = x.place, x.place
	}
	if s.b == 2 {
		x.expires = now + int64(s.c)*100 + 3
		b.Expires = x.expires
	}
	r := m.h.submit(func(u *broker.Batch) { u.Publish(b, broker.Route{Target: q.target}) })
	want := error(nil)
	if limit := q.def.MaxMessages; limit > 0 && q.count(mLeased)+1 > limit {
		want = broker.ErrFull
	}
	if !errors.Is(r.Err, want) {
		return fmt.Errorf("publish answers %w, want %w", r.Err, want)
	}
	if want == nil {
		q.in++
		q.makeRoom()
		q.messages = append(q.messages, x)
	}
	return nil
}

// makeRoom drops until one more fits.
func (q *mqueue) makeRoom() {
	for limit := q.def.MaxMessages; limit > 0; {
		n := int64(0)
		for _, s := range []mstate{mReady, mDelayed, mLeased, mDead} {
			n += q.count(s)
		}
		if n < limit {
			return
		}
		for _, s := range []mstate{mReady, mDelayed, mDead} {
			if list := q.in2(s); len(list) > 0 {
				q.gone(list[0], broker.ReasonOverflow)
				break
			}
		}
	}
}

// in2 returns the messages in a state in the order in which they leave it.
func (q *mqueue) in2(s mstate) []*mmessage {
	var list []*mmessage
	for _, x := range q.messages {
		if x.state == s {
			list = append(list, x)
		}
	}
	slices.SortStableFunc(list, func(a, b *mmessage) int {
		if s == mDelayed || s == mDead {
			return cmp.Or(cmp.Compare(a.until, b.until), cmp.Compare(a.n, b.n))
		}
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(a.n, b.n))
	})
	return list
}

func (q *mqueue) count(s mstate) int64 { return int64(len(q.in2(s))) }

func (q *mqueue) gone(x *mmessage, why broker.Reason) {
	x.state = mGone
	q.out[why]++
	q.messages = slices.DeleteFunc(q.messages, func(y *mmessage) bool { return y == x })
}

// advance does what was due before now, for each message in its own order.
func (q *mqueue) advance(now int64) {
	for _, x := range slices.Clone(q.messages) {
		for more := true; more; {
			more = q.advanceOne(x, now)
		}
	}
}

// end is when x is over, 0 for never.
func (q *mqueue) end(x *mmessage) int64 {
	end := x.expires
	if ttl := q.def.TTL.Milliseconds(); ttl > 0 && (!x.late || x.state != mDelayed || x.attempt > 0) {
		if t := x.place + ttl; end == 0 || t < end {
			end = t
		}
	}
	return end
}

func (q *mqueue) advanceOne(x *mmessage, now int64) bool {
	end := q.end(x)
	over := end != 0 && end <= now
	switch x.state {
	case mReady:
		if over {
			q.gone(x, broker.ReasonExpired)
		}
	case mDelayed:
		switch {
		case over && end < x.until:
			q.gone(x, broker.ReasonExpired)
		case x.until <= now:
			x.state = mReady
			if q.def.LapseAt > 0 && x.attempt >= q.def.LapseAt {
				x.state = mHeld
			}
			return true
		}
	case mLeased:
		if x.until > now {
			break
		}
		x.state = mReady
		if q.def.LapseAt > 0 && x.attempt >= q.def.LapseAt {
			x.state = mHeld
		}
		return true
	case mHeld, mDead, mGone: // time does nothing to them here
	}
	return false
}

func (m *model) receive(q *mqueue, filter string, s step, now int64) error {
	limit, lease := 1+s.b%4, time.Duration(s.c*100+5)*time.Millisecond
	got := m.h.take(q.target, filter, limit, lease)
	want := q.in2(mReady)
	if filter != "" {
		want = slices.DeleteFunc(want, func(x *mmessage) bool { return !router.Match(filter, x.topic()) })
	}
	want = want[:min(limit, len(want))]
	if len(got) != len(want) {
		return fmt.Errorf("received %s, want %d messages", bodies(got), len(want))
	}
	for i, x := range want {
		x.state, x.until = mLeased, now+lease.Milliseconds()
		x.attempt++
		if string(got[i].Payload) != fmt.Sprint(x.n) || got[i].Attempt != x.attempt || got[i].Until != x.until {
			return fmt.Errorf("received %s attempt %d until %d, want %d, %d, %d", got[i].Payload, got[i].Attempt, got[i].Until, x.n, x.attempt, x.until)
		}
		x.delivery = got[i]
	}
	return nil
}

// delivered picks a message that was handed out, or nil.
func (q *mqueue) delivered(s step) *mmessage {
	var list []*mmessage
	for _, x := range q.messages {
		if x.attempt > 0 {
			list = append(list, x)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[s.b%len(list)]
}

func (m *model) settle(q *mqueue, s step, _ int64) error {
	x := q.delivered(s)
	if x == nil {
		return nil
	}
	if err := m.h.settle(x.delivery, broker.ReasonAcked); err != nil {
		return fmt.Errorf("settle of %d: %w", x.n, err)
	}
	q.gone(x, broker.ReasonAcked)
	return nil
}

func (m *model) postpone(q *mqueue, s step, now int64) error {
	x := q.delivered(s)
	if x == nil {
		return nil
	}
	until := now
	if s.c > 0 {
		until += int64(s.c)*100 + 5
	}
	back := s.kind == "nack"
	r := m.h.submit(func(b *broker.Batch) { b.Defer(x.delivery.Ref, time.UnixMilli(until), back) })
	if x.state == mDead || x.state == mHeld && !back {
		if !errors.Is(r.Err, broker.ErrStale) {
			return fmt.Errorf("%s of %d answers %w, want stale", s.kind, x.n, r.Err)
		}
		return nil
	}
	if r.Err != nil {
		return fmt.Errorf("%s of %d: %w", s.kind, x.n, r.Err)
	}
	x.until, x.state = until, mLeased
	if back && until > now {
		x.state = mDelayed
	}
	q.advance(now)
	return nil
}

func (m *model) park(q *mqueue, now int64) error {
	for _, x := range q.messages {
		if x.state != mHeld {
			continue
		}
		if r := m.h.submit(func(b *broker.Batch) { b.Park(x.delivery.Ref, broker.ReasonAttempts) }); r.Err != nil {
			return fmt.Errorf("park of %d: %w", x.n, r.Err)
		}
		x.state, x.until = mDead, now
		return nil
	}
	return nil
}

func (m *model) purge(q *mqueue, all bool) error {
	r := m.h.submit(func(b *broker.Batch) { b.Purge(q.target, all) })
	n := 0
	for _, x := range slices.Clone(q.messages) {
		if x.state == mReady || x.state == mDelayed || all && x.state != mHeld {
			q.gone(x, broker.ReasonPurged)
			n++
		}
	}
	if r.Err != nil || r.Count != n {
		return fmt.Errorf("purge answers %d, %w; want %d", r.Count, r.Err, n)
	}
	return nil
}

// compare compares counts and reasons, and lets the store check itself.
func (m *model) compare() error {
	synctest.Wait()
	if c, ok := m.h.store.(Checker); ok {
		if err := c.Check(); err != nil {
			return err
		}
	}
	for _, q := range m.queues {
		in, err := m.h.store.Info(context.Background(), q.target)
		if err != nil {
			return err
		}
		got := [...]int64{in.Ready, in.Delayed, in.Leased, in.Held, in.Dead, int64(in.In)}
		want := [...]int64{q.count(mReady), q.count(mDelayed), q.count(mLeased), q.count(mHeld), q.count(mDead), int64(q.in)}
		if got != want || in.Out != q.out {
			return fmt.Errorf("%s: ready, delayed, leased, held, dead, in are %v, want %v; out %v, want %v", q.def.Name, got, want, in.Out, q.out)
		}
	}
	return nil
}
