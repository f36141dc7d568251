package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"millrace/broker"
	"millrace/persistence/ref"
)

// What the bucket subs holds of a subscription, so that nothing which was answered
// as settled comes again:
//
//	ID       head     format u8, n, n × out, then for each lane: moves u8, mark
//	ID/P/W   window   format u8, moves u8, n, n × out, upto, then runs of pending messages:
//	                  gap, how many, state u8, reason u8, attempt, until
//
// Numbers are varints. Before its mark a lane is settled. A window is windowSize
// offsets of partition P; of those before upto what is not in a run is settled, and
// those from upto on were not taken yet. One that has no record, or one of before
// the last seek, was not taken either: a record that is missing makes messages come
// again, and never loses one. The counters are those of the record that is newest.
//
// A settlement writes its window, once for all that came meanwhile; a cumulative one
// and a seek write the head. Leases are in the records that are written anyway.
const (
	windowSize   = 4096
	recordFormat = 1
)

// records is what a subscription writes.
type records struct {
	line    []change // for the next writing
	writing bool
	ended   bool                   // nothing is written any more
	head    bool                   // the head has to be written
	booked  [broker.Reasons]uint64 // in the newest head
	durable []uint64               // marks in the head, by lane
	doubt   map[string][]byte      // keys whose last write may have happened, and what that was
}

// change is something to be recorded, and who waits for it.
type change struct {
	move func(*head)
	done func(error) // not under the lock
}

// head is the value of the key that a subscription always has.
type head struct {
	out   [broker.Reasons]uint64
	lanes []headLane
}

type headLane struct {
	moves uint8
	mark  uint64
}

// move settles everything before an offset, and with it, or seeks.
func (h *head) move(o broker.Offset, seek bool) {
	switch ln := &h.lanes[o.Partition]; {
	case seek:
		ln.moves++
		ln.mark = o.Offset
	default:
		ln.mark = max(ln.mark, o.Offset+1)
	}
}

// touch notes that what is known at an offset has changed, and whether it must be
// written.
func (ln *lane) touch(offset uint64, must bool) {
	w := offset / windowSize
	ln.changed[w] = ln.changed[w] || must
}

// mark is the offset before which all is settled.
func (ln *lane) mark() (mark uint64) {
	mark = ln.next
	ln.open.Scan(func(o uint64, e *pending) bool {
		if e.state != leaving {
			mark = o
		}
		return e.state == leaving
	})
	return mark
}

func (b *subscription) headKey() string { return fmt.Sprintf("%d", b.id) }
func (b *subscription) windowKey(ln *lane, w uint64) string {
	return fmt.Sprintf("%d/%d/%d", b.id, ln.p.number, w)
}

// record has a change written, with all others that come until then. What it
// returns is to be called without the lock.
func (b *subscription) record(c change) func() {
	b.line = append(b.line, c)
	if b.writing {
		return func() {}
	}
	return b.write()
}

// writing is a group of keys that are written at once.
type writing struct {
	b     *subscription
	line  []change
	puts  []*put
	then  []func() // after all of them succeeded, under the lock
	undo  []func() // after one did not
	left  atomic.Int32
	mu    sync.Mutex
	err   error
	tried map[string][]byte // those whose outcome is unknown
}

// write writes what has to be written.
func (b *subscription) write() func() {
	w := &writing{b: b, line: b.line, tried: map[string][]byte{}}
	b.line, b.writing = nil, true
	if b.ended {
		w.err = broker.ErrGone
		return func() { w.start(nil) }
	}
	h := head{out: b.out}
	for n := range uint32(b.of.width()) {
		ln := b.lane(n)
		h.lanes = append(h.lanes, headLane{ln.moves, ln.mark()})
	}
	for len(b.durable) < len(h.lanes) {
		b.durable = append(b.durable, 0)
	}
	needed := b.head
	for _, c := range w.line {
		if c.move != nil {
			c.move(&h)
			needed = true
		}
	}
	for n, ln := range b.lanes {
		needed = needed || h.lanes[n].mark/windowSize > b.durable[n]/windowSize
		w.windows(ln, &h.lanes[n])
	}
	if needed {
		w.top(&h)
	}
	doubt := b.doubt
	b.doubt = nil
	if len(doubt) > 0 {
		return func() { go w.start(doubt) }
	}
	return func() { w.start(nil) }
}

