package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
)

// Servers that lose messages say nothing of it: a stream that was restored, or whose disks
// had not synced, ends before it did, or is not there. So the node knows how far each
// stream goes, and writes that down in the bucket of the node, for those that lead after
// it. loss.go has what becomes of one that ends below.
const (
	watermarkKey = "watermarks"
	markEvery    = time.Second // how far streams go is written down
	askEvery     = time.Minute // streams are asked, for those to which nobody adds
	// shortFor is how long a stream has to end below its watermark before that is believed: a
	// leader that was elected just now may not have applied all that it has.
	shortFor = 15 * time.Second
)

// watermarks are those of all streams.
type watermarks struct {
	s      *Store
	told   atomic.Pointer[[]broker.Loss] // for State
	raised chan struct{}                 // one goes further than is written down; holds one
	doubts chan struct{}                 // they are to be asked soon; holds one
	elects atomic.Bool                   // the servers elect leaders: there are several
	turn   chan struct{}                 // holds one while a key of theirs is written: the newest is the last

	mu      sync.Mutex
	of      map[string]*watermark // by stream
	written map[string]uint64
	losses  []loss
	blind   *broker.Loss // the bucket of the node was gone when the store was opened
}

// watermark is how far one stream goes.
type watermark struct {
	s      *Store
	stream string
	kind   broker.TargetKind // of the one target that has the stream, 0 if several share it
	name   string            // of that target
	filler filler
	kept   bool // it can lose something: it is not in memory
	fell   bool // something was lost since the last start

	acked atomic.Uint64               // the highest sequence that an answer had
	short atomic.Bool                 // the stream was seen to end below
	lost  atomic.Pointer[broker.Loss] // why nothing is added
	since time.Time                   // when the stream was first seen so
}

func newWatermarks(s *Store) *watermarks {
	m := &watermarks{s: s, of: map[string]*watermark{}, raised: make(chan struct{}, 1), doubts: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
	m.told.Store(&[]broker.Loss{})
	return m
}

// openMarks reads how far streams went, and looks after those that all targets share,
// before anything is read from them. The buckets are known.
func (s *Store) openMarks(ctx context.Context) error {
	n := s.names
	s.water.dead = s.marks.shared(n.deadStream(), filler{subject: n.deadSubject(0, 0)})
	s.water.delayed = s.marks.shared(n.delayStream(), filler{subject: n.scheduledSubject(0, broker.ID{})})
	s.water.log = s.marks.shared(n.logStream(), filler{subject: n.logSubject()})
	if err := s.marks.read(ctx); err != nil {
		return err
	}
	if s.marks.blind != nil {
		if err := s.marks.record(ctx); err != nil {
			return err
		}
	}
	return s.marks.verify(ctx, slices.Collect(maps.Values(s.marks.of)))
}

// shared is the watermark of a stream that several targets share.
func (m *watermarks) shared(stream string, f filler) *watermark {
	return m.add(&watermark{s: m.s, stream: stream, filler: f})
}

// own is the watermark of a stream that is one target's. One in memory is not kept: it is
// empty whenever its server starts.
func (m *watermarks) own(stream, subject string, d *broker.Def) *watermark {
	w := &watermark{s: m.s, stream: stream, kind: d.Kind, name: d.Name, filler: filler{subject: subject, stays: d.Kind == broker.StreamTarget}}
	if d.Volatile {
		return w
	}
	return m.add(w)
}

// ownMarks are the watermarks of what is defined.
func (s *Store) ownMarks(list []record) (all []*watermark) {
	for _, r := range list {
		switch r.Def.Kind {
		case broker.QueueTarget:
			all = append(all, s.marks.own(s.names.queueStream(r.ID), s.names.queueSubject(r.ID), &r.Def))
		case broker.StreamTarget:
			for p := range r.Def.Partitions {
				all = append(all, s.marks.own(s.names.partitionStream(r.ID, p), s.names.partitionSubject(r.ID, p), &r.Def))
			}
		default: // sessions share the log, and subscriptions have no stream
		}
	}
	return slices.DeleteFunc(all, func(w *watermark) bool { return !w.kept })
}

// add makes w known, unless there is one of its stream.
func (m *watermarks) add(w *watermark) *watermark {
	m.mu.Lock()
	defer m.mu.Unlock()
	if have := m.of[w.stream]; have != nil {
		return have
	}
	w.kept = true
	m.of[w.stream] = w
	return w
}

// next is the first sequence of a stream that is made: 0 where there never was one of the
// name, else behind what that had.
func (m *watermarks) next(stream string) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.of[stream]; w != nil && w.level() > 0 {
		return w.level() + 1
	}
	return 0
}

// all lists those of streams that have anything to lose.
func (m *watermarks) all() (list []*watermark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.of {
		if w.acked.Load() > 0 {
			list = append(list, w)
		}
	}
	return list
}

// forget drops the watermark of a stream that is about to be deleted, and its loss.
func (m *watermarks) forget(ctx context.Context, stream string) error {
	m.mu.Lock()
	delete(m.of, stream)
	m.mu.Unlock()
	return m.settle(ctx)
}

