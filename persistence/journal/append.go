package journal

import "sync/atomic"

// maxSegmentSize keeps every offset, also one past the end, within 32 bits.
const maxSegmentSize = 1<<32 - 2*pageSize

// window is memory that mirrors a page-aligned stretch of a segment. Its first
// bytes may repeat the partial page on which the window before it ended.
type window struct {
	seg   *segment
	start uint32 // offset in the segment of buf[0]
	head  int    // where the records of this window begin
	buf   []byte

	filled  atomic.Int64 // published up to here
	written atomic.Int64 // handed to the system up to here
	dirty   bool         // in Journal.dirty; guarded by Journal.mu
}

// appender is the append position and what belongs to the holder of the lock.
type appender struct {
	seg   *segment // nil before the first append
	win   *window  // of seg
	limit int      // end of the usable part of win.buf
	off   int      // the next record starts here
	pub   int      // published up to here
	first int      // start of the current group

	reserved int      // end of the current reservation
	record   int      // start of the record between Start and End
	typ      byte     // and its type
	unended  bool     // a group has begun and not ended
	touched  bool     // something was appended since Lock
	asked    bool     // the segment after seg has been asked for
	synced   Position // what the last synced record said
	lastSeg  uint32   // the last segment with records before seg
	lastEnd  uint32
}

// Lock takes the append lock, after waiting while more than MaxPending bytes
// are unwritten. On an error, which is ErrClosed or what poisoned the journal,
// the lock is not held.
func (j *Journal) Lock() error {
	j.appendMu.Lock()
	if j.halted.Load() || j.unwritten.Load() > int64(j.o.MaxPending) {
		if err := j.waitForRoom(); err != nil {
			j.appendMu.Unlock()
			return err
		}
	}
	j.touched = false
	return nil
}

func (j *Journal) waitForRoom() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		if err := j.stopped(); err != nil {
			return err
		}
		if j.unwritten.Load() <= int64(j.o.MaxPending) {
			return nil
		}
		j.room.Wait()
	}
}

// stopped is why no more is accepted; mu is held.
func (j *Journal) stopped() error {
	if err := j.poisoned(); err != nil {
		return err
	}
	if j.closing {
		return ErrClosed
	}
	return nil
}

// Reserve makes room for one atomic group whose bodies, with one RecordHeader
// each, take n bytes at most. The group will lie in one segment and one window.
// It may wait for a segment to be prepared. On an error nothing has happened;
// ErrFull leaves the journal healthy.
func (j *Journal) Reserve(n int) error { return j.makeWay(n, false) }

// ReserveGrowth is Reserve for what takes room on the disk for good. On a full
// disk it is refused where only the reserve is left, which belongs to those who
// call Reserve.
func (j *Journal) ReserveGrowth(n int) error {
	if j.seg != nil && j.seg.reserve {
		if err := j.full(); err != nil {
			return err
		}
	}
	return j.makeWay(n, true)
}

func (j *Journal) makeWay(n int, grows bool) error {
	need := n
	durable := Position(j.durable.Load())
	mark := durable > j.synced
	if mark {
		need += syncedSize
	}
	if j.win == nil || j.off+need > j.limit {
		if mark && j.win != nil && !j.fits(need) && j.fits(n) {
			mark, need = false, n // the last records of a segment; the next one's header says more
		}
		if err := j.makeRoom(need, grows); err != nil {
			return err
		}
	}
	if mark {
		putSynced(j.seg.seed, j.win.buf[j.off:], durable)
		j.off += syncedSize
		j.synced = durable
	}
	j.first, j.reserved = j.off, j.off+n
	return nil
}

// Start begins a record of the reserved group. It returns an empty slice in the
// commit window with all the capacity that is left of the reservation; the
// caller appends the body to it and gives the result to End.
func (j *Journal) Start(typ byte) []byte {
	j.record, j.typ = j.off, typ
	at := j.off + RecordHeader
	return j.win.buf[at:at:max(at, j.reserved)]
}

// End finishes the record begun by Start, and with more false the group. The
// position and whole size are good at once, for Read once Unlock has returned.
func (j *Journal) End(body []byte, more bool) (Position, uint32) {
	size := RecordHeader + len(body)
	if j.record+size > j.reserved {
		panic("journal: record larger than its reservation")
	}
	rec := j.win.buf[j.record : j.record+size]
	if len(body) > 0 && &body[0] != &rec[RecordHeader] {
		panic("journal: record body is not where Start put it")
	}
	var flags byte
	if more {
		flags = flagMore
	}
	sealRecord(j.seg.seed, rec, j.typ, flags)
	pos := position(j.seg.number, j.win.start+uint32(j.record))
	j.off += size
	j.unended, j.touched = more, true
	if !more {
		j.first = j.off
	}
	return pos, uint32(size)
}

// Abandon drops the records of the group that Reserve began.
func (j *Journal) Abandon() {
	j.off, j.reserved, j.unended = j.first, j.first, false
}

// Unlock publishes what was appended and releases the lock. If c is not nil it
// is called exactly once, as l says, after the completions of all earlier calls;
// with nothing appended it costs no sync.
func (j *Journal) Unlock(l Level, c Completion) {
	if j.unended {
		panic("journal: unlocked inside a group")
	}
	j.mu.Lock()
	if j.win != nil && j.off > j.pub {
		j.publish()
	}
	if c != nil {
		j.waiters = append(j.waiters, c)
	}
	if l == Durable && j.touched {
		j.wantSync = true
		if c != nil {
			j.waiting++
		}
	}
	wake := j.asleep
	full := j.gatherAt > 0 && j.waiting >= j.gatherAt
	j.mu.Unlock()
	j.appendMu.Unlock()
	if wake {
		j.work.Signal()
	}
	if full {
		poke(j.gathered)
	}
}

