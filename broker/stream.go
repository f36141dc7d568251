package broker

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"millrace/broker/auth"
)

const maxPartitions = 1024

// StreamConfig is everything that can be set about a stream. NewStreamConfig
// gives the defaults.
type StreamConfig struct {
	Name       string        // any characters but controls; at most 255 bytes
	Filter     string        // what is published to it
	Retention  time.Duration // default 7 days, at least a day
	MaxBytes   int64         // default 10 GiB, at least 1 GiB; of all partitions together
	Partitions int           // default 1, at most 1,024; only grows
	Created    time.Time
}

// NewStreamConfig returns the defaults for a stream fed by filter.
func NewStreamConfig(name, filter string) StreamConfig {
	return StreamConfig{Name: name, Filter: filter, Retention: 7 * 24 * time.Hour, MaxBytes: 10 << 30, Partitions: 1}
}

func (b *Broker) validateStream(c *StreamConfig) error {
	control := func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }
	switch {
	case c.Name == "" || len(c.Name) > maxNameBytes || strings.ContainsFunc(c.Name, control):
		return fieldError("name", "%q is not a stream name: 1 to %d bytes, no control characters", c.Name, maxNameBytes)
	case c.Partitions < 1 || c.Partitions > maxPartitions:
		return fieldError("partition_count", "is %d; it must be 1 to %d", c.Partitions, maxPartitions)
	case c.Retention < 24*time.Hour || c.Retention > maxDuration:
		return fieldError("retention_days", "is %v; it must be 1 to 36500", c.Retention.Hours()/24)
	case c.MaxBytes < 1<<30 || c.MaxBytes > 1<<50:
		return fieldError("max_size_gb", "is %d; it must be 1 to 1048576", c.MaxBytes>>30)
	}
	return b.checkBinding(c.Filter)
}

func (c *StreamConfig) def() Def {
	meta, _ := json.Marshal(c) // plain fields: cannot fail
	return Def{
		Name: c.Name, Kind: StreamTarget, Meta: meta,
		Partitions: uint32(c.Partitions), Retention: c.Retention, MaxBytes: c.MaxBytes,
	}
}

// stream is a stream that exists.
type stream struct {
	target   Target
	settings atomic.Pointer[StreamConfig]
	subs     map[string]*queue // by name, under Broker.mu
	turn     atomic.Uint32     // round robin over the partitions
}

func (*stream) destination() {}

func (s *stream) config() *StreamConfig { return s.settings.Load() }

// StreamInfo is a stream and its counts, one for each partition.
type StreamInfo struct {
	StreamConfig
	Incarnation uint64 // tells it from others that had or will have its name
	Partitioned []PartitionInfo
	Bytes       int64
	Durability  Durability
}

// CreateStream makes a stream. It receives what is published from now on.
// Errors: Invalid, Forbidden, Conflict when the name is taken, Full when there are
// as many streams as there may be.
func (b *Broker) CreateStream(ctx context.Context, c StreamConfig) (StreamInfo, error) {
	if err := b.may(ctx, auth.Manage, auth.StreamResource(c.Name)); err != nil {
		return StreamInfo{}, err
	}
	if err := b.validateStream(&c); err != nil {
		return StreamInfo{}, err
	}
	if err := b.mayFeed(ctx, c.Filter); err != nil {
		return StreamInfo{}, err
	}
	b.defining.Lock()
	defer b.defining.Unlock()
	s, err := b.defineStream(ctx, &c)
	if err != nil {
		return StreamInfo{}, err
	}
	return b.streamInfo(ctx, s)
}

// defineStream makes a stream; defining is held.
func (b *Broker) defineStream(ctx context.Context, c *StreamConfig) (*stream, error) {
	c.Created = b.Now().UTC().Truncate(time.Millisecond)
	err := ErrConflict
	if b.streamNamed(c.Name) == nil {
		if err := b.roomForStream(); err != nil {
			return nil, err
		}
		err = b.define(ctx, NewTarget, c.def())
	}
	if errors.Is(err, ErrConflict) {
		return nil, errorf(Conflict, StreamSubject, "stream %s exists already", c.Name)
	}
	if err != nil {
		return nil, storeError(err)
	}
	b.log.Info().Str("stream", c.Name).Str("filter", c.Filter).Msg("stream created")
	if s := b.streamNamed(c.Name); s != nil {
		return s, nil
	}
	return nil, noStream(c.Name) // another node deleted it
}