// drop deletes the stream, and forgets that it was there.
func (w *watermark) drop(ctx context.Context) error {
	if err := w.s.marks.forget(ctx, w.stream); err != nil {
		return err
	}
	return w.s.deleteStream(ctx, w.stream)
}

// level is what answered has to know of a publish that begins now.
func (w *watermark) level() uint64 { return w.acked.Load() }

// answered reads the answer to a publish that began at a level. A place that was answered
// for another message before it began shows that this one is gone. What is told then, and
// after it, is no acknowledgement.
func (w *watermark) answered(from uint64, m *nats.Msg, err error) (pubAck, error) {
	if errors.Is(err, errNobody) { // the stream may be gone
		wake(w.s.marks.doubts)
	}
	if err != nil {
		return pubAck{}, err
	}
	a, err := parseAck(m.Data)
	if err != nil || !w.kept {
		return a, err
	}
	if a.Seq <= from && !a.Duplicate {
		w.fall(a.Seq-1, true)
	}
	if w.short.Load() {
		return pubAck{}, fmt.Errorf("%w: stream %s has lost messages", broker.ErrUnknown, w.stream)
	}
	w.raise(a.Seq)
	return a, nil
}

// wait publishes k and waits for its answer.
func (w *watermark) wait(ctx context.Context, subject string, header nats.Header, data []byte) (pubAck, error) {
	from := w.level()
	m, err := w.s.calls.wait(ctx, subject, header, data)
	return w.answered(from, m, err)
}

// raise notes that the stream goes as far as seq.
func (w *watermark) raise(seq uint64) {
	for have := w.acked.Load(); seq > have; have = w.acked.Load() {
		if w.acked.CompareAndSwap(have, seq) {
			wake(w.s.marks.raised)
			return
		}
	}
}

// wake has somebody look who waits for c.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// refuses is why nothing is added to the stream, or nil.
func (w *watermark) refuses() error {
	if l := w.lost.Load(); l != nil {
		return &lossError{l}
	}
	return nil
}

// keep writes down how far streams go, soon after it changed, and asks them now and then,
// until the store closes.
func (m *watermarks) keep() {
	look := time.NewTicker(askEvery)
	defer look.Stop()
	soon := time.NewTimer(markEvery) // while it runs, something may have to be written
	for {
		select {
		case <-m.s.ctx.Done():
			return
		case <-m.raised:
			soon.Reset(markEvery)
			select {
			case <-m.s.ctx.Done():
				return
			case <-soon.C:
			}
			if err := m.write(m.s.ctx); err != nil {
				m.s.log.Debug().Err(err).Msg("how far streams go is not written down, and is tried again")
				wake(m.raised)
			}
		case <-look.C:
			wake(m.doubts)
		case <-m.doubts:
			if m.look(m.s.ctx) {
				time.AfterFunc(markEvery, func() { wake(m.doubts) })
			}
		}
	}
}

// write writes down how far streams go, if that changed.
func (m *watermarks) write(ctx context.Context) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer func() { <-m.turn }()
	now := map[string]uint64{}
	for _, w := range m.all() {
		now[w.stream] = w.acked.Load()
	}
	m.mu.Lock()
	same := maps.Equal(now, m.written)
	m.mu.Unlock()
	if same || m.s.failed.Load() != nil {
		return nil
	}
	value, err := json.Marshal(now)
	if err != nil {
		return err
	}
	if _, err := m.s.node.set(ctx, watermarkKey, value, 0); err != nil {
		return err
	}
	m.mu.Lock()
	m.written = now
	m.mu.Unlock()
	return nil
}

// enter waits for the turn to write.
func (m *watermarks) enter(ctx context.Context) error {
	select {
	case m.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", broker.ErrUnknown, ctx.Err())
	}
}

// look asks the streams how far they go. It reports whether one is short, which is looked
// at again soon.
func (m *watermarks) look(ctx context.Context) (doubt bool) {
	for _, w := range m.all() {
		if w.short.Load() {
			continue
		}
		level := w.level()
		at, err := m.ask(ctx, w)
		m.mu.Lock()
		known := m.of[w.stream] == w
		m.mu.Unlock()
		switch {
		case err != nil: // no leader just now
			return doubt
		case at.Last >= level || !known:
			w.since = time.Time{}
		case w.since.IsZero() && m.patience() > 0:
			w.since, doubt = time.Now(), true
		case time.Since(w.since) < m.patience():
			doubt = true
		default:
			w.fall(at.Last, false)
		}
	}
	return doubt
}

// ask is the state of a stream, that of an empty one if there is none.
func (m *watermarks) ask(ctx context.Context, w *watermark) (streamState, error) {
	ctx, cancel := context.WithTimeout(ctx, giveUpAfter)
	defer cancel()
	at, err := m.s.state(ctx, w.stream)
	if e, ok := errors.AsType[*apiError](err); ok && e.ErrCode == errNoStream {
		return streamState{}, nil
	}
	return at, err
}

// patience is how long a stream must be short: a lone server elects nobody.
func (m *watermarks) patience() time.Duration {
	if m.elects.Load() {
		return shortFor
	}
	return 0
}
