package journal

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// recover reads the directory, replays the log and leaves the journal ready to
// begin a new segment. A crash at any point of it leaves the next recovery the
// same task.
func (j *Journal) recover(replay func([]Record) error) error {
	if err := makeDir(j.o.FS, j.o.Dir); err != nil {
		return err
	}
	log, prepared, err := j.inventory()
	if err != nil {
		return err
	}
	if err := j.identify(log); err != nil {
		return err
	}
	if err := j.replayAll(log, replay); err != nil {
		return err
	}
	if err := j.checkMark(); err != nil {
		return err
	}
	// Only now, when it is certain that nothing is missing. A segment that a power
	// cut left behind may hold records that were never durable, and only a fresh
	// generation makes sure that they never count.
	for _, s := range prepared {
		if err := j.freeSegment(s.number, s.size); err != nil {
			return err
		}
	}
	j.end = j.recovered
	j.durable.Store(uint64(j.recovered))
	j.synced = j.recovered
	j.lastSeg, j.lastEnd = j.recovered.Segment(), j.recovered.Offset()
	return j.startMark()
}

// makeDir makes a directory durably, with those above it that are missing. It
// syncs the one above in any case: an earlier process may have died in between.
func makeDir(fsys FS, dir string) error {
	parents := []string{filepath.Dir(dir)}
	for dir := parents[0]; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := fsys.List(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		parents = append(parents, filepath.Dir(dir))
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	for _, dir := range parents {
		if err := fsys.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// inventory sorts out the files of the directory and returns the segments, those
// with records in log order.
func (j *Journal) inventory() (log, prepared []*segment, err error) {
	// The names found here may be in memory only, left by a process that was
	// killed. They must hold before a free file is overwritten.
	if err := j.o.FS.SyncDir(j.o.Dir); err != nil {
		return nil, nil, err
	}
	names, err := j.o.FS.List(j.o.Dir)
	if err != nil {
		return nil, nil, err
	}
	j.number = 1
	for _, name := range names {
		if strings.HasPrefix(name, reserveName) {
			if err := j.adoptReserve(name); err != nil {
				return nil, nil, err
			}
		}
		_, kind, _ := strings.Cut(name, ".")
		n, ours := segmentNumber(name)
		if !ours {
			continue
		}
		j.number = max(j.number, n+1)
		path := filepath.Join(j.o.Dir, name)
		switch kind {
		case "new":
			err = j.o.FS.Remove(path)
		case "free":
			if slices.Contains(names, segmentName(n)) {
				// A power cut kept both names of a rename. The segment, once freed,
				// would take the name from under the one who prepares this file.
				err = j.o.FS.Remove(path)
				break
			}
			err = j.adoptFree(path)
		case "seg":
			var s *segment
			if s, err = j.load(path); s != nil && s.active {
				log = append(log, s)
			} else if s != nil {
				prepared = append(prepared, s)
			}
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if err := j.readMark(len(log) > 0); err != nil {
		return nil, nil, err
	}
	if log, prepared, err = j.checkPrepared(log, prepared); err != nil {
		return nil, nil, err
	}
	slices.SortFunc(log, func(a, b *segment) int { return cmp.Compare(a.number, b.number) })
	return log, prepared, nil
}

// segmentNumber reads the number that the name of a journal's file begins with.
func segmentNumber(name string) (number uint32, ok bool) {
	stem, _, _ := strings.Cut(name, ".")
	n, err := strconv.ParseUint(stem, 16, 32)
	return uint32(n), err == nil && len(stem) == 8
}

// checkPrepared makes sure that the segments without an activation never had
// one that was durable.
func (j *Journal) checkPrepared(log, prepared []*segment) (active, rest []*segment, err error) {
	before := map[uint32]bool{j.mark.last.position.Segment(): j.mark.last.position > 0}
	for _, s := range log {
		before[s.prevNumber] = true
	}
	for _, s := range prepared {
		lost := before[s.number]
		if !lost {
			if lost, err = j.wasActive(s); err != nil {
				return nil, nil, err
			}
		}
		if !lost {
			rest = append(rest, s)
			continue
		}
		err := j.damage(s.number, activationAt, "the activation is missing, although it was durable")
		if !j.o.AcceptLoss {
			return nil, nil, err
		}
		j.o.Log.Error().Err(err).Msg("segment activated again") // nothing is lost by it
		s.active, s.prevNumber = true, unknownSegment
		log = append(log, s)
	}
	return log, rest, nil
}

// wasActive reports whether a segment without an activation holds a synced
// record of its own use, which can only be there if the activation was durable.
// One that a power cut left behind has records of its first commit at most.
func (j *Journal) wasActive(s *segment) (bool, error) {
	f, err := j.o.FS.Open(filepath.Join(j.o.Dir, segmentName(s.number)))
	if err != nil {
		return false, err
	}
	sc := &scanner{file: f, seg: s, end: s.size}
	o, err := sc.groups(pageSize, nil)
	proven := false
	if err == nil && o.bad > pageSize { // else spare the search of a whole file
		_, proven, err = j.weigh(sc, outcome{good: pageSize, bad: pageSize}, 0)
	}
	return proven, errors.Join(err, f.Close())
}

// adoptReserve keeps the reserve that is there; one that was being made goes.
func (j *Journal) adoptReserve(name string) error {
	path := filepath.Join(j.o.Dir, name)
	if name != reserveName {
		return j.o.FS.Remove(path)
	}
	size, err := j.fileSize(path)
	if err != nil || size < 2*pageSize || size%pageSize != 0 {
		return errors.Join(err, j.o.FS.Remove(path))
	}
	j.space.reserve = freeFile{path, size}
	return nil
}

func (j *Journal) fileSize(path string) (int64, error) {
	f, err := j.o.FS.Open(path)
	if err != nil {
		return 0, err
	}
	size, err := f.Size()
	return size, errors.Join(err, f.Close())
}

func (j *Journal) adoptFree(path string) error {
	size, err := j.fileSize(path)
	if err != nil {
		return err
	}
	if len(j.free) >= maxFree || size < 2*pageSize || size%pageSize != 0 {
		return j.o.FS.Remove(path)
	}
	j.free = append(j.free, freeFile{path, size})
	return nil
}

// load reads a segment's header and checks the size of its file. It returns nil
// for a segment that was given up.
func (j *Journal) load(path string) (*segment, error) {
	f, err := j.o.FS.Open(path)
	if err != nil {
		return nil, err
	}
	s, err := readHeader(f, path)
	if err == nil {
		err = j.checkSize(f, path, s)
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	var damage *DamageError
	if errors.As(err, &damage) && j.o.AcceptLoss && s == nil {
		kept := filepath.Join(j.o.Quarantine, filepath.Base(path))
		if err := j.lost(err, Loss{From: pageSize, Kept: kept}); err != nil {
			return nil, err
		}
		return nil, j.putAside(path, kept)
	}
	return s, err
}

// checkSize compares the file with the size it had when it was prepared. It was
// durable at that size before it got its name, so a shorter one lost its end.
func (j *Journal) checkSize(f File, path string, s *segment) error {
	size, err := f.Size()
	if err != nil || size >= s.size {
		return err
	}
	err = &DamageError{File: path, Offset: size, Reason: fmt.Sprintf("the file has lost its end, it had %d bytes", s.size)}
	if !j.o.AcceptLoss {
		return err
	}
	if err := j.lost(err, Loss{From: size, To: s.size}); err != nil {
		return err
	}
	if err := f.Truncate(s.size); err != nil {
		return err
	}
	return f.SyncData()
}

// identify finds out whose log this is; a new one gets an identity of its own.
func (j *Journal) identify(log []*segment) error {
	marked := j.mark.last.store
	if len(log) == 0 {
		if j.store = marked; marked == (storeID{}) {
			_, _ = rand.Read(j.store[:]) // never fails, see crypto/rand
		}
		return nil
	}
	j.store = log[0].store
	for _, s := range log {
		if s.store != j.store {
			return j.damage(s.number, 16, "the segment belongs to another store")
		}
	}
	if marked == j.store || marked == (storeID{}) {
		return nil
	}
	err := &DamageError{File: filepath.Join(j.o.Dir, markName), Offset: 16, Reason: "the watermark belongs to another store than the segments"}
	if !j.o.AcceptLoss {
		return err
	}
	j.closeMark()
	j.mark.last = mark{}
	return j.lost(err, Loss{})
}

// replayAll goes through the log, whose segments must form a chain from the
// first that is needed, and sets where it ended.
func (j *Journal) replayAll(log []*segment, replay func([]Record) error) error {
	var prev *segment
	var end int64
	for i, s := range log {
		if err := j.checkChain(prev, end, s); err != nil {
			return err
		}
		var next *segment
		known := int64(0)
		if i+1 < len(log) {
			if next = log[i+1]; next.prevNumber == s.number {
				known = int64(next.prevEnd)
			}
		}
		var err error
		if end, err = j.replaySegment(s, known, next == nil, replay); err != nil {
			return err
		}
		s.end = uint32(end)
		j.table[s.number] = s
		j.recovered = position(s.number, s.end)
		prev = s
	}
	if j.recovered < j.o.From {
		return &DamageError{
			File: j.o.Dir, Offset: 0,
			Reason: fmt.Sprintf("the log ends at %s, before the position %s that was durable", j.recovered, j.o.From),
		}
	}
	return nil
}

// unknownSegment stands for the predecessor of a segment whose activation is lost.
const unknownSegment = 1<<32 - 1

// checkChain makes sure that nothing is missing between two segments.
func (j *Journal) checkChain(prev *segment, end int64, s *segment) error {
	if s.number <= j.o.From.Segment() && s.prevNumber != unknownSegment {
		return nil // those before it are not replayed, and may have been removed
	}
	var number uint32
	if prev != nil {
		number = prev.number
	}
	if s.prevNumber == number && (prev == nil || int64(s.prevEnd) == end) {
		return nil
	}
	if s.prevNumber != unknownSegment {
		err := j.damage(s.prevNumber, 0, fmt.Sprintf("the segment is missing, %s follows it", segmentName(s.number)))
		if !j.o.AcceptLoss {
			return err
		}
		if err := j.lost(err, Loss{From: pageSize, To: int64(s.prevEnd)}); err != nil {
			return err
		}
	}
	s.prevNumber, s.prevEnd = number, uint32(end)
	f, err := j.o.FS.Open(filepath.Join(j.o.Dir, segmentName(s.number)))
	if err != nil {
		return err
	}
	if err = f.WriteAt(0, s.header()); err == nil {
		err = f.SyncData()
	}
	return errors.Join(err, f.Close())
}

// replaySegment replays one segment and returns where its records end: at known
// if that is not zero, else at the first bad record.
func (j *Journal) replaySegment(s *segment, known int64, last bool, replay func([]Record) error) (int64, error) {
	from := int64(pageSize)
	switch {
	case s.number < j.o.From.Segment() && !last:
		return j.passOver(s, known)
	case s.number < j.o.From.Segment():
		replay = nil
	case s.number == j.o.From.Segment() && int64(j.o.From.Offset()) > from:
		from = int64(j.o.From.Offset())
		if _, err := j.passOver(s, from); err != nil {
			return 0, err
		}
	}
	f, err := j.o.FS.Open(filepath.Join(j.o.Dir, segmentName(s.number)))
	if err != nil {
		return 0, err
	}
	end, err := j.scanSegment(f, s, from, known, replay)
	if err == nil && last {
		// What was read may be in memory only. The next segment will claim that
		// it is durable.
		err = f.SyncData()
	}
	return end, errors.Join(err, f.Close())
}

// scanSegment scans, and decides what a bad record means.
func (j *Journal) scanSegment(f File, s *segment, from, known int64, replay func([]Record) error) (int64, error) {
	sc := &scanner{file: f, seg: s, end: s.size}
	if known > 0 {
		sc.end = min(known, s.size)
	}
	for {
		o, err := sc.groups(from, replay)
		if err != nil {
			return 0, err
		}
		if known > 0 && o.good == known {
			return known, nil
		}
		resume, proven, err := j.weigh(sc, o, known)
		if err != nil {
			return 0, err
		}
		if !proven {
			j.o.Log.Info().Uint32("segment", s.number).Int64("offset", o.good).Int64("dropped", o.bad-o.good).Msg("log ends")
			return o.good, nil
		}
		damage := j.damage(s.number, o.bad, "not a valid record, although the log was durable beyond it")
		if !j.o.AcceptLoss {
			return 0, damage
		}
		if err := j.giveUp(damage, f, s, o.good, resume); err != nil {
			return 0, err
		}
		from = o.good
	}
}

// weigh tells damage from a torn tail. It is damage if the log is known to have
// been durable beyond the last whole group: from where the next segment says
// this one ends, from a synced record further on, or from the watermark. Where to
// resume is the next of those, which always lie between groups.
func (j *Journal) weigh(sc *scanner, o outcome, known int64) (resume int64, proven bool, err error) {
	good := position(sc.seg.number, uint32(o.good))
	if m := j.mark.last.position; known == 0 && m > good && m.Segment() == sc.seg.number {
		known = int64(m.Offset())
	}
	proven = known > 0
	for off := max(o.bad, o.good+RecordHeader); ; {
		at, durable, ok, err := sc.nextSynced(off)
		if err != nil {
			return 0, false, err
		}
		if !ok {
			break
		}
		if resume == 0 {
			resume = at
		}
		if proven = proven || durable > good; proven && known > 0 {
			return min(resume, known), true, nil
		} else if proven {
			return resume, true, nil
		}
		off = at + 1
	}
	return known, proven, nil
}

// giveUp turns the bytes between two offsets into one valid record that nobody
// reads, by writing a header that fits what is there.
func (j *Journal) giveUp(damage error, f File, s *segment, from, to int64) error {
	if to-from < RecordHeader {
		return fmt.Errorf("segment %08x: nothing to give up between %d and %d", s.number, from, to)
	}
	b := make([]byte, to-from)
	if _, err := f.ReadAt(b, from); err != nil {
		return err
	}
	kept := filepath.Join(j.o.Quarantine, fmt.Sprintf("%s.%d-%d", segmentName(s.number), from, to))
	if err := j.lost(damage, Loss{Segment: s.number, From: from, To: to, Kept: kept}); err != nil {
		return err
	}
	if err := j.keep(kept, b); err != nil {
		return err
	}
	sealRecord(s.seed, b, typeLost, 0)
	if err := f.WriteAt(from, b[:RecordHeader]); err != nil {
		return err
	}
	return f.SyncData()
}
