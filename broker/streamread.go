package broker

import (
	"context"
	"errors"
	"time"

	"millrace/broker/auth"
)

// defaultReadBytes bounds one answer of ReadStream that names no limit.
const defaultReadBytes = 8 << 20

// ReadOptions ask for messages of one partition of a stream.
type ReadOptions struct {
	From     Pos           // its Partition, and where in it: an offset, a time, Begin or End
	Max      int           // messages, at least 1
	MaxBytes int           // of all messages; one comes in any case; default 8 MiB
	Wait     time.Duration // 0 = what is there now
	Buffer   *Buffer       // may take what is read, which is then good until its Reset; nil = memory that stays
}

// StreamRead is a part of a partition.
type StreamRead struct {
	Messages []Delivery // Seq is the offset
	Next     uint64     // the offset where a reader goes on, also without a message
	Earliest uint64     // the oldest offset that can be read
	Latest   uint64     // the offset that the next message gets
}

// ReadStream reads a partition from a position on; it returns as soon as one
// message is there, not when o.Max are. Reading takes nothing away. A position
// behind the end, or nothing yet at a time, waits; an empty result is no error.
// When ctx ends first the error is Unavailable.
//
// Errors: Invalid (OffsetSubject, with a *RangeError as its cause) for an
// offset below the earliest; Forbidden, NotFound (also when the stream is
// deleted during the wait), Full when too many receives wait already.
func (b *Broker) ReadStream(ctx context.Context, name string, o ReadOptions) (StreamRead, error) {
	s, err := b.lookupStream(ctx, auth.Consume, name)
	if err != nil {
		return StreamRead{}, err
	}
	switch {
	case b.closed.Load():
		return StreamRead{}, errClosed
	case o.Max < 1:
		return StreamRead{}, fieldError("limit", "is %d; it must be at least 1", o.Max)
	case o.MaxBytes < 0:
		return StreamRead{}, fieldError("max_bytes", "is %d; it must not be negative", o.MaxBytes)
	case o.Wait < 0:
		return StreamRead{}, fieldError("timeout_seconds", "is %v; it must not be negative", o.Wait.Seconds())
	case o.From.Partition >= uint32(s.config().Partitions):
		return StreamRead{}, noPartition(s, o.From.Partition)
	case o.MaxBytes == 0:
		o.MaxBytes = defaultReadBytes
	}
	w := &receive{ready: make(chan struct{})}
	w.Wait = Wait{Target: s.target, From: o.From, Max: o.Max, MaxBytes: o.MaxBytes, Buffer: o.Buffer, Sink: w}
	if o.Wait > 0 {
		if err := b.startWaiting(); err != nil {
			return StreamRead{}, err
		}
		defer b.waiting.Add(-1)
		w.Until = b.Now().Add(o.Wait)
	}
	if ctx.Err() != nil {
		return StreamRead{}, gaveUp(ctx)
	}
	b.store.Receive(&w.Wait)
	select {
	case <-w.ready:
	case <-ctx.Done():
		if b.store.Cancel(&w.Wait) {
			return StreamRead{}, gaveUp(ctx)
		}
		<-w.ready // it was served in the same moment
		return StreamRead{}, gaveUp(ctx)
	}
	if w.Err != nil {
		return StreamRead{}, readError(s, o.From, w.Err)
	}
	if len(w.Got) == 0 {
		if err := b.unasked(); err != nil {
			return StreamRead{}, err
		}
	}
	return StreamRead{Messages: w.Got, Next: w.From.Seq, Earliest: w.Bounds.First, Latest: w.Bounds.Next}, nil
}

// readError words why a partition cannot be read.
func readError(s *stream, p Pos, err error) error {
	if r, ok := errors.AsType[*RangeError](err); ok {
		return &Error{Kind: Invalid, Subject: OffsetSubject, Err: r, Message: errorf(Invalid, OffsetSubject,
			"offset %d of partition %d is no longer there; the earliest is %d", p.Seq, p.Partition, r.First).Message}
	}
	if isGone(err) {
		return noStream(s.config().Name)
	}
	return storeError(err)
}

func noPartition(s *stream, n uint32) error {
	c := s.config()
	return errorf(NotFound, PartitionSubject, "stream %q has no partition %d, only 0 to %d", c.Name, n, c.Partitions-1)
}
