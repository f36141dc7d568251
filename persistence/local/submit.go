package local

import (
	"math"

	"millrace/broker"
	"millrace/persistence/journal"
)

// unitNotes is what the unit at hand, or the batch, remembers in a queue. It is
// under the append lock and the queue's, and lost with the contents of a queue,
// which go between two units only when the batch has nothing to show there.
type unitNotes struct {
	added   load   // what the unit adds
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
	locked  []*queue             // whose locks it holds: the only place that holds more than one
	records int                  // still to be written
	plans   []plan               // one for each operation
	targets []target             // of the operations, see plan
	seen    map[string]firstSeen // keys of earlier publishes of the unit
	ranges  []seqRun             // of a purge: one in a unit
	limit   int                  // and how many may be written
	grows   bool                 // the records take room for good
	placed  placed               // scratch of writeMessage
	short   bool                 // the disk has little room: only what makes some is taken
}

// plan is what was found out about an operation before it is checked.
type plan struct {
	first   int  // its targets begin there in unit.targets, in the order of its routes
	size    int  // of the encoded message
	durable int  // how many of its targets are on disk
	skip    bool // a duplicate
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
	now := s.milli()
	s.unit.now, s.unit.short = max(now, s.newest), s.short(now)
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
	if len(u.seen) > 0 {
		clear(u.seen)
	}
	u.now = max(u.now, s.floor.Load())
	s.newest = u.now
	if len(ops) == 0 {
		return
	}
	if n := u.resolve(ops); n > 0 {
		if u.grows && u.short {
			r.Err = broker.ErrFull
			return
		}
		if r.Err = s.reserve(n, u.grows); r.Err != nil {
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
	if q.locked {
		return
	}
	q.mu.Lock()
	q.locked = true
	q.unit.added, q.unit.first, q.unit.trim = load{}, q.next, false
	u.locked = append(u.locked, q)
}

// unlock gives the locks back. Timers are set here: what the unit added to a
// heap may be due first.
func (u *unit) unlock() {
	for i, q := range u.locked {
		q.schedule()
		q.locked = false
		q.mu.Unlock()
		u.locked[i] = nil
	}
	u.locked = u.locked[:0]
}

// resolve looks the targets of ops up, once for all that follows, and returns
// how many bytes the records of ops take at most; 0 if none is written. Messages
// and retained values take room on the disk for good, while acknowledgements,
// cursors and deletions lead to more.
func (u *unit) resolve(ops []broker.Op) int {
	s := u.s
	u.plans, u.targets, u.grows = u.plans[:0], u.targets[:0], false
	n := 0
	for i := range ops {
		op := &ops[i]
		p := plan{first: len(u.targets)}
		switch op.Kind {
		case broker.OpPublish:
			for j := range op.Routes {
				t := s.targets[op.Routes[j].Target]
				u.targets = append(u.targets, t)
				if t != (target{}) && !t.volatile() {
					p.durable++
				}
			}
			if p.size = broker.SizeBound(op.Message); p.durable > 0 {
				u.grows = true
				n += journal.RecordHeader + maxSmall + routeBound*p.durable + p.size
			}
		case broker.OpPut:
			u.grows = u.grows || op.Space == broker.SpaceRetained && op.Value != nil
			if !s.mem {
				n += journal.RecordHeader + maxSmall + len(op.Key) + len(op.Value)
			}
		default:
			t := s.targets[op.Ref.Target]
			u.targets = append(u.targets, t)
			if t.q == nil || t.q.volatile {
				break
			}
			n += journal.RecordHeader + maxSmall + 16*len(op.Offsets)
			if op.Kind == broker.OpPurge {
				size, limit := t.q.purgeBound(op.All)
				u.limit = limit
				n += size
			}
		}
		u.plans = append(u.plans, p)
	}
	return n
}

// queueOf returns the queue of a plan's one target, or why there is none.
func (u *unit) queueOf(p *plan, id broker.Target) (*queue, error) {
	switch t := u.targets[p.first]; {
	case t.q != nil:
		return t.q, nil
	case t.st == nil && u.s.used(id):
		return nil, broker.ErrGone
	default:
		return nil, broker.ErrNotFound
	}
}

// record begins a record of the unit.
func (u *unit) record(typ byte) []byte { return u.s.wal.Start(typ) }

// end finishes it; the last one closes the group.
func (u *unit) end(b []byte) (uint64, uint32) {
	u.records--
	pos, size := u.s.wal.End(b, u.records > 0)
	return uint64(pos), size
}
