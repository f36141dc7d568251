package local

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"millrace/broker"
	"millrace/persistence/journal"
)

// Progress tells how far Open has come with reading what is stored.
type Progress struct {
	Done, Total int64 // bytes
	Took        time.Duration
	Left        time.Duration // estimated from the rate so far
}

// progressEvery is the time between two calls of Options.Progress, and before
// the first.
const progressEvery = time.Second

// recovery is what Open knows while it reads.
type recovery struct {
	s        *Store
	ckpt     ckptFile
	segments map[uint32]bool // before the replay position: those that are needed
	thorough bool            // all of them are read, for damage is to be given up

	report      func(Progress)
	begin, next time.Time
	done, total int64
}

// recover brings the state back: the newest checkpoint that is whole, the
// places of messages in segments before it, and the log from there on.
func (s *Store) recover(o Options) (*Store, error) {
	r := &recovery{report: o.Progress, begin: time.Now(), thorough: o.AcceptLoss}
	r.next = r.begin.Add(progressEvery)
	dir := filepath.Join(o.Dir, journalName)
	if err := r.choose(s, o); err != nil {
		return s, err
	}
	s = r.s
	s.hints.fs, s.hints.dir = o.FS, dir
	jo := journal.Options{
		FS: o.FS, Dir: dir,
		SegmentSize: o.SegmentSize, FirstSegmentSize: o.FirstSegmentSize,
		WindowSize: o.WindowSize, MaxPending: o.MaxPending, CacheSize: o.CacheSize,
		Relaxed: o.Relaxed, SyncEvery: o.SyncEvery, MarkEvery: o.MarkEvery, LowDisk: o.LowDisk,
		AcceptLoss: o.AcceptLoss, Lost: s.losses.add, Quarantine: s.losses.dir,
		Failed: o.Failed, Log: o.Log, Synced: func(took time.Duration) { s.syncTook.Observe(took, 1) }, Sealed: func(number uint32) {
			s.live.full.Store(number)
			s.upkeep.wake()
		},
		From: r.ckpt.from, Earlier: r.earlier,
	}
	r.measure(o)
	j, err := journal.Open(jo, r.replay)
	if err != nil {
		return s, r.explain(err)
	}
	s.replayed = broker.Message{}
	s.journal, s.wal = j, j
	s.live.full.Store(j.State().Recovered.Segment())
	s.hints.close()
	return s, r.check(o)
}

// choose restores the newest checkpoint that is whole.
func (r *recovery) choose(s *Store, o Options) error {
	if err := s.ckpts.open(o.FS, filepath.Join(o.Dir, ckptDir)); err != nil {
		return fmt.Errorf("list checkpoints: %w", err)
	}
	for r.s = s; len(r.s.ckpts.kept) > 0; {
		cs := &r.s.ckpts
		name := cs.newest().name
		r.segments = map[uint32]bool{}
		c, err := r.s.restore(name, r.segments)
		if err == nil {
			r.ckpt, cs.kept[len(cs.kept)-1] = c, c
			return nil
		}
		if _, ok := errors.AsType[*journal.VersionError](err); ok {
			return err
		}
		if damage := (*journal.DamageError)(nil); !errors.As(err, &damage) && !errors.Is(err, errRecord) {
			return fmt.Errorf("read checkpoint: %w", err)
		}
		o.Log.Error().Err(err).Msg("checkpoint is damaged: the one before it serves")
		if err := r.setAside(name, err); err != nil {
			return fmt.Errorf("set a damaged checkpoint aside: %w", err)
		}
		fresh := newStore(o) // what was read of it is forgotten
		fresh.durability, fresh.firstOwn, fresh.nextTarget = s.durability, s.firstOwn, s.firstOwn
		fresh.ckpts = checkpoints{fs: cs.fs, dir: cs.dir, kept: cs.kept[:len(cs.kept)-1]}
		fresh.losses = r.s.losses
		r.s = fresh
	}
	return nil
}

// setAside moves a checkpoint that nobody understands into the quarantine, and
// reports it.
func (r *recovery) setAside(name string, err error) error {
	l, fsys := &r.s.losses, r.s.ckpts.fs
	kept := filepath.Join(l.dir, filepath.Base(name))
	loss := journal.Loss{Damage: journal.DamageError{File: name, Reason: err.Error()}, Kept: kept}
	if d, ok := errors.AsType[*journal.DamageError](err); ok {
		loss.Damage = *d
	}
	if err := l.add(loss); err != nil {
		return err
	}
	if err := fsys.Rename(name, kept); err != nil {
		return err
	}
	return errors.Join(fsys.SyncDir(l.dir), fsys.SyncDir(filepath.Dir(name)))
}

// earlier finds the places of messages in a segment before the replay position:
// by its hint, or by reading it.
func (r *recovery) earlier(e *journal.Earlier) error {
	s := r.s
	part := e.Number == r.ckpt.from.Segment()
	if r.thorough {
		return e.Scan(r.locate)
	}
	if !part && !r.segments[e.Number] {
		return nil // nobody needs it, and it will be removed
	}
	if body, end, err := s.hints.read(e.Segment); err == nil {
		err = eachPlaced(body, func(p *placed) {
			if s.locate(e.Number, p); part {
				s.hints.add(uint64(e.Number)<<32|uint64(p.offset), p)
			}
		})
		if err == nil {
			e.End = end
			r.advance(int64(len(body)))
			return nil
		}
		s.hints.cur = nil
	}
	return e.Scan(r.locate)
}

