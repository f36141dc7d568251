package local

import (
	"errors"
	"slices"
	"sync"
	"time"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/journal"
)

// readStream is Store.Read of a stream.
func (s *Store) readStream(st *stream, pos broker.Pos, limit int, dst []broker.Delivery) ([]broker.Delivery, error) {
	p := st.partition(pos.Partition)
	if p == nil {
		return dst, broker.ErrNotFound
	}
	from, since, unlock, err := p.begin(&pos, p.mu.RLocker())
	if err == nil && since != 0 {
		from = p.since(since)
	}
	unlock()
	if err != nil {
		return dst, err
	}
	dst, _, err = p.readFrom(from, want{limit: limit}, pos.Begin || pos.End || !pos.Time.IsZero(), dst)
	return dst, err
}

// readFrom is read for a position that was an offset, or loose: no offset was
// asked for, and what is cut off meanwhile is passed over.
func (p *partition) readFrom(from uint64, w want, loose bool, dst []broker.Delivery) ([]broker.Delivery, uint64, error) {
	n := len(dst)
	for {
		list, next, err := p.read(from, w, dst)
		if len(list) > n {
			return list, next, nil // an error is told when the rest is asked for
		}
		out, ok := errors.AsType[*broker.RangeError](err)
		if !ok || !loose {
			return list, next, err
		}
		from = out.First
	}
}

// begin is resolve with the lock taken, which the caller gives back. A time
// that lies in a file is looked for before.
func (p *partition) begin(pos *broker.Pos, lock sync.Locker) (from uint64, since int64, unlock func(), err error) {
	for {
		var cold uint64
		found := false
		timed := !pos.Begin && !pos.End && !pos.Time.IsZero()
		if timed {
			cold, found, err = p.sinceFiles(pos.Time.UnixMilli())
		}
		lock.Lock()
		switch {
		case err != nil:
			return 0, 0, lock.Unlock, err
		case found:
			return max(cold, p.first), 0, lock.Unlock, nil
		case timed && len(p.files) > 0 && p.copiedLast >= pos.Time.UnixMilli():
			lock.Unlock() // it was copied meanwhile
			continue
		}
		from, since, err = p.resolve(pos)
		return from, since, lock.Unlock, err
	}
}

// resolve returns the offset where pos begins, and before what time nothing is
// wanted. The lock is held.
func (p *partition) resolve(pos *broker.Pos) (from uint64, since int64, err error) {
	switch {
	case pos.End:
		return p.shown, 0, nil
	case pos.Begin:
		return p.first, 0, nil
	case !pos.Time.IsZero():
		return p.first, max(pos.Time.UnixMilli(), 1), nil
	case pos.Seq < p.first:
		return 0, 0, p.outOfRange()
	}
	return pos.Seq, 0, nil
}

func (p *partition) outOfRange() error { return &broker.RangeError{First: p.first, Next: p.shown} }

// found is what the index knows of messages that are to be read.
type found struct {
	entries []entryAt
	spots   []journal.Spot
}

// entryAt is one message that is to be read.
type entryAt struct {
	offset uint64
	time   int64
	body   []byte
}

var founds = sync.Pool{New: func() any { return new(found) }}

// errCopied says that what is looked for went to a file just now.
var errCopied = errors.New("copied out of the journal")

