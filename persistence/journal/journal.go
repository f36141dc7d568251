package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Options configure a Journal. Zero values take the stated default.
type Options struct {
	FS  FS     // default the machine's
	Dir string // required; holds the segments and nothing else

	// The first segment a process makes has FirstSegmentSize bytes, each further
	// one twice as many up to SegmentSize, so that a start writes little.
	SegmentSize      int64 // default 64 MiB
	FirstSegmentSize int64 // default 4 MiB

	WindowSize int // bytes of one commit window; default 1 MiB
	MaxPending int // unwritten bytes at which Lock waits; default 16 MiB
	CacheSize  int // bytes of windows kept for Read; default 64 MiB

	// Relaxed answers after the write, which survives the end of the process
	// but not of the machine, and syncs every SyncEvery or 16 MiB.
	Relaxed   bool
	SyncEvery time.Duration // default 1s

	// MarkEvery is how far the watermark lags behind while something is
	// committed: what was durable longer than that is missed if it goes missing.
	MarkEvery time.Duration // default 1s

	// From is where replay starts; segments before it may be missing. Zero
	// replays the whole log, which then must be there from its first segment.
	From Position
	// Earlier is called before replay for each segment with records before From, in
	// order. It may set End if that is 0. An error ends Open.
	Earlier func(*Earlier) error
	// Sealed is called when a segment is full and all of it durable, by a goroutine
	// of the journal. It must not block.
	Sealed func(number uint32)
	// AcceptLoss opens a damaged log all the same: what is damaged is given up
	// for good and logged. Lost is told of each loss in log order, before anything
	// is changed; its error ends Open. What was there instead is kept in the
	// directory Quarantine, default a folder of that name in Dir.
	AcceptLoss bool
	Lost       func(Loss) error
	Quarantine string
	// LowDisk is the free space of the disk below which Low says so; default the
	// larger of two segments at their present size and min(5 %, 2 GiB).
	LowDisk int64
	// RetryEvery is the time between attempts to prepare a segment after one
	// failed; default 1s.
	RetryEvery time.Duration

	// Synced is told how long each fdatasync of the log took; it must not block.
	Synced func(took time.Duration)
	Failed func(error) // called once, when the journal is poisoned; must not block
	Log    zerolog.Logger
}

