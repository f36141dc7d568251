package local

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/broker/histogram"
	"millrace/persistence/clock"
	"millrace/persistence/journal"
)

// Options configure a Store. Zero values take the stated default.
type Options struct {
	// Dir is the data directory. Without one everything is in memory only.
	Dir string
	// FS is where Dir is; default the machine's file system.
	FS journal.FS

	SegmentSize, FirstSegmentSize     int64 // of the journal; default its own
	WindowSize, MaxPending, CacheSize int   // of the journal; default its own

	// Relaxed answers before the sync, which follows within SyncEvery.
	Relaxed   bool
	SyncEvery time.Duration // default 1s
	// LowDisk is the free space of the disk below which messages and new targets
	// are refused; default the larger of two segments and min(5 %, 2 GiB).
	LowDisk int64
	// AcceptLoss opens a damaged store without what is damaged; see Losses.
	AcceptLoss bool
	// CompactRate is how many bytes of messages compaction reads and writes each
	// second at most; default 32 MiB.
	CompactRate int64
	// MarkEvery is how far the watermark of the journal may lag; default 1s.
	MarkEvery time.Duration
	// Clock is the time of deadlines; default one that begins at Open.
	Clock *clock.Clock
	// Progress is called about once a second while Open reads what is stored, if
	// that takes longer than a second. It must not block.
	Progress func(Progress)
	// Failed is called once when the journal failed and nothing is stored any
	// more; it must not block.
	Failed func(error)
	Log    zerolog.Logger
}

// Store is a broker.Store.
type Store struct {
	log        zerolog.Logger
	clock      *clock.Clock
	wal        wal
	mem        bool // nothing is kept
	durability broker.Durability
	journal    *journal.Journal // nil in memory
	syncTook   histogram.Histogram
	unlockDir  func() error
	events     broker.Events
	epoch      uint32 // which start of the process this is

	// Under the append lock.
	unit       unit
	submits    uint64
	newest     int64 // time of the newest unit
	nextTarget broker.Target
	firstOwn   broker.Target // targets before it are not ours
	rev        uint64
	session    *broker.Def // that the newest sessions share
	dedup      dedup
	unstarted  bool           // the start record is not written
	replayed   broker.Message // scratch of replay,
	stored     stored         // and also
	replaying  journal.Position
	losses     losses
	gaveUp     bool // messages that a checkpoint knows of

	floor       atomic.Int64 // units from now on have this time or a later one
	outstanding atomic.Int64 // completions that the log still owes
	holds       atomic.Int64 // bytes that queues and streams hold together
	bound       atomic.Bool
	closing     atomic.Bool
	ended       atomic.Bool // no wait is taken any more
	poison      atomic.Pointer[error]

	// Changed under the append lock and targetMu: the holder of either may read.
	targetMu sync.RWMutex
	targets  map[broker.Target]target
	names    [kinds]map[string]broker.Target // by kind

	keys    keys
	timers  timers
	teller  teller
	files   files
	hints   hints
	live    live
	ckpts   checkpoints
	upkeep  upkeep
	orphans orphans
	box     outbox
	late    late
	looks   looks

	spareMu sync.Mutex
	spare   *commit

	stop     chan struct{}
	helpers  sync.WaitGroup
	closeOne sync.Once
}

// target is a queue or a stream.
type target struct {
	q  *queue
	st *stream
}

func (t target) id() broker.Target {
	if t.q != nil {
		return t.q.id
	}
	return t.st.id
}

func (t target) volatile() bool {
	if t.q != nil {
		return t.q.volatile
	}
	return t.st.volatile
}

// newStore returns a Store without a log.
func newStore(o Options) *Store {
	s := &Store{
		log: o.Log, clock: o.Clock, targets: map[broker.Target]target{},
		names:  [kinds]map[string]broker.Target{{}, {}, {}, {}},
		timers: timers{at: map[sleeper]int{}, kick: make(chan struct{}, 1)},
		late:   late{idle: make(chan struct{}, 1)},
		box:    outbox{kick: make(chan struct{}, 1)},
		upkeep: newUpkeep(o),
		stop:   make(chan struct{}),
	}
	if s.clock == nil {
		s.clock = clock.New(nil)
	}
	s.unit.s, s.teller.s = s, s
	s.live.emptied = s.upkeep.wake
	s.files.limit(o)
	return s
}

// SyncTook counts how long each sync of the log took; none in memory.
func (s *Store) SyncTook() histogram.Counts { return s.syncTook.Read() }

// Journal returns the log on disk, for its figures; nil in memory.
func (s *Store) Journal() *journal.Journal { return s.journal }

// Open opens the store in o.Dir, which it makes if needed, or an empty one in
// memory. Another process that has it open is a *journal.LockedError, a journal
// that lost something a *journal.DamageError.
func Open(o Options) (*Store, error) {
	s := newStore(o)
	if o.Dir != "" {
		return s.openDisk(o)
	}
	s.mem, s.durability, s.epoch = true, broker.DurabilityMemory, 1
	s.wal = newMemLog()
	// A target of an earlier process must not be one of this: count from the time.
	s.firstOwn = broker.Target(s.milli()) << 16
	s.nextTarget = s.firstOwn
	return s, nil
}

