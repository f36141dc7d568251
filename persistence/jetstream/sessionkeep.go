package jetstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"millrace/broker"
	"millrace/broker/fields"
)

// What is recorded of a session in the bucket back, as varints after the format:
// its mark, how many left for each reason, and the messages up to the mark that are
// still there, each with by how much its sequence is above the one before, its
// state, its attempts, and when that state ends. All above the mark is ready.
const backlogFormat = 1

// A session that sent something is recorded within keepSoon; one that settled
// something before that is answered.
const keepSoon = time.Second

// forever is the end of a lease that has none.
const forever = int64(1) << 52

// keeping is how a session is recorded: one write at a time, of all that came
// together meanwhile.
type keeping struct {
	over    []*logged     // settled, and not recorded as that
	waiting []func(error) // for the record
	writing bool
	timer   *time.Timer // of a write that nobody waits for
	due     bool        // it runs
}

func (b *backlog) key() string { return strconv.FormatUint(uint64(b.id), 10) }

// record has done called once the session is recorded as it is now. The caller
// holds the lock.
func (b *backlog) record(done func(error)) {
	b.keep.waiting = append(b.keep.waiting, done)
	b.write()
}

// write starts a write, a moment later, so that what comes together is one.
func (b *backlog) write() {
	if b.keep.writing {
		return
	}
	b.keep.writing = true
	b.s.work.Go(b.put)
}

// stale has the session recorded soon. The caller holds the lock.
func (b *backlog) stale() {
	k := &b.keep
	if k.due || !b.begun || b.dropped {
		return
	}
	k.due = true
	if k.timer == nil {
		k.timer = time.AfterFunc(keepSoon, b.writeSoon)
		return
	}
	k.timer.Reset(keepSoon)
}

func (b *backlog) writeSoon() {
	b.s.spawn(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.keep.due && !b.dropped {
			b.write()
		}
	})
}

// put writes the record.
func (b *backlog) put() {
	b.mu.Lock()
	k := &b.keep
	waiting, over := k.waiting, k.over
	k.waiting, k.over = nil, nil
	if b.dropped {
		k.writing = false
		b.mu.Unlock()
		b.recorded(over, waiting, broker.ErrGone)
		return
	}
	if k.due = false; k.timer != nil {
		k.timer.Stop()
	}
	value := b.encode()
	b.mu.Unlock()
	b.s.back.start(&put{key: b.key(), value: value, done: func(_ uint64, err error) {
		if errors.Is(err, broker.ErrFull) && len(over) > 0 {
			b.s.work.Go(func() { b.written(over, waiting, b.s.sessions.makeRoom(over, err)) })
			return
		}
		b.written(over, waiting, err)
	}})
}

// written is the end of a write, and begins the next.
func (b *backlog) written(over []*logged, waiting []func(error), err error) {
	b.mu.Lock()
	b.keep.writing = false
	if err != nil { // in memory they are gone, so it is not known how it ends
		b.keep.over = append(over, b.keep.over...)
		b.stale()
		over = nil
	}
	if len(b.keep.waiting) > 0 {
		b.write()
	}
	b.mu.Unlock()
	b.recorded(over, waiting, err)
}

func (b *backlog) recorded(over []*logged, waiting []func(error), err error) {
	for _, x := range over {
		b.s.sessions.release(x)
	}
	for _, done := range waiting {
		done(err)
	}
}

// makeRoom removes messages from a log that is full, which settles them too where
// no other session waits for one. It returns the error where one does.
func (l *sessionLog) makeRoom(over []*logged, full error) error {
	for _, x := range over {
		if x.places.Load() > 1 {
			return full
		}
	}
	for _, x := range over {
		if _, err := l.s.remove(l.s.ctx, l.stream, x.seq); err != nil {
			return err
		}
	}
	return nil
}

// save records the session, and waits for that.
func (b *backlog) save(ctx context.Context) error {
	if b.s.failed.Load() != nil {
		return nil
	}
	b.mu.Lock()
	if !b.keep.due && !b.keep.writing && len(b.keep.over) == 0 {
		b.mu.Unlock()
		return nil
	}
	end := make(chan error, 1)
	b.record(func(err error) { end <- err })
	b.mu.Unlock()
	select {
	case err := <-end:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// encode returns the record. The caller holds the lock.
func (b *backlog) encode() []byte {
	v := appendOut(binary.AppendUvarint([]byte{backlogFormat}, b.mark), &b.out)
	before := uint64(0)
	for _, p := range b.list {
		if p.at.seq > b.mark {
			break
		}
		if p.state == leaving {
			continue
		}
		until := min(p.until, forever)
		v = fields.AppendUints(v, p.at.seq-before, uint64(p.state), uint64(p.tries), uint64(until))
		before = p.at.seq
	}
	return v
}

// restore reads the record.
func (b *backlog) restore() error {
	e, ok := b.s.back.get(b.key())
	if !ok {
		return nil
	}
	f := fields.Reader{Rest: e.Value}
	if format := f.Byte(); format > backlogFormat {
		return &openError{ErrUnfit, fmt.Errorf("the record of session %q is of format %d, and this program knows %d: it was written by a newer one", b.def.Name, format, backlogFormat)}
	}
	b.mark = f.Uint()
	readOut(&f, &b.out)
	b.was = map[uint64]*place{}
	for seq := uint64(0); len(f.Rest) > 0; {
		seq += f.Uint()
		b.was[seq] = &place{state: state(f.Uint()), tries: uint32(f.Uint()), until: int64(f.Uint())}
	}
	if f.Bad {
		return fmt.Errorf("the record of session %q is malformed", b.def.Name)
	}
	return nil
}