func (o *Options) validate() error {
	if o.FS == nil {
		o.FS = OS()
	}
	o.Quarantine = cmp.Or(o.Quarantine, filepath.Join(o.Dir, "quarantine"))
	setDefault(&o.SegmentSize, 64<<20)
	setDefault(&o.FirstSegmentSize, min(4<<20, o.SegmentSize))
	setDefault(&o.WindowSize, 1<<20)
	setDefault(&o.MaxPending, 16<<20)
	setDefault(&o.CacheSize, 64<<20)
	setDefault(&o.SyncEvery, time.Second)
	setDefault(&o.MarkEvery, time.Second)
	setDefault(&o.RetryEvery, time.Second)
	switch {
	case o.Dir == "":
		return errors.New("journal: no directory given")
	case o.FirstSegmentSize < 2*pageSize || o.SegmentSize > maxSegmentSize || o.FirstSegmentSize > o.SegmentSize:
		return fmt.Errorf("journal: segment sizes must satisfy %d <= first (%d) <= regular (%d) <= %d",
			2*pageSize, o.FirstSegmentSize, o.SegmentSize, int64(maxSegmentSize))
	case o.SegmentSize%pageSize != 0 || o.FirstSegmentSize%pageSize != 0 || o.WindowSize%pageSize != 0:
		return fmt.Errorf("journal: segment and window sizes must be multiples of %d", pageSize)
	}
	return nil
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

var (
	// ErrClosed is returned by calls after Close.
	ErrClosed = errors.New("journal: closed")
	// ErrFull says that the segment an append needs could not be prepared.
	// The journal is healthy, and recovers by itself once there is space.
	ErrFull = errors.New("journal: no room for a new segment")
	// ErrTooLarge refuses a group that no segment could hold.
	ErrTooLarge = errors.New("journal: group larger than the largest segment")
)

// Level is what an append waits for.
type Level uint8

const (
	// Durable completes after fdatasync, or after the write if Options.Relaxed.
	Durable Level = iota
	// Lazy is for records that nobody waits for: they are written at once, and
	// become durable with the next commit that somebody waits for. A completion
	// given with it only says that they are written.
	Lazy
)

// Completion hears the outcome of an append. Done is called once, in log order,
// by one goroutine of the journal that holds no lock, never by the one that
// calls Unlock. It must not block. A nil error means that the records survive
// (see Level); any other error leaves their fate open.
type Completion interface{ Done(err error) }

// Journal is an open log. All methods may be called by many goroutines, except
// that Reserve, Start, End and Abandon belong to the holder of the lock.
type Journal struct {
	o     Options
	store storeID

	appendMu sync.Mutex
	appender // guarded by appendMu

	halted    atomic.Bool   // err or closing is set: Lock looks closer
	unwritten atomic.Int64  // bytes appended and not yet written
	durable   atomic.Uint64 // Position below which everything is synced
	poison    atomic.Pointer[error]

	mu       sync.Mutex
	work     sync.Cond // for the flusher: there is something to do
	room     sync.Cond // for Lock: bytes were written
	ready    sync.Cond // for Reserve: an attempt to prepare a segment ended
	closing  bool
	shut     bool // the flusher leaves when nothing is left
	asleep   bool // the flusher waits for work
	dirty    []*window
	waiters  []Completion
	waiting  int      // durable ones among waiters
	wantSync bool     // somebody waits for fdatasync
	mustSync bool     // even in relaxed mode
	end      Position // where the published records end
	prepared

	gatherAt int           // waiters at which a gathering flusher goes on; 0 = it does not gather
	gathered chan struct{} // they are there

	cacheMu    sync.RWMutex
	cache      []*window // oldest first; the last one is appended to
	cacheBytes int

	tableMu sync.Mutex
	table   map[uint32]*segment // active segments
	opened  int                 // files of table that are open
	free    []freeFile

	flusher   flusher
	done      chan *batch
	spare     chan *batch
	unsynced  chan struct{} // Relaxed: something was written
	soon      chan struct{} // Relaxed: much was written
	quit      chan struct{}
	commits   sync.WaitGroup // flusher and completer
	helpers   sync.WaitGroup // preparer, marker and syncer
	released  chan struct{}  // closed when Close has finished
	recovered Position
	mark      watermark
	space     space
	stats     stats
}

type stats struct {
	syncs, writes, bytes atomic.Uint64
	meanSync             atomic.Int64 // nanoseconds, moving
}

// Open recovers the log in o.Dir, which it makes if needed, and calls replay
// for each whole atomic group from o.From on, in log order. Records and bodies
// are valid only during the call. An error of replay ends Open.
//
// What replay sees is durable when Open returns. A log that lacks something
// that was durable is refused with a *DamageError, unless o.AcceptLoss.
// New records go to a new segment, never behind a tail that may be torn.
func Open(o Options, replay func(group []Record) error) (*Journal, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	j := &Journal{
		o: o, table: map[uint32]*segment{},
		gathered: make(chan struct{}, 1),
		done:     make(chan *batch, 16), spare: make(chan *batch, 18),
		unsynced: make(chan struct{}, 1), soon: make(chan struct{}, 1),
		quit: make(chan struct{}), released: make(chan struct{}),
	}
	j.work.L, j.room.L, j.ready.L = &j.mu, &j.mu, &j.mu
	j.ask, j.mark.wake = make(chan struct{}, 1), make(chan struct{}, 1)
	j.regular = o.FirstSegmentSize
	if err := j.recover(replay); err != nil {
		j.closeFiles()
		return nil, fmt.Errorf("open journal %s: %w", o.Dir, err)
	}
	j.commits.Go(j.flush)
	j.commits.Go(j.complete)
	j.helpers.Go(j.prepareSegments)
	j.helpers.Go(j.keepMark)
	if o.Relaxed {
		j.helpers.Go(j.syncEvery)
	}
	if err := j.firstSegment(); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", o.Dir, err), j.Close(context.Background()))
	}
	return j, nil
}