// look notes up to limit messages from offset from on, of together no more than
// maxBytes, but with one set one in any case.
func (p *partition) look(from uint64, limit, maxBytes int, one bool, f *found) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.dropped {
		return broker.ErrGone
	}
	if from < p.first {
		return p.outOfRange()
	}
	if from < p.copied && len(p.files) > 0 {
		return errCopied
	}
	var scratch [recordsMax]record
	total := 0
	for i := p.index(from); i < len(p.chunks); i++ {
		c := p.chunks[i]
		list := c.records(scratch[:])
		at := 0
		if from > c.base {
			at = int(from - c.base)
		}
		for ; at < len(list); at++ {
			r := &list[at]
			o := c.base + uint64(at)
			total += int(r.size)
			if o >= p.shown || len(f.entries) >= limit || maxBytes > 0 && total > maxBytes && (!one || len(f.entries) > 0) {
				return nil
			}
			e := entryAt{offset: o, time: c.time + int64(r.time)}
			if c.bodies != nil {
				e.body = c.bodies[at]
			}
			f.entries = append(f.entries, e)
			f.spots = append(f.spots, journal.Spot{Pos: journal.Position(r.pos), Size: r.size})
		}
	}
	return nil
}

// readAtOnce is how many messages are looked up at once.
const readAtOnce = 4096

// want is what a reader takes of a partition.
type want struct {
	limit    int            // messages
	maxBytes int            // of them, but one message at least; 0 = no limit
	mem      *broker.Buffer // where they are read into
}

// read appends what is wanted from offset from on to dst, and returns where it
// goes on.
func (p *partition) read(from uint64, w want, dst []broker.Delivery) ([]broker.Delivery, uint64, error) {
	f := founds.Get().(*found)
	defer func() {
		clear(f.entries)
		f.entries, f.spots = f.entries[:0], f.spots[:0]
		founds.Put(f)
	}()
	start := len(dst)
	var lost journal.Position
	for w.limit > 0 {
		n := len(dst)
		at, more, err := p.readCold(from, w, &dst)
		if err != nil {
			return dst, at, err
		}
		if from = at; more {
			w.limit -= len(dst) - n
			continue
		}
		if len(dst) > n || w.limit <= 0 {
			break
		}
		f.entries, f.spots = f.entries[:0], f.spots[:0]
		if err := p.look(from, min(w.limit, readAtOnce), w.maxBytes, len(dst) == start, f); errors.Is(err, errCopied) {
			continue
		} else if err != nil {
			return dst, from, err
		}
		if len(f.entries) == 0 {
			break
		}
		dst, err = p.load(f, w.mem, dst)
		got := len(dst) - n
		if got > 0 {
			from = dst[len(dst)-1].Seq + 1
		}
		if err != nil {
			if errors.Is(err, journal.ErrNoSegment) && f.spots[got].Pos != lost {
				lost = f.spots[got].Pos // it was copied out meanwhile, and its segment is gone
			} else {
				return dst, from, err
			}
		}
		w.limit -= got
		if w.maxBytes > 0 {
			for i := range f.spots[:got] {
				w.maxBytes -= int(f.spots[i].Size)
			}
			if w.maxBytes <= 0 {
				break
			}
		}
	}
	return dst, from, nil
}

// load appends what was found.
func (p *partition) load(f *found, mem *broker.Buffer, dst []broker.Delivery) ([]broker.Delivery, error) {
	dst = slices.Grow(dst, len(f.entries))
	add := func(i int, body []byte) error {
		e := &f.entries[i]
		dst = append(dst, broker.Delivery{})
		d := &dst[len(dst)-1]
		d.Ref = broker.Ref{Target: p.st.id, Seq: e.offset, Epoch: p.st.s.epoch}
		d.Queued, d.Partition = e.time, p.number
		if err := broker.DecodeMessage(body, &d.Message); err != nil {
			dst = dst[:len(dst)-1]
			return err
		}
		return nil
	}
	if p.st.volatile {
		for i := range f.entries {
			if err := add(i, f.entries[i].body); err != nil {
				return dst, err
			}
		}
		return dst, nil
	}
	err := p.st.s.journal.ReadEach(f.spots, mem.Take, func(i int, typ byte, body []byte) error {
		body, err := messageIn(typ, body)
		if err != nil {
			return err
		}
		return add(i, body)
	})
	return dst, err
}

// messageIn returns the message in a record.
func messageIn(typ byte, body []byte) ([]byte, error) {
	m, _, err := messageFor(typ, body, 0)
	return m, err
}

