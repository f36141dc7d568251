package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"millrace/broker"
)

// stream is one JetStream stream for each partition. An offset is a sequence
// less one.
type stream struct {
	s  *Store
	id broker.Target

	mu      sync.Mutex
	def     broker.Def
	parts   []*partition
	waits   map[*broker.Wait]*reading
	subs    []*subscription
	watch   *time.Timer // for what retention takes, while there are subs
	dropped bool
	cutting bool // the oldest are being taken
}

// partition of a stream.
type partition struct {
	of      *stream
	number  uint32
	stream  string
	subject string
	water   *watermark

	// Under the lock of the stream:
	first uint64    // offset of the first message, as far as it is known
	born  time.Time // when that came
	next  uint64    // offset of the next message
	bytes int64     // about what it holds, as JetStream counts: never less
}

// openStream opens or makes the streams of the partitions.
func (s *Store) openStream(ctx context.Context, id broker.Target, d broker.Def) (*stream, error) {
	t := &stream{s: s, id: id, waits: map[*broker.Wait]*reading{}}
	return t, t.resize(ctx, d)
}

// resize makes partitions that are not there, and gives all of them their limits.
func (t *stream) resize(ctx context.Context, d broker.Def) error {
	for n := range d.Partitions {
		p := &partition{of: t, number: n, stream: t.s.names.partitionStream(t.id, n), subject: t.s.names.partitionSubject(t.id, n)}
		p.water = t.s.marks.own(p.stream, p.subject, &d)
		c := jetstream.StreamConfig{
			Name: p.stream, Subjects: []string{p.subject}, Discard: jetstream.DiscardOld, Duplicates: dedupWindow,
			MaxAge: d.Retention, AllowDirect: true,
		}
		if d.Retention > 0 {
			c.Duplicates = min(dedupWindow, d.Retention)
		}
		if d.Volatile {
			c.Storage, c.Replicas = jetstream.MemoryStorage, 1
		}
		if err := t.s.createStream(ctx, c); err != nil {
			return err
		}
		at, err := soon(ctx, p.state)
		if err != nil {
			return err
		}
		t.mu.Lock()
		p.bytes = at.Bytes
		if int(n) == len(t.parts) {
			t.parts = append(t.parts, p)
		}
		t.mu.Unlock()
	}
	t.mu.Lock()
	t.def = d
	t.watchOut()
	t.mu.Unlock()
	return t.cut(ctx)
}

func (t *stream) definition() broker.Definition {
	t.mu.Lock()
	defer t.mu.Unlock()
	return broker.Definition{Target: t.id, Def: t.def}
}

// refuses is why nothing is added to it, or nil: a partition lost something.
func (t *stream) refuses() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.parts {
		if err := p.water.refuses(); err != nil {
			return err
		}
	}
	return nil
}

func (t *stream) name() string { return t.definition().Def.Name }

// partition returns one, or nil.
func (t *stream) partition(n uint32) *partition {
	t.mu.Lock()
	defer t.mu.Unlock()
	if int(n) >= len(t.parts) {
		return nil
	}
	return t.parts[n]
}

// alter implements target.
func (t *stream) alter(ctx context.Context, d broker.Def) error { return t.resize(ctx, d) }

func (t *stream) begin()       {}
func (t *stream) reconnected() {}

// drop implements target.
func (t *stream) drop(ctx context.Context) error {
	t.end(broker.ErrGone)
	for _, p := range t.parts {
		if err := p.water.drop(ctx); err != nil {
			return err
		}
	}
	return nil
}

// close implements target.
func (t *stream) close(context.Context) error {
	t.end(broker.ErrClosed)
	return nil
}

// end ends every wait.
func (t *stream) end(why error) {
	t.mu.Lock()
	t.dropped = true
	var all []*reading
	for _, r := range t.waits {
		all = append(all, r)
	}
	clear(t.waits)
	if t.watch != nil {
		t.watch.Stop()
	}
	t.mu.Unlock()
	for _, r := range all {
		r.stop()
		r.w.Err = why
		t.s.deliver(r.w)
	}
}