// windows adds the windows of a lane that have to be written, and takes away the
// records of those that are over.
func (w *writing) windows(ln *lane, at *headLane) {
	b := w.b
	now := map[uint64]bool{}
	for n, must := range ln.changed {
		over := (n+1)*windowSize <= at.mark // then the mark says it all
		if !over && !must {
			continue
		}
		delete(ln.changed, n)
		if must {
			w.undo = append(w.undo, func() { ln.touch(n*windowSize, true) })
		}
		if !over {
			now[n] = true
			moves := ln.moves
			w.put(b.windowKey(ln, n), b.window(ln, n))
			w.then = append(w.then, func() { ln.written[n] = moves })
		}
	}
	for n, moves := range ln.written {
		if now[n] || moves == ln.moves && (n+1)*windowSize > b.durable[ln.p.number] {
			continue
		}
		w.put(b.windowKey(ln, n), nil)
		w.then = append(w.then, func() { delete(ln.written, n) })
	}
}

// top adds the head.
func (w *writing) top(h *head) {
	b := w.b
	b.head = false
	w.put(b.headKey(), h.append())
	w.then = append(w.then, func() {
		b.booked = h.out
		for n := range h.lanes {
			b.durable[n] = h.lanes[n].mark
		}
	})
	w.undo = append(w.undo, func() { b.head = true })
}

func (w *writing) put(key string, value []byte) {
	p := &put{key: key, value: value}
	p.done = func(_ uint64, err error) { w.answered(p, err) }
	w.puts = append(w.puts, p)
}

// start sends the puts, after it is known what became of those in doubt. The
// revisions that they expect make another node that writes here known.
func (w *writing) start(doubt map[string][]byte) {
	keys := w.b.s.subs
	w.left.Store(int32(len(w.puts)) + 1)
	for key, value := range doubt {
		if err := keys.resolve(w.b.s.ctx, key, value); err != nil {
			w.tried[key] = value
			w.fail(err)
		}
	}
	if w.err != nil { // nothing is under way yet
		w.left.Store(1)
		w.puts = nil
	}
	for _, p := range w.puts {
		p.rev = broker.RevNone
		if e, ok := keys.get(p.key); ok {
			p.rev = e.Rev
		}
		keys.start(p)
	}
	w.over()
}

// fail keeps the first error.
func (w *writing) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

// answered takes the outcome of a put.
func (w *writing) answered(p *put, err error) {
	if errors.Is(err, broker.ErrConflict) { // our own, sent again to a new leader, or another node's
		go func() { w.ended(p, w.b.s.subs.landed(w.b.s.ctx, p)) }()
		return
	}
	w.ended(p, err)
}

// ended takes the outcome of a put that is known, as far as it can be.
func (w *writing) ended(p *put, err error) {
	if err != nil {
		w.fail(err)
		w.mu.Lock()
		w.tried[p.key] = p.value
		w.mu.Unlock()
	}
	w.over()
}

// over takes one answer. The last one answers who waits, and goes on with what came
// meanwhile.
func (w *writing) over() {
	if w.left.Add(-1) > 0 {
		return
	}
	b := w.b
	b.mu.Lock()
	follow := w.then
	if w.err != nil {
		follow, b.doubt = w.undo, w.tried
	}
	for _, f := range follow {
		f()
	}
	b.mu.Unlock()
	for _, c := range w.line {
		c.done(w.err)
	}
	after := func() {}
	b.mu.Lock()
	if b.writing = false; len(b.line) > 0 {
		after = b.write()
	}
	b.mu.Unlock()
	after()
}

