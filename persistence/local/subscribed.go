package local

import (
	"errors"
	"fmt"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/ref"
)

// The records of subscriptions beside those of queues:
//
//	upto   target, partition, offset, reason u8    everything up to that offset is settled
//	seek   target, n × (partition, offset)         what is handed out next
const (
	recUpTo byte = 0x30 + iota
	recSeek
)

// fate is what becomes of a message of a subscription that was picked for a
// wait, and found to be unfit when it was read.
type fate uint8

const (
	deliver fate = iota
	unread       // it cannot be read now, and keeps its lease
	surplus      // the answer is large enough without it
	early        // it is not due
	expired      // its time is over
	lost         // the stream does not have it any more
)

// errAside says that a pick has another fate than to be delivered.
var errAside = fmt.Errorf("not to be delivered now: %w", broker.ErrGone)

// judge decides about a message that was read.
func (p *pick) judge(m *broker.Message, now int64) {
	switch {
	case m.Expires != 0 && m.Expires <= now:
		p.fate = expired
	case m.NotBefore > now:
		p.fate, p.until = early, m.NotBefore
	}
}

// fromStream reads picks in runs of neighbours.
func (l *loader) fromStream(st *stream, picks []pick, maxBytes int) {
	left := maxBytes
	for i := 0; i < len(picks); i = len(l.found) {
		n := 1
		for i+n < len(picks) && picks[i+n].seq == picks[i].seq+uint64(n) {
			n++
		}
		if left = l.readRun(st, picks[i:i+n], left, maxBytes > 0); left < 0 {
			l.aside(picks[len(l.found):], surplus)
		}
	}
}

// readRun reads what it can of a run with one call, and returns how many bytes
// may follow, less than none if no message may.
func (l *loader) readRun(st *stream, run []pick, left int, limited bool) int {
	o := ref.Offset(run[0].seq)
	p := st.partition(o.Partition)
	n := len(l.read)
	first := n == 0
	var err error
	l.read, _, err = p.read(o.Offset, want{limit: len(run), maxBytes: max(left, 0)}, l.read)
	if len(l.read) == n {
		l.unreadable(run, err)
		return left
	}
	for i := n; i < len(l.read); i++ {
		d := &l.read[i]
		for len(run) > 0 && ref.Offset(run[0].seq).Offset < d.Seq { // given up
			l.aside(run[:1], lost)
			run = run[1:]
		}
		if len(run) == 0 {
			break
		}
		if size := len(d.Payload); limited && !first && size > left {
			return -1
		} else if limited {
			left -= size
		}
		first = false
		run[0].queued = d.Queued
		l.found = append(l.found, loaded{read: i})
		run = run[1:]
	}
	if limited && left == 0 {
		return -1
	}
	return left
}

// unreadable says why the first of a run cannot be read, and of those behind it
// what is plain as well.
func (l *loader) unreadable(run []pick, err error) {
	out, cut := errors.AsType[*broker.RangeError](err)
	switch {
	case cut:
		n := 1
		for n < len(run) && ref.Offset(run[n].seq).Offset < out.First {
			n++
		}
		l.aside(run[:n], lost)
	case err == nil || errors.Is(err, broker.ErrGone):
		l.aside(run[:1], lost)
	default:
		l.found = append(l.found, loaded{err: err})
	}
}

func (l *loader) aside(picks []pick, f fate) {
	for i := range picks {
		picks[i].fate = f
		l.found = append(l.found, loaded{err: errAside})
	}
}

// setAside undoes the lease of a message that is not delivered after all.
func (q *queue) setAside(c *chunk, i int, p *pick) {
	if p.fate == unread {
		return
	}
	e := &c.entries[i]
	s := q.slotOf(c, i)
	if s.attempt--; s.attempt == 0 {
		e.meta &^= metaHanded
	}
	switch p.fate {
	case surplus:
		q.putBack(c, i)
	case early:
		s.until = p.until
		q.set(e, delayed)
		q.delayed.push(&q.slots, e.slot-1, uint64(s.until), 0)
	case expired:
		q.discard(c, i, broker.ReasonExpired)
	case lost:
		q.discard(c, i, broker.ReasonRetention)
	default:
	}
}

