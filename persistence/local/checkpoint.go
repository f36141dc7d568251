package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/journal"
)

// ckptKept is how many checkpoints are kept: should the newest be damaged, the
// one before it serves, for nothing that it needs was removed.
const ckptKept = 2

// ckptShare: the log grows by that many times the size of the last checkpoint
// before the next one, so that checkpoints of a large state stay a small part of
// what is written.
const ckptShare = 4

// checkpoints are those of a store, in files of their own directory.
type checkpoints struct {
	fs  journal.FS
	dir string

	mu   sync.Mutex    // held while one is written
	kept []ckptFile    // oldest first
	wait time.Duration // the longest wait for a queue that one was to blame for
}

// newest returns the newest one, or an empty one.
func (cs *checkpoints) newest() ckptFile {
	if len(cs.kept) == 0 {
		return ckptFile{}
	}
	return cs.kept[len(cs.kept)-1]
}

// needed returns the segment from which on every kept checkpoint needs the log;
// 0 if all of it is needed.
func (cs *checkpoints) needed() uint32 {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if len(cs.kept) < ckptKept {
		return 0
	}
	return cs.kept[0].from.Segment()
}

// checkpointDue reports whether the log has grown enough for the next checkpoint.
func (s *Store) checkpointDue() bool {
	s.ckpts.mu.Lock()
	last := s.ckpts.newest()
	s.ckpts.mu.Unlock()
	if s.journal.State().End.Segment() == last.from.Segment() {
		return false
	}
	var grown int64
	for _, seg := range s.journal.Segments() {
		switch n := last.from.Segment(); {
		case seg.Number > n:
			grown += int64(seg.End)
		case seg.Number == n:
			grown += int64(seg.End) - int64(last.from.Offset())
		}
	}
	return grown > 0 && grown >= ckptShare*last.size
}

// spaceDue reports whether a checkpoint would free more than it takes: segments
// that nobody needs but a start from the older of the kept ones.
func (s *Store) spaceDue() bool {
	needed := s.ckpts.needed()
	var held int64
	for _, seg := range s.sealed() {
		if seg.Number >= needed && seg.Number <= s.upkeep.copied && s.live.of(seg.Number) == 0 {
			held += seg.Size
		}
	}
	s.ckpts.mu.Lock()
	defer s.ckpts.mu.Unlock()
	return held > ckptShare*s.ckpts.newest().size
}

// checkpoint writes down what the log before now need not tell again. Nobody
// waits for it longer than it takes to look at one queue: what happens meanwhile
// is in the log behind the position that the checkpoint is named after, and
// reading that again changes nothing.
func (s *Store) checkpoint() error {
	cs := &s.ckpts
	cs.mu.Lock()
	defer cs.mu.Unlock()
	// The end of the log is asked for under its lock: while a batch is appended it
	// moves, and what it has passed then is not waited for by Sync.
	if err := s.wal.Lock(); err != nil {
		return unavailable(err)
	}
	from := s.journal.State().End
	s.wal.Unlock(journal.Lazy, nil)
	if last := cs.newest(); from == 0 || from == last.from && last.size > 0 {
		return nil
	}
	// What is before that position is on disk and shown from here on.
	if err := s.journal.Sync(); err != nil {
		return err
	}
	name := filepath.Join(cs.dir, ckptName(from))
	f, err := cs.fs.Create(name + ".new")
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	c := ckptFile{name: name, from: from, store: s.journal.State().StoreID}
	w := newCkptWriter(f, from, c.store)
	s.captureAll(w, from)
	if c.reach, err = s.captureMeta(w); err == nil {
		c.size, err = w.close(c.reach)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = cs.fs.Rename(name+".new", name)
	}
	if err == nil {
		err = cs.fs.SyncDir(cs.dir)
	}
	if err != nil {
		_ = cs.fs.Remove(name + ".new") // else the next Open does
		return fmt.Errorf("write checkpoint: %w", err)
	}
	cs.wait = max(cs.wait, w.pause)
	cs.kept = append(cs.kept, c)
	for len(cs.kept) > ckptKept {
		if err := cs.fs.Remove(cs.kept[0].name); err != nil {
			s.log.Warn().Err(err).Msg("old checkpoint cannot be removed")
		}
		cs.kept = slices.Delete(cs.kept, 0, 1)
	}
	return nil
}

// captureAll writes every kind of state but what captureMeta does.
func (s *Store) captureAll(w *ckptWriter, from journal.Position) {
	b := w.begin(secSegments)
	for _, n := range sortSegments(s.live.below(from.Segment())) {
		b = fields.AppendUints(b, uint64(n))
	}
	w.end(b)
	all := s.all()
	slices.SortFunc(all, func(a, b target) int { return cmp.Compare(a.id(), b.id()) }) // streams before their subscriptions
	for _, t := range all {
		d := t.def()
		w.end(encodeDef(w.begin(secDefine), t.id(), &d))
	}
	for _, t := range all {
		switch {
		case t.q == nil || t.q.volatile:
		case t.q.source != nil:
			s.captureSubscription(w, t.q)
		default:
			t.q.capture(w)
		}
	}
	captureStreams(w, all)
	s.keys.capture(w)
	s.captureDedup(w)
}

