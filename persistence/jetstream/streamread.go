package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"millrace/broker"
)

// How a partition is read.
const (
	readBatch = 500
	readBytes = 4 << 20
	readWait  = 2 * time.Second
)

// reading is a Wait on a partition.
type reading struct {
	w     *broker.Wait
	t     *stream
	p     *partition
	from  uint64
	since time.Time // messages before it pass
	timer *time.Timer
	hurry bool // a cancel came while it was reading: it does not wait
}

func (r *reading) stop() {
	if r.timer != nil {
		r.timer.Stop()
	}
}

// receive implements target. What is there is read on a goroutine that ends with
// the answer; waiting costs none.
func (t *stream) receive(w *broker.Wait) {
	p, err := t.at(w.From.Partition)
	if err != nil {
		w.Err = err
		t.s.deliver(w)
		return
	}
	r := &reading{w: w, t: t, p: p, since: w.From.Time}
	t.mu.Lock()
	w.Priv = r
	if w.From.End { // as it is now
		w.From = broker.Pos{Partition: p.number, Seq: p.next}
	}
	t.mu.Unlock()
	if pos := w.From; pos == (broker.Pos{Partition: pos.Partition, Seq: pos.Seq}) && t.ahead(r, pos.Seq) {
		return // it waits
	}
	go func() {
		from, b, err := p.place(t.s.ctx, w.From)
		if err != nil {
			r.finish(b, err)
			return
		}
		r.from = from
		t.serve(r)
	}()
}

// ahead registers r if nothing is there for it yet and it waits.
func (t *stream) ahead(r *reading, from uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dropped || r.hurry || from < r.p.next || r.w.Until.IsZero() || !t.s.Now().Before(r.w.Until) {
		return false
	}
	r.from = from
	t.waits[r.w] = r
	r.timer = time.AfterFunc(r.w.Until.Sub(t.s.Now()), func() {
		t.mu.Lock()
		there := t.waits[r.w] == r
		delete(t.waits, r.w)
		t.mu.Unlock()
		if there {
			t.serve(r)
		}
	})
	return true
}

// serve reads for r, or has it wait.
func (t *stream) serve(r *reading) {
	t.mu.Lock()
	dropped := t.dropped
	t.mu.Unlock()
	if dropped {
		r.finish(broker.PartitionInfo{}, t.why())
		return
	}
	for {
		b, _, err := r.p.bounds(t.s.ctx)
		if err == nil && r.from < b.First {
			err = &broker.RangeError{First: b.First, Next: b.Next}
		}
		if err != nil {
			r.finish(b, err)
			return
		}
		got, next, err := r.p.copyFrom(t.s.ctx, r.from, b, max(r.w.Max, 1), r.w.MaxBytes, r.w.Got[:0])
		if err != nil {
			r.finish(b, err)
			return
		}
		early := 0
		for !r.since.IsZero() && early < len(got) && got[early].Queued < r.since.UnixMilli() {
			early++
		}
		r.w.Got, r.from = got[early:], next
		if len(r.w.Got) > 0 {
			r.finish(b, nil)
			return
		}
		if early > 0 {
			continue
		}
		if t.ahead(r, r.from) {
			return
		}
		t.mu.Lock()
		more := r.from < r.p.next && !t.dropped
		t.mu.Unlock()
		if !more {
			r.finish(b, nil)
			return
		}
	}
}

// why is the error of a stream that ended.
func (t *stream) why() error {
	if _, err := t.s.lookup(t.id); err != nil {
		return err
	}
	return broker.ErrClosed
}

// finish delivers.
func (r *reading) finish(b broker.PartitionInfo, err error) {
	if err != nil && !errors.Is(err, broker.ErrGone) {
		if _, gone := r.t.s.lookup(r.t.id); gone != nil {
			err = gone
		}
	}
	r.w.Err, r.w.Bounds = err, b
	if err == nil {
		r.w.From = broker.Pos{Partition: r.p.number, Seq: r.from}
	}
	r.t.s.deliverNow(r.w)
}

// cancel implements target.
func (t *stream) cancel(w *broker.Wait) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := w.Priv.(*reading)
	if !ok || r.w != w {
		return false
	}
	if t.waits[w] != r {
		r.hurry = true
		return false
	}
	delete(t.waits, w)
	r.stop()
	return true
}

// copyFrom appends messages from an offset on, at most limit and, if that is
// given, so many bytes as stored. It returns where to go on, and passes what stands where
// messages were lost. A replica that is behind is asked no more: the leader is.
func (p *partition) copyFrom(ctx context.Context, from uint64, b broker.PartitionInfo, limit, bytes int, dst []broker.Delivery) ([]broker.Delivery, uint64, error) {
	want, taken := len(dst)+limit, 0
	for from < b.Next && len(dst) < want {
		var batch []*stored
		if n := min(want-len(dst), int(b.Next-from), readBatch); n > 1 {
			var err error
			if batch, err = p.of.s.batch(ctx, p.stream, from+1, n); err != nil {
				return dst, from, err
			}
		}
		if len(batch) == 0 || batch[0].Seq != from+1 {
			m, err := p.of.s.fetch(ctx, p.stream, getRequest{Seq: from + 1})
			if errors.Is(err, broker.ErrNotFound) {
				return dst, from, p.missing(ctx, from)
			}
			if err != nil {
				return dst, from, err
			}
			batch = []*stored{m}
		}
		for _, m := range batch {
			if m.Seq != from+1 {
				break
			}
			if m.header.Get(headerFiller) != "" {
				from++
				continue
			}
			d := broker.Delivery{Queued: m.Time.UnixMilli(), Partition: p.number}
			if err := broker.DecodeMessage(m.Data, &d.Message); err != nil {
				return dst, from, fmt.Errorf("stream %s, message %d: %w", p.stream, m.Seq, err)
			}
			if taken += len(m.Data); bytes > 0 && taken > bytes && len(dst) > want-limit {
				return dst, from, nil
			}
			d.Ref = broker.Ref{Target: p.of.id, Seq: from}
			dst = append(dst, d)
			from++
		}
	}
	return dst, from, nil
}

// errDeleted is a message that is missing among others.
var errDeleted = errors.New("a message was deleted by hand")

// missing words that a message which was there is not any more.
func (p *partition) missing(ctx context.Context, from uint64) error {
	b, _, err := p.bounds(ctx)
	if err != nil {
		return err
	}
	if from < b.First {
		return &broker.RangeError{First: b.First, Next: b.Next}
	}
	return fmt.Errorf("stream %s, between %d and %d: %w: %d", p.stream, b.First+1, b.Next, errDeleted, from+1)
}