// appended notes that a message was stored, and wakes who waits for it.
func (p *partition) appended(seq uint64, size int64) {
	t := p.of
	t.mu.Lock()
	p.bytes += size + entryBytes
	t.trim()
	p.next = max(p.next, seq)
	var woken []*reading
	for w, r := range t.waits {
		if r.p == p && r.from < p.next {
			delete(t.waits, w)
			woken = append(woken, r)
		}
	}
	subs := t.subs
	t.watchOut()
	t.mu.Unlock()
	for _, r := range woken {
		r.stop()
		t.s.spawn(func() { t.serve(r) })
	}
	for _, b := range subs {
		b.arrived()
	}
}

// info implements target.
func (t *stream) info(ctx context.Context) (broker.Info, error) {
	t.mu.Lock()
	parts := slices.Clone(t.parts)
	t.mu.Unlock()
	var in broker.Info
	for _, p := range parts {
		b, at, err := p.bounds(ctx)
		if err != nil {
			return in, err
		}
		in.Partitions = append(in.Partitions, b)
		in.In += b.Next
		in.Out[broker.ReasonRetention] += b.First
		in.Ready += at.Msgs
		in.Bytes += b.Bytes
		if at.Msgs > 0 {
			in.Oldest = older(in.Oldest, at.Since.UnixMilli())
		}
	}
	return in, nil
}

// bounds asks what a partition holds.
func (p *partition) bounds(ctx context.Context) (broker.PartitionInfo, streamState, error) {
	at, err := p.state(ctx)
	if err != nil {
		return broker.PartitionInfo{}, at, err
	}
	b := broker.PartitionInfo{First: at.firstOffset(), Next: at.Last, Bytes: at.Bytes}
	if at.Msgs == 0 {
		b.Bytes = 0
	}
	return b, at, nil
}

// read implements target.
func (t *stream) read(ctx context.Context, at broker.Pos, limit int, dst []broker.Delivery) ([]broker.Delivery, error) {
	p, err := t.at(at.Partition)
	if err != nil {
		return dst, err
	}
	from, b, err := p.place(ctx, at)
	if err != nil {
		return dst, err
	}
	dst, _, err = p.copyFrom(ctx, from, b, limit, 0, dst)
	return dst, err
}

// at returns a partition, or the error of one that is not there.
func (t *stream) at(n uint32) (*partition, error) {
	if p := t.partition(n); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%w: stream %q has no partition %d", broker.ErrNotFound, t.name(), n)
}

// place returns the offset that a position means now.
func (p *partition) place(ctx context.Context, at broker.Pos) (uint64, broker.PartitionInfo, error) {
	b, _, err := p.bounds(ctx)
	switch {
	case err != nil:
		return 0, b, err
	case at.End:
		return b.Next, b, nil
	case at.Begin:
		return b.First, b, nil
	case !at.Time.IsZero():
		from, err := p.since(ctx, at.Time, b)
		return from, b, err
	case at.Seq < b.First:
		return 0, b, &broker.RangeError{First: b.First, Next: b.Next}
	}
	return at.Seq, b, nil
}

// since finds the first message that is not before a time, by halving.
func (p *partition) since(ctx context.Context, at time.Time, b broker.PartitionInfo) (uint64, error) {
	low, high := b.First, b.Next
	for low < high {
		mid := low + (high-low)/2
		m, err := p.of.s.fetch(ctx, p.stream, getRequest{Seq: mid + 1})
		if errors.Is(err, broker.ErrNotFound) { // too old meanwhile
			low = mid + 1
			continue
		}
		if err != nil {
			return 0, err
		}
		if m.Time.UnixMilli() < at.UnixMilli() {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, nil
}