// openDisk reads what is stored and begins a new epoch. The store that it
// returns is another one if a damaged checkpoint had to be forgotten.
func (s *Store) openDisk(o Options) (*Store, error) {
	if o.FS == nil {
		o.FS = journal.OS()
	}
	unlock, err := openDir(o.FS, o.Dir, o.Log)
	if err != nil {
		return nil, err
	}
	s.durability = broker.DurabilityDisk
	if o.Relaxed {
		s.durability = broker.DurabilityRelaxed
	}
	s.firstOwn, s.nextTarget = 1, 1
	s.losses.begin(&o)
	s, err = s.recover(o)
	if s.journal == nil {
		return nil, errors.Join(err, unlock())
	}
	s.unlockDir = unlock
	if err == nil {
		err = errors.Join(s.openFiles(o), s.losses.end(s))
	}
	if err == nil {
		s.begin(s.epoch+1, s.milli())
		err = s.recordStart()
	}
	if err == nil && s.gaveUp {
		err = s.checkpoint() // else the next start would miss them again
	}
	if err != nil {
		s.upkeep.unfit = true
		return nil, errors.Join(err, s.Close(context.Background()))
	}
	return s, nil
}

// recordStart writes the start record of this epoch and waits for it. On a
// full disk it is written with the next record that finds room.
func (s *Store) recordStart() error {
	if err := s.wal.Lock(); err != nil {
		return err
	}
	s.unstarted = true
	s.writeStart()
	return s.wait(context.Background())
}

// writeStart writes the start record if that is still to be done. The append
// lock is held.
func (s *Store) writeStart() {
	if !s.unstarted || s.reserve(journal.RecordHeader+maxSmall, false) != nil {
		return
	}
	s.unstarted = false
	b := append(s.wal.Start(recStart), recordFormat)
	s.wal.End(fields.AppendUints(b, uint64(s.epoch), uint64(s.newest)), false)
}

// Clock returns the clock, for its figures.
func (s *Store) Clock() *clock.Clock { return s.clock }

// Now is the time by which the store judges deadlines.
func (s *Store) Now() time.Time { return s.clock.Now() }

// milli is Now as the index counts it.
func (s *Store) milli() int64 { return s.clock.Now().UnixMilli() }

// State tells what the store promises and how it is.
func (s *Store) State() broker.State {
	st := broker.State{
		Durability: s.durability, Atomic: true, Ordered: true, StaleRefused: true, Selective: true,
		Resolution: time.Millisecond, Nodes: 1, Err: s.closed(),
	}
	st.Full = s.short(s.milli())
	return st
}

// Stored implements broker.Store. It is exact.
func (s *Store) Stored() int64 { return s.holds.Load() }

// short reports whether the disk has so little room that only what leads to
// more is taken. It is asked at every Submit.
func (s *Store) short(now int64) bool { return s.journal != nil && s.journal.Low(now) }

// Bind gives the receiver of events and starts time.
func (s *Store) Bind(e broker.Events) {
	s.events = e
	s.bound.Store(true)
	var l waitQueue
	now := s.milli()
	for _, t := range s.all() {
		if q := t.q; q != nil {
			q.mu.Lock()
			q.advance(now, &l)
			q.schedule()
			q.mu.Unlock()
		} else {
			t.st.wake()
		}
	}
	s.handOut(&l)
	s.helpers.Go(s.run)
	s.helpers.Go(s.write)
	if s.journal != nil {
		s.upkeep.running.Go(s.keepUp)
		s.upkeep.wake()
	}
}

// Close refuses new work, ends every wait, and waits for what is under way.
func (s *Store) Close(ctx context.Context) error {
	var err error
	s.closeOne.Do(func() {
		s.closing.Store(true)
		s.endWaits()
		if s.wal.Lock() == nil {
			s.flushNotes()
			s.wal.Unlock(journal.Lazy, nil)
		}
		s.upkeep.end()
		s.lastCheckpoint(ctx)
		err = s.wal.Close(ctx)
		close(s.stop)
		s.helpers.Wait()
		s.closeFiles()
		if s.unlockDir != nil {
			err = errors.Join(err, s.unlockDir())
		}
	})
	return err
}

// closed says why nothing is taken any more.
func (s *Store) closed() error {
	if s.closing.Load() {
		return broker.ErrClosed
	}
	if p := s.poison.Load(); p != nil {
		return unavailable(*p)
	}
	return nil
}

// failed ends the store after the first failed write or sync: what is not on
// disk must not be acted upon, and what is can be read after a restart.
func (s *Store) failed(err error) {
	if s.poison.CompareAndSwap(nil, &err) {
		go s.endWaits() // it calls sinks, and ends with the last of them
	}
}

// endWaits answers all that wait.
func (s *Store) endWaits() {
	s.ended.Store(true)
	err := s.closed()
	for _, t := range s.all() {
		s.endWaitsAt(t, err)
	}
	s.failTakers(err)
}

// endWaitsAt answers the waits of one target.
func (s *Store) endWaitsAt(t target, err error) {
	if t.q != nil {
		s.endWaitsOf(t.q, err)
	} else {
		s.endReads(t.st, err)
	}
}

// endWaitsOf answers the waits of one queue.
func (s *Store) endWaitsOf(q *queue, err error) {
	var l waitQueue
	q.mu.Lock()
	for q.waits.any() {
		wt := q.waits.until[0]
		q.waits.remove(wt)
		wt.w.Err = err
		l.push(wt)
	}
	q.mu.Unlock()
	s.handOut(&l)
}

// after keeps the clock of units behind a time.
func (s *Store) after(t int64) {
	for old := s.floor.Load(); old <= t; old = s.floor.Load() {
		if s.floor.CompareAndSwap(old, t+1) {
			return
		}
	}
}
