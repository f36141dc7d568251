package journal

import (
	"runtime"
	"sync/atomic"
	"time"
)

const (
	relaxedBytes = 16 << 20 // Relaxed: unsynced bytes that do not wait for SyncEvery

	// The gather window yields the processor while it is shorter than this, and
	// sleeps when it is longer: the runtime's timers are no finer. The number of
	// yields is limited as well, for clocks that stand still.
	gatherSleep  = 500 * time.Microsecond
	gatherYields = 4096
)

// batch is what one turn of the flusher commits.
type batch struct {
	pieces   []piece
	waiters  []Completion
	waiting  int
	bytes    int64
	sync     bool // somebody waits for fdatasync
	mustSync bool // even in relaxed mode
	err      error
}

// piece is the part of a window that was published and not yet written.
type piece struct {
	w        *window
	from, to int
}

// flusher is what only its goroutine touches, but for the guarded part.
type flusher struct {
	vector   [][]byte
	page     [pageSize]byte // zero-padded copy of the last partial page
	expected int            // waiters at which gathering ends
	pending  int64          // relaxed: bytes since soon was poked

	// Guarded by Journal.mu.
	file    *segment // the one written last
	written Position // where the written records end
}

// flush is the flusher: it commits all that was published, again and again.
func (j *Journal) flush() {
	defer close(j.done)
	for {
		b := j.take()
		if b == nil {
			return
		}
		if b.err = j.poisoned(); b.err == nil {
			if b.err = j.commit(b); b.err != nil {
				j.fail(b.err)
				b.err = j.poisoned()
			}
		}
		j.expect(b.waiting)
		j.done <- b
	}
}

// take waits for work, gathers, and returns all that is there; nil at the end.
func (j *Journal) take() *batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.dirty) == 0 && len(j.waiters) == 0 {
		if j.shut {
			return nil
		}
		j.asleep = true
		j.work.Wait()
		j.asleep = false
	}
	j.gather()
	b := j.newBatch()
	b.waiters, j.waiters = j.waiters, b.waiters[:0]
	b.waiting, j.waiting = j.waiting, 0
	b.sync, j.wantSync = j.wantSync, false
	b.mustSync, j.mustSync = j.mustSync, false
	for i, w := range j.dirty {
		from, to := int(w.written.Load()), int(w.filled.Load())
		b.pieces = append(b.pieces, piece{w, from, to})
		b.bytes += int64(to - from)
		w.dirty = false
		j.dirty[i] = nil
	}
	j.dirty = j.dirty[:0]
	return b
}

func (j *Journal) newBatch() *batch {
	select {
	case b := <-j.spare:
		b.pieces, b.bytes, b.err = b.pieces[:0], 0, nil
		return b
	default:
		return new(batch)
	}
}

// expect says how many waiters the next group should have: those who came while
// this one was committed, and 90 % of those whom it answers. A group of one
// waiter is followed by whatever is there.
func (j *Journal) expect(answered int) {
	j.flusher.expected = 0
	if answered > 1 {
		j.mu.Lock()
		j.flusher.expected = j.waiting + (answered*9+9)/10
		j.mu.Unlock()
	}
}

// gather lets those whom the last group answered come back, for at most 10 % of
// what a sync takes. Without it waiting appenders end up in two half groups that
// alternate. mu is held, and released meanwhile.
func (j *Journal) gather() {
	want := j.flusher.expected
	limit := time.Duration(j.stats.meanSync.Load() / 10)
	if j.waiting >= want || limit <= 0 || j.shut {
		return
	}
	j.gatherAt = want
	j.mu.Unlock()
	if limit >= gatherSleep {
		t := time.NewTimer(limit)
		select {
		case <-j.gathered:
		case <-t.C:
		}
		t.Stop()
	} else {
		j.yield(limit)
	}
	j.mu.Lock()
	j.gatherAt = 0
	select {
	case <-j.gathered:
	default:
	}
}

func (j *Journal) yield(limit time.Duration) {
	begin := time.Now()
	for range gatherYields {
		select {
		case <-j.gathered:
			return
		default:
		}
		if time.Since(begin) >= limit {
			return
		}
		runtime.Gosched()
	}
}

// commit writes the batch, and syncs if somebody waits for that.
func (j *Journal) commit(b *batch) error {
	if err := j.write(b); err != nil {
		return err
	}
	if j.o.Relaxed && !b.mustSync {
		if b.bytes > 0 {
			j.flusher.pending += b.bytes
			poke(j.unsynced)
			if j.flusher.pending >= relaxedBytes {
				j.flusher.pending = 0
				poke(j.soon)
			}
		}
		return nil
	}
	if !b.sync && !b.mustSync {
		return nil
	}
	return j.sync(j.flusher.file, j.flusher.written)
}