// save writes everything that is known.
func (b *subscription) save(ctx context.Context) error {
	if b.s.failed.Load() != nil {
		return nil
	}
	b.mu.Lock()
	same := b.out == b.booked
	for _, ln := range b.lanes {
		for n := range ln.changed {
			ln.changed[n] = true
			same = false
		}
	}
	if same {
		b.mu.Unlock()
		return nil
	}
	b.head = true
	end := make(chan error, 1)
	after := b.record(change{done: func(err error) { end <- err }})
	b.mu.Unlock()
	after()
	select {
	case err := <-end:
		return err
	case <-ctx.Done():
		return fmt.Errorf("writing where subscription %q stands: %w", b.def.Name, ctx.Err())
	}
}

// forget removes the record of a subscription that is dropped, behind what is being
// written.
func (b *subscription) forget(ctx context.Context) error {
	last := make(chan struct{})
	b.mu.Lock()
	b.ended = true
	after := b.record(change{done: func(error) { close(last) }})
	b.mu.Unlock()
	after()
	select {
	case <-last:
	case <-ctx.Done():
		return fmt.Errorf("dropping subscription %q: %w", b.def.Name, ctx.Err())
	}
	for _, e := range append(b.s.subs.list(b.headKey()+"/"), broker.Entry{Key: b.headKey()}) {
		if _, err := b.s.subs.set(ctx, e.Key, nil, 0); err != nil {
			return err
		}
	}
	return nil
}

// restore reads what was written.
func (b *subscription) restore() error {
	var newest uint64
	start := map[uint32]uint64{}
	for _, o := range b.def.Start {
		start[o.Partition] = o.Offset
	}
	var h head
	if e, ok := b.s.subs.get(b.headKey()); ok {
		if err := h.parse(e.Value); err != nil {
			return err
		}
		newest, b.out, b.booked = e.Rev, h.out, h.out
	}
	for n := range uint32(b.of.width()) {
		ln := b.lane(n)
		at := headLane{mark: start[n]}
		if int(n) < len(h.lanes) {
			at = h.lanes[n]
			_, end := ln.p.limits()
			at.mark = min(at.mark, end) // a stream that lost what it had begins anew
		}
		ln.moves, ln.next = at.moves, at.mark
		b.durable = append(b.durable, at.mark)
		rev, err := b.restoreLane(ln, at.mark, newest)
		if err != nil {
			return err
		}
		newest = rev
	}
	return nil
}

// restoreLane reads the windows of a lane. It returns the revision of the newest
// record, whose counters hold.
func (b *subscription) restoreLane(ln *lane, mark, newest uint64) (uint64, error) {
	windows := map[uint64]*window{}
	_, end := ln.p.limits()
	prefix := fmt.Sprintf("%s/%d/", b.headKey(), ln.p.number)
	for _, e := range b.s.subs.list(prefix) {
		n, err := strconv.ParseUint(e.Key[len(prefix):], 10, 64)
		if err != nil {
			return newest, fmt.Errorf("key %q: %w", e.Key, err)
		}
		x := &window{}
		if err := x.parse(e.Value); err != nil {
			return newest, err
		}
		ln.written[n] = x.moves
		if e.Rev > newest {
			newest, b.out = e.Rev, x.out
		}
		if x.moves == ln.moves {
			windows[n] = x
			ln.next = max(ln.next, min(n*windowSize+x.upto, end))
		}
	}
	for n := mark / windowSize; n*windowSize < ln.next; n++ {
		b.restoreWindow(ln, n, mark, windows[n])
	}
	return newest, nil
}

// restoreWindow has those messages of a window be pending that are not settled.
func (b *subscription) restoreWindow(ln *lane, n, mark uint64, x *window) {
	if x == nil {
		x = &window{} // not taken, as far as is known
	}
	add := func(offset uint64, e pending) {
		if offset < mark || offset >= ln.next {
			return
		}
		st := e.state
		e.seq, e.state = ref.Sequence(broker.Offset{Partition: ln.p.number, Offset: offset}), back
		ln.open.Set(offset, &e)
		b.enter(&e)
		b.set(&e, st, e.until)
	}
	for _, r := range x.runs {
		for i := range r.n {
			add(n*windowSize+r.from+i, r.pending)
		}
	}
	for offset := n*windowSize + x.upto; offset < min((n+1)*windowSize, ln.next); offset++ {
		add(offset, pending{})
	}
	delete(ln.changed, n) // it stands as it is written
}