// UpdateStream applies change to the present settings; the result must be valid
// as a whole. Limits hold at once, a changed filter for new messages only. The
// name cannot change, and partitions only grow: Conflict if there are fewer.
// change is called again about newer settings where another node was faster.
func (b *Broker) UpdateStream(ctx context.Context, name string, change func(*StreamConfig) error) (StreamInfo, error) {
	if err := b.may(ctx, auth.Manage, auth.StreamResource(name)); err != nil {
		return StreamInfo{}, err
	}
	b.defining.Lock()
	defer b.defining.Unlock()
	s := b.streamNamed(name)
	if s == nil {
		return StreamInfo{}, noStream(name)
	}
	err := alter(ctx, b, s.target, *s.config(), func(old StreamConfig) (Def, error) {
		c := old
		if err := change(&c); err != nil {
			return Def{}, err
		}
		return c.def(), b.streamMayBecome(ctx, &old, &c)
	})
	if isGone(err) {
		return StreamInfo{}, noStream(name) // another node deleted it
	}
	if err != nil {
		return StreamInfo{}, storeError(err)
	}
	b.log.Info().Str("stream", name).Msg("stream changed")
	return b.streamInfo(ctx, s)
}

// streamMayBecome checks the new settings of a stream.
func (b *Broker) streamMayBecome(ctx context.Context, old, c *StreamConfig) error {
	if c.Name != old.Name {
		return fieldError("name", "cannot be changed")
	}
	if err := b.validateStream(c); err != nil {
		return err
	}
	if c.Filter != old.Filter {
		if err := b.mayFeed(ctx, c.Filter); err != nil {
			return err
		}
	}
	if c.Partitions < old.Partitions {
		e := fieldError("partition_count", "is %d; the stream has %d, and partitions only grow", c.Partitions, old.Partitions)
		e.Kind = Conflict
		return e
	}
	return nil
}

// DeleteStream removes a stream with all it holds, its cursors and subscriptions.
// Reads and receives that wait on it end in NotFound at once.
func (b *Broker) DeleteStream(ctx context.Context, name string) error {
	if err := b.may(ctx, auth.Manage, auth.StreamResource(name)); err != nil {
		return err
	}
	b.defining.Lock()
	defer b.defining.Unlock()
	s := b.streamNamed(name)
	if s == nil {
		return noStream(name)
	}
	err := b.drop(ctx, StreamTarget, s.target, name)
	b.auth.Audit(ctx, auth.Event{What: auth.StreamDeleted, Target: "stream:" + name, Err: err})
	if isGone(err) {
		return noStream(name)
	}
	if err != nil {
		return storeError(err)
	}
	if err := b.dropKeys(ctx, s, SpaceCursors, SpaceSchemas); err != nil {
		return storeError(err)
	}
	b.log.Info().Str("stream", name).Msg("stream deleted")
	return nil
}

// Stream shows one stream.
func (b *Broker) Stream(ctx context.Context, name string) (StreamInfo, error) {
	return b.StreamFor(ctx, auth.View, name)
}

// StreamFor shows one stream to whoever may do act to it.
func (b *Broker) StreamFor(ctx context.Context, act auth.Action, name string) (StreamInfo, error) {
	s, err := b.lookupStream(ctx, act, name)
	if err != nil {
		return StreamInfo{}, err
	}
	return b.streamInfo(ctx, s)
}

// lookupStream finds a stream that the principal of ctx may act on. Without the
// right the answer is Forbidden, whether the stream exists or not.
func (b *Broker) lookupStream(ctx context.Context, act auth.Action, name string) (*stream, error) {
	if err := b.may(ctx, act, auth.StreamResource(name)); err != nil {
		return nil, err
	}
	s, err := known(b, func() *stream { return b.streamNamed(name) })
	if s == nil && err == nil {
		err = noStream(name)
	}
	return s, err
}

// Streams lists the streams that the principal may see, by name.
func (b *Broker) Streams(ctx context.Context) ([]StreamInfo, error) {
	p := auth.From(ctx)
	return infos(ctx, slices.DeleteFunc(b.streamsByName(), func(s *stream) bool {
		return !b.auth.Allow(p, auth.View, auth.StreamResource(s.config().Name))
	}), b.streamInfo)
}

func (b *Broker) streamInfo(ctx context.Context, s *stream) (StreamInfo, error) {
	info, err := b.store.Info(ctx, s.target)
	if isGone(err) {
		return StreamInfo{}, noStream(s.config().Name) // deleted meanwhile
	}
	if err != nil {
		return StreamInfo{}, storeError(err)
	}
	return StreamInfo{
		StreamConfig: *s.config(), Incarnation: uint64(s.target), Partitioned: info.Partitions, Bytes: info.Bytes,
		Durability: b.durability,
	}, nil
}

func noStream(name string) error {
	return errorf(NotFound, StreamSubject, "stream %q does not exist; create it first", name)
}