// write hands the pieces to the system in whole pages, one call per segment.
// The data of a segment is durable before anything of the next one is written,
// so that the existence of the next one proves it complete.
func (j *Journal) write(b *batch) error {
	for i := 0; i < len(b.pieces); {
		seg := b.pieces[i].w.seg
		n := i + 1
		for n < len(b.pieces) && b.pieces[n].w.seg == seg {
			n++
		}
		if err := j.writeSegment(seg, b.pieces[i:n]); err != nil {
			return err
		}
		i = n
	}
	if b.bytes > 0 {
		j.mu.Lock()
		j.unwritten.Add(-b.bytes)
		j.room.Broadcast()
		j.mu.Unlock()
		j.trim()
	}
	return nil
}

// writeSegment writes pieces of one segment, which lie in consecutive pages: a
// window begins with the page on which the one before it ended.
func (j *Journal) writeSegment(seg *segment, pieces []piece) error {
	f := &j.flusher
	v := f.vector[:0]
	off := int64(pieces[0].w.start) + int64(pieces[0].from&^(pageSize-1))
	if old := f.file; old != seg {
		if old != nil {
			if err := j.sync(old, f.written); err != nil {
				return err
			}
			j.unref(old)
			if j.o.Sealed != nil {
				j.o.Sealed(old.number)
			}
		}
		off = 0
		v = append(v, seg.header())
	}
	for i, p := range pieces {
		from, to := p.from&^(pageSize-1), p.to&^(pageSize-1)
		if from < to {
			v = append(v, p.w.buf[from:to])
		}
		if to < p.to && i == len(pieces)-1 {
			n := copy(f.page[:], p.w.buf[to:p.to])
			clear(f.page[n:])
			v = append(v, f.page[:])
		}
	}
	err := seg.file.WriteAt(off, v...)
	bytes := 0
	for i := range v {
		bytes += len(v[i])
		v[i] = nil
	}
	f.vector = v
	if err != nil {
		return err
	}
	j.stats.writes.Add(1)
	j.stats.bytes.Add(uint64(bytes))
	last := pieces[len(pieces)-1]
	j.mu.Lock()
	f.file, f.written = seg, position(seg.number, last.w.start+uint32(last.to))
	j.mu.Unlock()
	for _, p := range pieces {
		p.w.written.Store(int64(p.to))
	}
	return nil
}

// sync makes what was written up to end durable; everything before seg is.
func (j *Journal) sync(seg *segment, end Position) error {
	if end <= Position(j.durable.Load()) {
		return nil
	}
	begin := time.Now()
	if err := seg.file.SyncData(); err != nil {
		return err
	}
	took := int64(time.Since(begin))
	j.stats.syncs.Add(1)
	if j.o.Synced != nil {
		j.o.Synced(time.Duration(took))
	}
	if mean := j.stats.meanSync.Load(); mean == 0 {
		j.stats.meanSync.Store(took)
	} else {
		j.stats.meanSync.Store(mean + (took-mean)/8)
	}
	raise(&j.durable, uint64(end))
	poke(j.mark.wake)
	return nil
}

func raise(v *atomic.Uint64, to uint64) {
	for old := v.Load(); old < to; old = v.Load() {
		if v.CompareAndSwap(old, to) {
			return
		}
	}
}

// complete is the completer. Once the journal is poisoned nobody hears a
// positive answer, not even to what was durable before.
func (j *Journal) complete() {
	for b := range j.done {
		for i, c := range b.waiters {
			err := b.err
			if err == nil {
				err = j.poisoned()
			}
			c.Done(err)
			b.waiters[i] = nil
		}
		clear(b.pieces) // a spare batch keeps no window alive
		select {
		case j.spare <- b:
		default:
		}
	}
}

// syncEvery is the syncer of relaxed mode: some time after a write, or much
// written, it syncs beside the flusher.
func (j *Journal) syncEvery() {
	t := time.NewTimer(time.Hour)
	t.Stop() // until it is wanted
	for {
		select {
		case <-j.quit:
			return
		case <-j.unsynced:
		}
		t.Reset(j.o.SyncEvery)
		select {
		case <-j.quit:
			return // Close syncs
		case <-t.C:
		case <-j.soon:
			t.Stop()
		}
		j.mu.Lock()
		seg, end := j.flusher.file, j.flusher.written
		if seg != nil {
			j.ref(seg)
		}
		j.mu.Unlock()
		if seg == nil {
			continue
		}
		err := j.sync(seg, end)
		j.unref(seg)
		if err != nil {
			j.fail(err)
			return
		}
	}
}