// locate tells the messages of a segment where they are.
func (s *Store) locate(segment uint32, p *placed) {
	pos := uint64(segment)<<32 | uint64(p.offset)
	for _, to := range p.routes {
		if q := s.targets[to.target].q; q != nil {
			q.place(to.seq, pos, p)
		}
	}
}

// locate looks at a group for messages, and leaves all else.
func (r *recovery) locate(group []journal.Record) error {
	for i := range group {
		rec := &group[i]
		r.advance(int64(rec.Size))
		if rec.Type != recMessage && rec.Type != recMove {
			continue
		}
		m, err := r.s.parse(rec)
		if err != nil {
			return recordError(rec, err)
		}
		if r.s.note(rec, m); len(m.placed.routes) > 0 {
			r.s.locate(rec.Pos.Segment(), &m.placed)
		}
	}
	return nil
}

// replay applies a group.
func (r *recovery) replay(group []journal.Record) error {
	for i := range group {
		r.advance(int64(group[i].Size))
	}
	return r.s.replay(group)
}

// measure adds up what is to be read.
func (r *recovery) measure(o Options) {
	if r.report == nil {
		return
	}
	names, _ := o.FS.List(filepath.Join(o.Dir, journalName)) // a start without a journal reads nothing
	size := map[uint32][2]int64{}
	for _, name := range names {
		var n uint32
		kind := 0
		switch {
		case strings.HasSuffix(name, ".hint"):
			kind = 1
		case !strings.HasSuffix(name, ".seg"):
			continue
		}
		if _, err := fmt.Sscanf(name, "%08x.", &n); err != nil || n < r.ckpt.from.Segment() && !r.segments[n] {
			continue
		}
		f, err := o.FS.Open(filepath.Join(o.Dir, journalName, name))
		if err != nil {
			continue // it is missed when it is needed
		}
		sizes := size[n]
		sizes[kind], _ = f.Size() // an estimate
		size[n] = sizes
		_ = f.Close() // it was not even read
	}
	for n, sizes := range size {
		if n < r.ckpt.from.Segment() && sizes[1] > 0 {
			r.total += sizes[1]
		} else {
			r.total += sizes[0]
		}
	}
}

// advance counts what was read, and tells now and then.
func (r *recovery) advance(n int64) {
	r.done += n
	if r.report == nil || r.done&0xfff > n {
		return // the clock is looked at now and then
	}
	now := time.Now()
	if now.Before(r.next) {
		return
	}
	r.next = now.Add(progressEvery)
	p := Progress{Done: r.done, Total: max(r.total, r.done), Took: now.Sub(r.begin)}
	p.Left = time.Duration(float64(p.Took) * float64(p.Total-p.Done) / float64(max(p.Done, 1)))
	r.report(p)
}

// explain says what the lack of a checkpoint has to do with a missing segment.
func (r *recovery) explain(err error) error {
	if _, ok := errors.AsType[*journal.DamageError](err); ok && r.ckpt.name == "" {
		return fmt.Errorf("%w (no checkpoint in %s could be used, so all of the log is needed)", err, r.s.ckpts.dir)
	}
	return err
}

// check verifies that the log holds all that the checkpoint relies on, and ends
// the restoring.
func (r *recovery) check(o Options) error {
	s := r.s
	state := s.journal.State()
	switch {
	case r.ckpt.name == "":
	case state.StoreID != r.ckpt.store:
		return &journal.DamageError{File: r.ckpt.name, Offset: 24, Reason: "it belongs to another store than the journal"}
	case state.Recovered < r.ckpt.reach && !o.AcceptLoss:
		return &journal.DamageError{
			File: filepath.Join(o.Dir, journalName), Offset: int64(state.Recovered.Offset()),
			Reason: fmt.Sprintf("the log ends at %#x, and %s relies on it up to %#x", uint64(state.Recovered), filepath.Base(r.ckpt.name), uint64(r.ckpt.reach)),
		}
	}
	for _, t := range s.targets {
		if t.q == nil || t.q.volatile {
			continue
		}
		if err := r.checkPlaces(t.q, o); err != nil {
			return err
		}
		t.q.restored()
	}
	return nil
}

// checkPlaces verifies that it is known of each message where it is.
func (r *recovery) checkPlaces(q *queue, o Options) error {
	missing := q.unplaced()
	if len(missing) == 0 {
		return nil
	}
	var n uint64
	for _, run := range missing {
		n += run.n
	}
	err := &journal.DamageError{
		File:   filepath.Join(o.Dir, journalName),
		Reason: fmt.Sprintf("%d messages of %s %q are missing, the first is number %d", n, kindName(q.def.Kind), q.name, missing[0].first),
	}
	if !o.AcceptLoss {
		return err
	}
	l := &r.s.losses
	if !l.seen { // else it is known where they were
		if err := l.add(journal.Loss{Damage: *err}); err != nil {
			return err
		}
	}
	for _, run := range missing {
		l.all.Missing = append(l.all.Missing, Missing{Kind: kindName(q.def.Kind), Name: q.name, First: run.first, Messages: run.n})
	}
	q.giveUp()
	r.s.gaveUp = true
	return nil
}

func recordError(r *journal.Record, err error) error {
	return fmt.Errorf("record at %d:%d: %w", r.Pos.Segment(), r.Pos.Offset(), err)
}
