package local

import (
	"slices"
	"sync"
	"time"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/journal"
)

// outbox holds what the store does of its own accord until it is written:
// leases, discarded messages, and what waits that consume have taken. Those who
// fill it hold a queue's lock, or are the journal's own goroutines, and so must
// not wait for the append lock. Every Submit writes the notes first, so that
// they stand before whatever refers to them; else the writer goroutine does.
type outbox struct {
	mu     sync.Mutex
	notes  []note
	spare  []note
	takers waitQueue
	alert  bool          // the writer knows that there are notes
	kick   chan struct{} // holds one
}

// noteDelay is how long notes wait for a Submit to take them along.
const noteDelay = 5 * time.Millisecond

// note is one record to be, or part of one.
type note struct {
	target  broker.Target
	seq     uint64
	until   int64
	rank    int64
	attempt uint32
	kind    byte // kindLeased, or 0: discarded
	why     broker.Reason
}

// lease notes that a message was handed out.
func (o *outbox) lease(t broker.Target, seq uint64, attempt uint32, until, rank int64) {
	o.add(note{target: t, seq: seq, attempt: attempt, until: until, rank: rank, kind: kindLeased})
}

// settle notes that a message was discarded.
func (o *outbox) settle(t broker.Target, seq uint64, why broker.Reason) {
	o.add(note{target: t, seq: seq, why: why})
}

func (o *outbox) add(n note) {
	o.mu.Lock()
	o.notes = append(o.notes, n)
	first := !o.alert
	o.alert = true
	o.mu.Unlock()
	if first {
		o.wake()
	}
}

// consume has what wt took removed durably, and then delivered.
func (o *outbox) consume(wt *waiter) {
	o.mu.Lock()
	o.takers.push(wt)
	o.mu.Unlock()
	o.wake()
}

func (o *outbox) wake() {
	select {
	case o.kick <- struct{}{}:
	default:
	}
}

// pending reports what there is to write. Without anything the writer sleeps
// until it is woken.
func (o *outbox) pending() (notes, takers bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	notes, takers = len(o.notes) > 0, o.takers.head != nil
	o.alert = notes
	return notes, takers
}

// write is the writer goroutine.
func (s *Store) write() {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	var due <-chan time.Time // runs from the first note until there was none in its time
	for {
		write := false
		select {
		case <-s.stop:
			timer.Stop()
			return
		case <-s.box.kick:
			_, write = s.box.pending()
		case <-due:
			due = nil
			notes, takers := s.box.pending()
			if write = notes || takers; !write {
				continue
			}
		}
		if due == nil {
			timer.Reset(noteDelay)
			due = timer.C
		}
		if write {
			s.writeNow()
		}
	}
}

// writeNow writes all that is pending.
func (s *Store) writeNow() {
	if err := s.wal.Lock(); err != nil {
		s.failTakers(unavailable(err))
		return
	}
	s.flushNotes()
	s.writeTakers()
}

// flushNotes writes what is noted. The append lock is held.
func (s *Store) flushNotes() {
	if s.unstarted {
		s.writeStart()
	}
	o := &s.box
	o.mu.Lock()
	if len(o.notes) == 0 {
		o.mu.Unlock()
		return
	}
	notes := o.notes
	o.notes, o.spare = o.spare[:0], nil
	o.mu.Unlock()
	for rest := notes; len(rest) > 0; {
		n, ok := s.writeNotes(rest)
		if !ok {
			// Full or failed. A lease costs a redelivery after a crash, nothing more;
			// what was discarded must be told before its segment may go.
			o.owe(rest[:n])
		}
		rest = rest[n:]
	}
	o.mu.Lock()
	if o.spare == nil && cap(notes) <= 1<<16 {
		o.spare = notes[:0]
	}
	o.mu.Unlock()
}

// owe takes back the notes of discarded messages.
func (o *outbox) owe(list []note) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range list {
		if n.kind == 0 {
			o.notes = append(o.notes, n)
		}
	}
}

// owes reports whether a discarded message is not written.
func (o *outbox) owes() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.notes, func(n note) bool { return n.kind == 0 })
}

// notesAtOnce is how many notes share a record at most.
const notesAtOnce = 512

// writeNotes writes one record of the notes at the head of list that share a
// target and what happened. It returns how many those are, and whether there was
// room. Leases get none in the reserve, which is for what makes room.
func (s *Store) writeNotes(list []note) (n int, ok bool) {
	head := &list[0]
	n = 1
	for n < len(list) && n < notesAtOnce && list[n].target == head.target && list[n].kind == head.kind &&
		list[n].why == head.why && list[n].until == head.until {
		n++
	}
	if s.reserve(journal.RecordHeader+maxSmall+n*30, head.kind != 0) != nil {
		return n, false
	}
	var b []byte
	if head.kind == 0 {
		b = append(fields.AppendUints(s.wal.Start(recSettle), uint64(head.target)), byte(head.why))
		for i := 0; i < n; {
			run := 1
			for i+run < n && list[i+run].seq == list[i].seq+uint64(run) {
				run++
			}
			b = fields.AppendUints(b, list[i].seq, uint64(run))
			i += run
		}
	} else {
		b = append(fields.AppendUints(s.wal.Start(recState), uint64(head.target)), head.kind)
		b = fields.AppendUints(b, uint64(head.until))
		for i := range list[:n] {
			b = fields.AppendUints(b, list[i].seq, uint64(list[i].attempt), uint64(list[i].rank))
		}
	}
	s.wal.End(b, false)
	return n, true
}

// writeTakers settles what waits have consumed, and gives the append lock back.
func (s *Store) writeTakers() {
	o := &s.box
	o.mu.Lock()
	takers := o.takers
	o.takers = waitQueue{}
	o.mu.Unlock()
	if takers.head == nil {
		s.wal.Unlock(journal.Lazy, nil)
		return
	}
	tc := &taken{s: s}
	for wt := takers.pop(); wt != nil; wt = takers.pop() {
		if err := s.reserve(journal.RecordHeader+maxSmall+20*len(wt.w.Got), false); err != nil {
			wt.w.Got, wt.w.Err = wt.w.Got[:0], err
			tc.list.push(wt)
			continue
		}
		b := append(fields.AppendUints(s.wal.Start(recSettle), uint64(wt.w.Target)), byte(broker.ReasonAcked))
		for i := range wt.w.Got {
			b = fields.AppendUints(b, wt.w.Got[i].Seq, 1)
		}
		s.wal.End(b, false)
		for i := range wt.picks {
			if p := &wt.picks[i]; p.fate == deliver && p.pos != 0 {
				s.live.add(p.pos, -int64(p.size))
			}
		}
		tc.list.push(wt)
	}
	s.outstanding.Add(1)
	s.wal.Unlock(journal.Durable, tc)
}

// failTakers ends the waits whose messages cannot be removed any more.
func (s *Store) failTakers(err error) {
	s.box.mu.Lock()
	takers := s.box.takers
	s.box.takers = waitQueue{}
	s.box.mu.Unlock()
	(&taken{s: s, list: takers}).finish(err)
}

// taken is the completion of consuming waits.
type taken struct {
	s    *Store
	list waitQueue
}

// Done delivers what was removed.
func (t *taken) Done(err error) {
	if err != nil {
		err = unknown(err)
	}
	t.finish(err)
	t.s.completed()
}

func (t *taken) finish(err error) {
	for wt := t.list.pop(); wt != nil; wt = t.list.pop() {
		if err != nil {
			wt.w.Got, wt.w.Err = wt.w.Got[:0], err
		}
		var l waitQueue
		t.s.deliver(wt, &l)
		t.s.handOut(&l)
	}
}