// publish gives the flusher what was appended; both locks are held.
func (j *Journal) publish() {
	n := j.off - j.pub
	j.pub = j.off
	w := j.win
	w.filled.Store(int64(j.off))
	if !w.dirty {
		w.dirty = true
		j.dirty = append(j.dirty, w)
	}
	j.unwritten.Add(int64(n))
	j.used.Store(int64(w.start) + int64(j.off))
	j.end = position(w.seg.number, w.start+uint32(j.off))
	if !j.asked {
		j.asked = true
		j.requestSegment(0)
	}
}

// makeRoom moves to a window with room for need bytes, in the next segment if
// this one has not enough.
func (j *Journal) makeRoom(need int, grows bool) error {
	if j.unended {
		panic("journal: reserved inside a group")
	}
	if j.win == nil || !j.fits(need) {
		return j.roll(need, grows)
	}
	if j.off+need > j.limit {
		j.newWindow(j.win.start+uint32(j.off), need)
	}
	return nil
}

// fits reports whether the current segment has room for need bytes, and for the
// synced record that Close adds.
func (j *Journal) fits(need int) bool {
	return int64(j.win.start)+int64(j.off)+int64(need)+syncedSize <= j.seg.size
}

// roll moves to the next segment.
func (j *Journal) roll(need int, grows bool) error {
	size := pages(pageSize + int64(need) + syncedSize)
	if size > maxSegmentSize {
		return ErrTooLarge
	}
	next, err := j.takeNext(size, grows)
	if err != nil {
		return err
	}
	if old := j.seg; old != nil {
		j.leave(old)
	}
	next.active = true
	next.prevNumber, next.prevEnd = j.lastSeg, j.lastEnd
	j.tableMu.Lock()
	next.refs = 1
	j.table[next.number] = next
	j.opened++
	j.tableMu.Unlock()
	j.seg, j.win, j.asked = next, nil, false
	j.used.Store(0)
	j.segSize.Store(next.size)
	j.newWindow(pageSize, need)
	return nil
}

// leave ends the segment that was appended to. One without any record was never
// written to, not even its activation, so it is not part of the log.
func (j *Journal) leave(old *segment) {
	end := j.win.start + uint32(j.off)
	if end == pageSize {
		j.tableMu.Lock()
		delete(j.table, old.number)
		j.opened--
		j.tableMu.Unlock()
		j.mu.Lock()
		j.unneeded = append(j.unneeded, old)
		j.mu.Unlock()
		return
	}
	j.mu.Lock()
	if j.off > j.pub {
		j.publish()
	}
	j.mu.Unlock()
	j.tableMu.Lock()
	old.end = end
	j.tableMu.Unlock()
	j.lastSeg, j.lastEnd = old.number, end
}

// newWindow starts a window at offset at of the segment, with room for need
// bytes and for Close's synced record.
func (j *Journal) newWindow(at uint32, need int) {
	start := at &^ (pageSize - 1)
	head := int(at - start)
	size := max(int64(j.o.WindowSize), pages(int64(head+need+syncedSize)))
	size = min(size, j.seg.size-int64(start))
	w := &window{seg: j.seg, start: start, head: head, buf: make([]byte, size)}
	if old := j.win; old != nil {
		if j.off > j.pub {
			j.mu.Lock()
			j.publish()
			j.mu.Unlock()
		}
		copy(w.buf[:head], old.buf[j.off-head:j.off])
	}
	w.filled.Store(int64(head))
	w.written.Store(int64(head))
	j.win, j.off, j.pub, j.first, j.reserved = w, head, head, head, head
	j.limit = int(min(size, j.seg.size-syncedSize-int64(start)))
	j.remember(w)
}

// seal appends a last synced record, so that a log that was closed in order
// tells damage anywhere in it from a torn tail.
func (j *Journal) seal() {
	j.appendMu.Lock()
	defer j.appendMu.Unlock()
	if j.unended {
		j.Abandon()
	}
	b := barrier{make(chan error, 1)}
	j.submit(b)
	if err := <-b.err; err != nil || j.seg == nil {
		return
	}
	durable := Position(j.durable.Load())
	if durable <= j.synced || durable.Segment() != j.seg.number {
		return
	}
	if j.off+syncedSize > len(j.win.buf) {
		j.newWindow(j.win.start+uint32(j.off), syncedSize)
	}
	putSynced(j.seg.seed, j.win.buf[j.off:], durable)
	j.off += syncedSize
	j.submit(b)
	j.o.Log.Debug().Err(<-b.err).Msg("journal sealed") // an error has poisoned it, and Close says so
}

// submit publishes what was appended and asks for a sync of the whole log.
func (j *Journal) submit(c Completion) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.win != nil && j.off > j.pub {
		j.publish()
	}
	j.waiters = append(j.waiters, c)
	j.wantSync, j.mustSync = true, true
	j.work.Signal()
}

// Sync waits until everything that was unlocked before is durable, also if
// Options.Relaxed, and until its completions were called.
func (j *Journal) Sync() error {
	b := barrier{make(chan error, 1)}
	j.mu.Lock()
	if j.shut {
		j.mu.Unlock()
		return ErrClosed
	}
	j.waiters = append(j.waiters, b)
	j.wantSync, j.mustSync = true, true
	j.work.Signal()
	j.mu.Unlock()
	return <-b.err
}

type barrier struct{ err chan error }

func (b barrier) Done(err error) { b.err <- err }

func pages(n int64) int64 { return (n + pageSize - 1) &^ (pageSize - 1) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