// firstSegment waits until the first segment is prepared. A full disk is no
// reason not to open: what is stored can still be read.
func (j *Journal) firstSegment() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.requestSegment(0)
	for j.next == nil && j.prepErr == nil {
		j.ready.Wait()
	}
	if j.next == nil && !isFull(j.prepErr) {
		return j.prepErr
	}
	return nil
}

// State is a snapshot of a Journal for metrics and for its owner.
type State struct {
	Err       error    // the journal is poisoned
	Full      bool     // the next segment could not be prepared, or is the reserve
	Low       bool     // the disk had too little room when it was looked at last
	Durable   Position // everything before it survives a power cut
	End       Position // where the published records end
	Recovered Position // where the log ended when it was opened
	Marked    Position // and where the watermark said that it must at least; 0 = it said nothing
	StoreID   [16]byte // made with the first segment, in every header

	Segments int   // active ones
	Bytes    int64 // their size on disk
	Free     int   // files kept for reuse
	Pending  int64 // bytes appended and not yet written

	Syncs, Writes, Written uint64 // fdatasync calls, write calls and bytes since Open
	MeanSync               time.Duration
}

// State tells how the journal is.
func (j *Journal) State() State {
	s := State{
		Err: j.poisoned(), StoreID: j.store, Recovered: j.recovered, Marked: j.mark.found,
		Durable: Position(j.durable.Load()), Pending: j.unwritten.Load(),
		Syncs: j.stats.syncs.Load(), Writes: j.stats.writes.Load(), Written: j.stats.bytes.Load(),
		MeanSync: time.Duration(j.stats.meanSync.Load()),
	}
	j.mu.Lock()
	s.End = j.end
	s.Full, s.Low = j.space.full.Load(), j.space.low.Load()
	j.mu.Unlock()
	j.tableMu.Lock()
	defer j.tableMu.Unlock()
	s.Segments, s.Free = len(j.table), len(j.free)
	for _, seg := range j.table {
		s.Bytes += seg.size
	}
	return s
}

func (j *Journal) poisoned() error {
	if p := j.poison.Load(); p != nil {
		return *p
	}
	return nil
}

// fail poisons the journal with its first error.
func (j *Journal) fail(err error) {
	err = fmt.Errorf("journal failed: %w", err)
	if !j.poison.CompareAndSwap(nil, &err) {
		return
	}
	j.mu.Lock()
	j.halted.Store(true)
	j.room.Broadcast()
	j.ready.Broadcast()
	j.mu.Unlock()
	j.o.Log.Error().Err(err).Str("dir", j.o.Dir).Msg("journal failed")
	if j.o.Failed != nil {
		j.o.Failed(err)
	}
}

// Close refuses new appends, writes and syncs what is pending, completes it and
// releases the files. If ctx ends first, that goes on behind Close's back.
// It returns the error that poisoned the journal, if one did.
func (j *Journal) Close(ctx context.Context) error {
	j.mu.Lock()
	first := !j.closing
	j.closing = true
	j.halted.Store(true)
	j.room.Broadcast()
	j.ready.Broadcast()
	j.mu.Unlock()
	if first {
		go j.release()
	}
	select {
	case <-j.released:
		return j.poisoned()
	case <-ctx.Done():
		return fmt.Errorf("close journal: %w", context.Cause(ctx))
	}
}

// release is the rest of Close.
func (j *Journal) release() {
	defer close(j.released)
	close(j.quit)
	j.helpers.Wait()
	j.seal()
	j.mu.Lock()
	j.shut = true
	j.work.Signal()
	j.mu.Unlock()
	j.commits.Wait()
	if j.poisoned() == nil {
		_ = j.writeMark(Position(j.durable.Load())) // logged; an older mark only proves less
	}
	j.closeFiles()
}

func (j *Journal) closeFiles() {
	j.closeMark()
	j.tableMu.Lock()
	defer j.tableMu.Unlock()
	for _, s := range j.table {
		if s.file != nil {
			_ = s.file.Close() // synced, or poisoned and said so
			s.file = nil
		}
	}
	if j.next != nil {
		_ = j.next.file.Close() // prepared and synced
	}
}