// messageFor is messageIn with the tag of the route to a target.
func messageFor(typ byte, body []byte, to broker.Target) (message []byte, tag uint32, err error) {
	f := fields.Reader{Rest: body}
	switch typ {
	case recMessage:
	case recMove:
		f.Uint()
	default:
		return nil, 0, errRecord
	}
	f.Uint()
	for n := f.Uint(); n > 0 && !f.Bad; n-- {
		id, t := broker.Target(f.Uint()), uint32(f.Uint())
		f.Uint()
		if id == to {
			tag = t
		}
	}
	if f.Bad {
		return nil, 0, errRecord
	}
	return f.Rest, tag, nil
}

// registerRead serves wt now, or lets it wait for its partition.
func (s *Store) registerRead(wt *waiter, st *stream, l *waitQueue) error {
	w := wt.w
	p := st.partition(w.From.Partition)
	if p == nil {
		return broker.ErrNotFound
	}
	wt.q.Store(nil)
	wt.p.Store(p)
	now := s.Now()
	wt.loose = w.From.Begin || w.From.End || !w.From.Time.IsZero()
	from, since, unlock, err := p.begin(&w.From, &p.mu)
	defer unlock()
	wt.from, wt.since = from, since
	switch {
	case p.dropped:
		return broker.ErrGone
	case s.ended.Load():
		return s.closed()
	case err != nil:
		w.Bounds = p.bounds()
		return err
	}
	if p.reaches(wt) || !w.Until.After(now) {
		l.push(wt)
		return nil
	}
	wt.until = w.Until.Add(time.Millisecond - 1).UnixMilli() // never before its time
	p.waits.add(wt, &p.waits.waitLine)
	p.schedule()
	return nil
}

// reaches reports whether there is something for wt. The lock is held.
func (p *partition) reaches(wt *waiter) bool {
	if wt.since != 0 {
		at := p.since(wt.since)
		if wt.from = max(wt.from, at); at < p.shown {
			wt.since = 0
		}
	}
	return wt.from < p.shown
}

// serve collects the waits that what was committed reaches in l, and has the
// timers look if the stream is too large.
func (p *partition) serve(l *waitQueue) {
	p.mu.Lock()
	for wt := p.waits.first; wt != nil; {
		next := wt.next
		if p.reaches(wt) {
			p.waits.remove(wt)
			l.push(wt)
		}
		wt = next
	}
	p.mu.Unlock()
	if limit := p.st.maxBytes.Load(); limit > 0 && p.st.bytes.Load() > limit && p.st.s.bound.Load() {
		p.st.s.timers.set(p, 1)
	}
}

// fillRead reads what wt waited for.
func (s *Store) fillRead(wt *waiter, p *partition) {
	w := wt.w
	if w.Err != nil {
		return
	}
	next := wt.from
	w.Buffer.Reset()
	if wt.since == 0 {
		w.Got, next, w.Err = p.readFrom(wt.from, want{max(w.Max, 1), w.MaxBytes, w.Buffer}, wt.loose, w.Got)
	}
	w.From = broker.Pos{Partition: p.number, Seq: next}
	p.mu.RLock()
	w.Bounds = p.bounds()
	p.mu.RUnlock()
}

// cancel withdraws a wait.
func (p *partition) cancel(wt *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !wt.listed {
		return false
	}
	p.waits.remove(wt)
	wt.phase.Store(atRest)
	return true
}

// endReads answers the waits of a stream.
func (s *Store) endReads(st *stream, err error) {
	var l waitQueue
	for _, p := range st.partitions() {
		p.mu.Lock()
		for wt := p.waits.first; wt != nil; wt = p.waits.first {
			p.waits.remove(wt)
			wt.w.Err = err
			l.push(wt)
		}
		p.mu.Unlock()
	}
	s.handOut(&l)
}