// checkOffsets looks at what names messages of a subscription by offset.
func (u *unit) checkOffsets(op *broker.Op, pl *plan) error {
	q, err := u.queueOf(pl, op.Ref.Target)
	if err != nil {
		return err
	}
	if q.source == nil {
		return broker.ErrNotFound
	}
	u.lock(q)
	for _, o := range op.Offsets {
		p := q.source.st.partition(o.Partition)
		if p == nil {
			return broker.ErrNotFound
		}
		if _, shown := p.limits(); o.Offset > shown || o.Offset == shown && op.Kind != broker.OpSeek {
			return broker.ErrNotFound
		}
		if op.Kind != broker.OpSettleAt {
			continue
		}
		if ln := q.source.lane(o.Partition); o.Offset >= ln.next {
			if o.Offset-ln.next >= ref.Reach {
				return broker.ErrNotFound
			}
			q.reach(o)
		}
		op.Ref.Seq = ref.Sequence(o)
		if c, i := q.find(op.Ref.Seq); c == nil || c.entries[i].state() == gone {
			return broker.ErrGone
		}
	}
	if !q.volatile {
		u.records++
	}
	return nil
}

// moveTo settles up to an offset, or seeks.
func (u *unit) moveTo(op *broker.Op, q *queue) {
	if op.Kind == broker.OpSettleUpTo {
		o := op.Offsets[0]
		if !q.volatile {
			b := fields.AppendUints(u.record(recUpTo), uint64(q.id), uint64(o.Partition), o.Offset)
			u.end(append(b, byte(op.Reason)))
		}
		u.res.Count += q.settleUpTo(o, op.Reason)
	} else {
		if !q.volatile {
			b := fields.AppendUints(u.record(recSeek), uint64(q.id))
			for _, o := range op.Offsets {
				b = fields.AppendUints(b, uint64(o.Partition), o.Offset)
			}
			u.end(b)
		}
		for _, o := range op.Offsets {
			q.seek(o)
		}
	}
	u.changed(q)
}

// replayUpTo settles what a record says.
func (s *Store) replayUpTo(f *fields.Reader) {
	q := s.replayedQueue(f)
	o := offsetIn(f, q)
	why := broker.Reason(f.Byte())
	if why >= broker.Reasons {
		f.Bad = true
	}
	if !f.Bad && q != nil {
		q.settleUpTo(o, why)
	}
}

// offsetIn reads an offset in the stream of q, which must be a subscription; nil
// if it is not there any more.
func offsetIn(f *fields.Reader, q *queue) broker.Offset {
	o := broker.Offset{Partition: uint32(f.Uint()), Offset: f.Uint()}
	if q != nil && (q.source == nil || q.source.st.partition(o.Partition) == nil) || o.Offset >= ref.MaxOffset {
		f.Bad = true
	}
	return o
}

// replaySeek moves a subscription.
func (s *Store) replaySeek(f *fields.Reader) {
	q := s.replayedQueue(f)
	for len(f.Rest) > 0 && !f.Bad {
		o := offsetIn(f, q)
		if !f.Bad && q != nil {
			q.seek(o)
		}
	}
}

// browseSource is browse of a subscription: partition by partition, and in each
// what was handed out before what was not.
func (q *queue) browseSource(pos broker.Pos, limit int) (picks []pick, states []broker.EntryState, whys []broker.Reason) {
	q.mu.Lock()
	defer q.mu.Unlock()
	skip := uint64(pos.Skip)
	for _, p := range q.source.st.partitions() {
		ln := q.source.lane(p.number)
		for _, c := range ln.chunks.list {
			for i := range c.entries {
				st := shownState(c.entries[i].state())
				switch {
				case st&pos.States == 0:
				case skip > 0:
					skip--
				case len(picks) < limit:
					k, why := q.look(c, i)
					picks, states, whys = append(picks, k), append(states, st), append(whys, why)
				}
			}
		}
		if pos.States&broker.Ready == 0 {
			continue
		}
		first, shown := p.limits()
		next := max(ln.next, first)
		passed := min(skip, shown-min(next, shown))
		skip -= passed
		for o := next + passed; o < shown && len(picks) < limit; o++ {
			k := pick{seq: ref.Sequence(broker.Offset{Partition: p.number, Offset: o})}
			k.epoch = q.era(k.seq)
			picks, states, whys = append(picks, k), append(states, broker.Ready), append(whys, broker.ReasonNone)
		}
	}
	return picks, states, whys
}

// countBacklog adds what only a subscription counts. The lock is held.
func (q *queue) countBacklog(in *broker.Info) {
	n := q.backlog()
	in.Ready += int64(n)
	in.In += n
	in.Partitions = q.bounds()
	if at := q.source.oldest(in.Partitions); at != 0 {
		in.Oldest = broker.Time(at)
	}
}
