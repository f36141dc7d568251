package local

import (
	"math"
	"time"

	"millrace/broker"
	"millrace/persistence/journal"
)

// unitNotes is what the unit at hand, or the batch, remembers in a queue.
// Everything is under the append lock.
type unitNotes struct {
	locked  bool   // the unit holds the queue's lock
	n, size int64  // messages that the unit adds
	first   uint64 // sequence of the first of them
	commit  uint64 // the Submit that has the queue in commit.queues
	touched int    // and where
	trim    bool   // limits are to be looked at when the unit is applied
}

// unit is the unit at hand. Submit works on one at a time.
type unit struct {
	s       *Store
	cm      *commit
	res     *broker.Result
	now     int64
	locked  []*queue // whose locks it holds: the only place that holds more than one
	records int      // still to be written
	skip    []bool   // publishes that are duplicates or have nowhere to go
	ranges  []seqRun // of a purge: one in a unit
	limit   int      // and how many may be written
}

// Submit applies the units of b one by one under the append lock and hands
// their records to the log, which calls c through a commit.
func (s *Store) Submit(b *broker.Batch, l broker.Level, c broker.Completion) {
	cm := s.newCommit(b, c)
	if err := s.wal.Lock(); err != nil {
		s.refuse(cm, err)
		return
	}
	s.outstanding.Add(1)
	s.submits++
	cm.no = s.submits
	s.flushNotes()
	s.unit.cm = cm
	s.unit.now = max(time.Now().UnixMilli(), s.clock)
	for i := range b.Units {
		s.unit.run(b.OpsOf(i), &b.Units[i].Result)
	}
	s.unit.cm, s.unit.res = nil, nil
	s.wal.Unlock(levelOf(l), cm)
}

// run applies one unit: wholly, or not at all.
func (u *unit) run(ops []broker.Op, r *broker.Result) {
	s := u.s
	u.res, u.records, u.limit = r, 0, math.MaxInt
	u.now = max(u.now, s.floor.Load())
	s.clock = u.now
	if len(ops) == 0 {
		return
	}
	if n := u.bound(ops); n > 0 {
		if err := s.wal.Reserve(n); err != nil {
			r.Err = refusal(err)
			return
		}
	}
	if r.Err = u.check(ops); r.Err == nil {
		u.apply(ops)
	}
	u.unlock()
}

// lock takes the lock of q until the end of the unit.
func (u *unit) lock(q *queue) {
	if q.unit.locked {
		return
	}
	q.mu.Lock()
	q.unit.locked = true
	q.unit.n, q.unit.size, q.unit.first, q.unit.trim = 0, 0, q.next, false
	u.locked = append(u.locked, q)
}

// unlock gives the locks back. Timers are set here: what the unit added to a
// heap may be due first.
func (u *unit) unlock() {
	for i, q := range u.locked {
		q.schedule()
		q.unit.locked = false
		q.mu.Unlock()
		u.locked[i] = nil
	}
	u.locked = u.locked[:0]
}

// bound returns how many bytes the records of ops take at most; 0 if none is
// written.
func (u *unit) bound(ops []broker.Op) int {
	s := u.s
	if s.mem {
		return 0
	}
	n := 0
	for i := range ops {
		op := &ops[i]
		switch op.Kind {
		case broker.OpPublish:
			if s.anyDurable(op.Routes) {
				n += journal.RecordHeader + maxSmall + routeBound*len(op.Routes) + broker.SizeBound(op.Message)
			}
		case broker.OpPut:
			n += journal.RecordHeader + maxSmall + len(op.Key) + len(op.Value)
		case broker.OpPurge:
			if q, err := s.queueAt(op.Ref.Target); err == nil && !q.volatile {
				size, limit := q.purgeBound(op.All)
				n += journal.RecordHeader + maxSmall + size
				u.limit = limit
			}
		default:
			if q, err := s.queueAt(op.Ref.Target); err == nil && !q.volatile {
				n += journal.RecordHeader + maxSmall
			}
		}
	}
	return n
}

// anyDurable reports whether one of the routes is kept on disk.
func (s *Store) anyDurable(routes []broker.Route) bool {
	for i := range routes {
		if t, ok := s.targets[routes[i].Target]; ok && !t.volatile() {
			return true
		}
	}
	return false
}

// record begins a record of the unit.
func (u *unit) record(typ byte) []byte { return u.s.wal.Start(typ) }

// end finishes it; the last one closes the group.
func (u *unit) end(b []byte) (uint64, uint32) {
	u.records--
	pos, size := u.s.wal.End(b, u.records > 0)
	return uint64(pos), size
}
