package local_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// verifier compares a disk after a power cut with what must and may be there.
type verifier struct {
	t         *testing.T
	must, may diary
	rng       *rand.Rand
	where     string
}

func (v *verifier) errorf(format string, args ...any) {
	v.t.Helper()
	v.t.Errorf("%s: %s", v.where, fmt.Sprintf(format, args...))
}

func (v *verifier) verify(disk journaltest.Crashable) {
	v.t.Helper()
	for again := v.rng.IntN(6); again < 2; again++ {
		disk = cutWhileOpening(v.t, disk, v.rng, v.where)
	}
	s := v.open(disk)
	if s == nil {
		return
	}
	v.compare(s)
	if v.rng.IntN(4) > 0 {
		shut(v.t, s)
		return
	}
	v.workOn(s)
	v.compare(s)
	shut(v.t, s)
	if s = v.open(disk); s != nil {
		v.where += ", opened again"
		v.compare(s)
		shut(v.t, s)
	}
}

func (v *verifier) open(fs journal.FS) *local.Store {
	v.t.Helper()
	s, err := local.Open(crashOptions(fs))
	if err != nil {
		v.errorf("%v", err)
		return nil
	}
	s.Bind(noEvents{})
	return s
}

// workOn fills segments, so that the upkeep has to do. Nothing of it stays.
func (v *verifier) workOn(s *local.Store) {
	v.t.Helper()
	scratch := queueOn(v.t, s, broker.Def{Name: "scratch"})
	for range 3 {
		b, c := &broker.Batch{}, make(batches, 1)
		for i := range 30 {
			b.Publish(numbered(i, 1000), broker.Route{Target: scratch})
			b.End()
		}
		s.Submit(b, broker.Durable, c)
		<-c
		for _, d := range receive(v.t, s, scratch, 30) {
			if err := outcome(submit(s, func(b *broker.Batch) { b.Settle(d.Ref, broker.ReasonAcked) })); err != nil {
				v.errorf("ack answers %v", err)
			}
		}
	}
	s.Tidy()
}

func (v *verifier) compare(s *local.Store) {
	v.t.Helper()
	if err := s.Check(); err != nil {
		v.errorf("%v", err)
	}
	for q, name := range busyQueues {
		v.compareQueue(s, q, name)
	}
	for key, may := range v.may.keys {
		must := v.must.keys[key].must
		e, err := s.Get(context.Background(), broker.SpaceRetained, key)
		if err != nil && !errors.Is(err, broker.ErrNotFound) {
			v.errorf("key %s: %v", key, err)
		}
		fits := false
		for n := must; n <= may.may; n++ {
			if deleted := n%4 == 0; deleted && err != nil || !deleted && err == nil && strings.TrimSpace(string(e.Value)) == strconv.Itoa(n) {
				fits = true
			}
		}
		if !fits {
			v.errorf("key %s is %q, %v; want a version from %d to %d", key, strings.TrimSpace(string(e.Value)), err, must, may.may)
		}
	}
	c := &contents{t: v.t, s: s, where: v.where}
	in, err := s.Info(context.Background(), c.target("s"))
	if err != nil || len(in.Partitions) != 2 {
		v.errorf("stream: %+v, %v", in, err)
		return
	}
	for p, b := range in.Partitions {
		if int(b.Next) < v.must.ends[p].must || int(b.Next) > v.may.ends[p].may {
			v.errorf("partition %d ends at %d, want %d to %d", p, b.Next, v.must.ends[p].must, v.may.ends[p].may)
		}
		got, err := s.Read(context.Background(), c.target("s"), broker.Pos{Partition: uint32(p), Begin: true}, 1<<20, nil)
		now, _ := s.Info(context.Background(), c.target("s")) // what is too much may be cut off meanwhile
		if err != nil || len(got) < int(b.Next-now.Partitions[p].First) {
			v.errorf("partition %d has %d of %d to %d: %v", p, len(got), now.Partitions[p].First, b.Next, err)
		}
		for i := range got {
			if n := number(v.t, &got[i]); n != 2*int(got[i].Seq)+p {
				v.errorf("partition %d has message %d at offset %d", p, n, got[i].Seq)
			}
		}
	}
	v.compareDedup(s, c)
}

// compareDedup repeats the newest message that was answered.
func (v *verifier) compareDedup(s *local.Store, c *contents) {
	v.t.Helper()
	if v.must.dedup == 0 {
		return
	}
	m := numbered(0, 1)
	m.DedupKey, m.BodyHash = fmt.Sprint("once-", v.must.dedup-1-v.rng.IntN(min(v.must.dedup, 20))), 1
	b, done := &broker.Batch{}, make(batches, 1)
	b.Publish(m, broker.Route{Target: c.target("work")})
	b.End()
	s.Submit(b, broker.Durable, done)
	if r := (<-done).Units[0].Result; r.Err != nil || !r.Duplicate {
		v.errorf("repeat of %s answers %+v, want a duplicate", m.DedupKey, r)
	}
}

func (v *verifier) compareQueue(s *local.Store, q int, name string) {
	v.t.Helper()
	c := &contents{t: v.t, s: s, where: v.where}
	target := c.target(name)
	there, dead := map[int]bool{}, map[int]bool{}
	list, err := s.Read(context.Background(), target, broker.Pos{States: broker.Ready | broker.Delayed | broker.Leased | broker.Dead}, 1<<20, nil)
	if err != nil {
		v.errorf("read %s: %v", name, err)
	}
	last := -1
	for i := range list {
		n := number(v.t, &list[i])
		if n <= last {
			v.errorf("%s has message %d after %d", name, n, last)
		}
		there[n], last = true, n
		dead[n] = list[i].State == broker.Dead && list[i].Reason == broker.ReasonAttempts
	}
	var stored, sent, left, leaving int
	for n, may := range v.may.queues[q] {
		var must life
		if n < len(v.must.queues[q]) {
			must = v.must.queues[q][n]
		}
		bad := ""
		switch {
		case must.stored && !may.leaving && !there[n]:
			bad = "lost"
		case must.left && there[n]:
			bad = "back"
		case must.parked && !dead[n]:
			bad = "not dead any more"
		case dead[n] && !may.parking:
			bad = "dead and was never parked"
		}
		if bad != "" {
			v.errorf("message %d of %s is %s", n, name, bad)
		}
		if q < 2 || n%3 == 0 {
			sent++
		}
		stored, left, leaving = stored+b2i(must.stored), left+b2i(must.left), leaving+b2i(may.leaving)
	}
	in, err := s.Info(context.Background(), target)
	if err != nil || in.Difference() != 0 {
		v.errorf("books of %s are out by %d, %v", name, in.Difference(), err)
	}
	if n := int(in.In); n < stored || n > sent {
		v.errorf("%d came into %s, want %d to %d", n, name, stored, sent)
	}
	if n := int(in.Out[broker.ReasonAcked]); n < left || n > leaving {
		v.errorf("%d were acked in %s, want %d to %d", n, name, left, leaving)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