// captureMeta writes the counters of the store, and returns a position up to
// which the log is durable and holds everything that was captured.
func (s *Store) captureMeta(w *ckptWriter) (journal.Position, error) {
	if err := s.wal.Lock(); err != nil {
		return 0, unavailable(err)
	}
	s.flushNotes()
	unstarted := s.unstarted
	b := fields.AppendUints(w.begin(secMeta), uint64(s.epoch), uint64(max(s.newest, s.floor.Load()-1)), uint64(s.nextTarget), s.rev)
	s.wal.Unlock(journal.Lazy, nil)
	w.end(b)
	if unstarted {
		// The sequences of this start would be skipped once more when its record
		// comes behind them.
		return 0, fmt.Errorf("this start is not recorded yet: %w", broker.ErrFull)
	}
	reach := s.journal.State().End
	return reach, s.journal.Sync()
}

// restoreMeta is the inverse of captureMeta.
func (s *Store) restoreMeta(f *fields.Reader) error {
	s.epoch, s.newest = uint32(f.Uint()), max(s.newest, int64(f.Uint()))
	s.nextTarget, s.rev = max(s.nextTarget, broker.Target(f.Uint())), max(s.rev, f.Uint())
	if f.Bad {
		return errRecord
	}
	return nil
}

// openCheckpoints lists the checkpoints, oldest first, and removes what a crash
// left of one that was being written.
func (cs *checkpoints) open(fsys journal.FS, dir string) error {
	cs.fs, cs.dir = fsys, dir
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if from, ok := ckptPosition(name); ok {
			cs.kept = append(cs.kept, ckptFile{name: path, from: from})
		} else if strings.HasSuffix(name, ".new") {
			if err := fsys.Remove(path); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(cs.kept, func(a, b ckptFile) int {
		if a.from < b.from {
			return -1
		}
		return 1
	})
	return nil
}

// restore reads one checkpoint into an empty store.
func (s *Store) restore(name string, segments map[uint32]bool) (ckptFile, error) {
	return readCheckpoint(s.ckpts.fs, name, func(kind byte, body []byte) error {
		f := fields.Reader{Rest: body}
		var err error
		switch kind {
		case secMeta:
			err = s.restoreMeta(&f)
		case secSegments:
			for len(f.Rest) > 0 {
				segments[uint32(f.Uint())] = true
			}
		case secDefine:
			var id broker.Target
			var d broker.Def
			if id, d, err = decodeDef(body); err == nil {
				s.define(id, d)
			}
		case secQueue:
			err = s.restoreQueue(&f)
		case secSubs:
			err = s.restoreSubscription(&f)
		case secSlots:
			err = s.restoreSlots(&f)
		case secStreams:
			err = s.restoreStreams(&f)
		case secKeys:
			err = s.keys.restore(&f)
		case secDedup:
			err = s.restoreDedup(&f)
		default:
			err = fmt.Errorf("unknown kind %d", kind)
		}
		if err == nil && f.Bad {
			err = errRecord
		}
		return err
	})
}

// lastCheckpoint is the one of a Close: the next start has nothing to replay, and
// a hint of each segment that it has to know.
func (s *Store) lastCheckpoint(ctx context.Context) {
	if s.journal == nil || s.upkeep.unfit || s.poison.Load() != nil || ctx.Err() != nil {
		return
	}
	begin := time.Now()
	if s.barrier() == nil { // else the checkpoint says why
		s.writeHints(s.sealed())
	}
	if err := s.checkpoint(); err != nil {
		s.log.Warn().Err(err).Msg("no checkpoint at close: the next start reads more of the log")
		return
	}
	s.hintOfLast()
	s.log.Debug().Dur("took", time.Since(begin)).Msg("checkpoint written")
}

// hintOfLast writes the hint of the segment in which the log ends, as far as the
// last checkpoint goes, so that the next start need not scan it.
func (s *Store) hintOfLast() {
	if s.wal.Lock() != nil {
		return
	}
	defer s.wal.Unlock(journal.Lazy, nil)
	from, h := s.ckpts.newest().from, s.hints.cur
	if h == nil || h.segment != from.Segment() || s.journal.State().End != from {
		return
	}
	for _, seg := range s.journal.Segments() {
		if seg.Number == h.segment {
			seg.End = from.Offset()
			if err := s.hints.write(h, seg); err != nil {
				s.log.Warn().Err(err).Msg("hint could not be written")
			}
		}
	}
}
