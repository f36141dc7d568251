package cluster

import (
	"container/list"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/hand"
)

// Kinds of operations that a node asks the leader for.
const (
	kindSubmit      = "submit"
	kindReceive     = "receive"
	kindCancel      = "cancel"
	kindRead        = "read"
	kindFind        = "find"
	kindInfo        = "info"
	kindGet         = "get"
	kindList        = "list"
	kindDefinitions = "definitions"
	kindDefine      = "define"
	kindDrop        = "drop"
)

// op is an operation on its way to the leader and back. It is sent again to the
// next leader where that does no harm; where it may, its outcome is unknown.
type op struct {
	kind  string
	body  func() []byte
	again bool // may be done twice
	since time.Time
	id    uint64  // on the wire; 0 = it was not taken by any leader
	to    *leader // that it was sent to last
	// done is called once with more false, on any goroutine.
	done func(body []byte, more bool, err error)
	// local does it here, where this node leads by now.
	local func(l *lead)
	place *list.Element
	wait  *broker.Wait // of a receive,
	over  bool         // which was cancelled, at since
	// source is whose order counts, of a submit.
	source any
}

// ops are those that have no answer yet, oldest first.
type ops struct {
	list  list.List
	waits map[*broker.Wait]*op
	sent  uint64 // the one that was sent last to the leader of now
	// failing counts, by source, the submits that are given up, until that is told.
	failing map[any]int
}

// start sends o, or does it here.
func (s *Store) start(o *op) {
	o.since = time.Now()
	s.mu.Lock()
	if l := s.lead.Load(); l != nil && (l.ready.Load() || o.kind != kindSubmit) {
		s.mu.Unlock()
		o.local(l)
		return
	}
	if s.closed {
		s.mu.Unlock()
		go o.done(nil, false, broker.ErrClosed) // never before Submit returns
		return
	}
	if s.ops.failing[o.source] > 0 {
		s.mu.Unlock()
		go o.done(nil, false, broker.ErrUnknown)
		return
	}
	o.place = s.ops.list.PushBack(o)
	if o.wait != nil {
		if s.ops.waits == nil {
			s.ops.waits = map[*broker.Wait]*op{}
		}
		s.ops.waits[o.wait] = o
	}
	if s.to != nil && s.to.open {
		s.transmit(o)
	}
	s.mu.Unlock()
}

// transmit sends o to the leader, behind what was sent before. The lock is held.
func (s *Store) transmit(o *op) {
	body := append(s.to.head(s.ops.sent), o.body()...)
	to := s.to
	o.to = to
	o.id = s.w.ask(to.name, storeLane, o.kind, body, func(body []byte, more bool, err error) { s.answered(o, to, body, more, err) })
	s.ops.sent = o.id
}

// answered gets an answer to o from a leader.
func (s *Store) answered(o *op, from *leader, body []byte, more bool, err error) {
	s.mu.Lock()
	if o.place == nil || o.to != from { // it ended otherwise, or was sent again
		s.mu.Unlock()
		return
	}
	away, l := errors.Is(err, errAway), s.lead.Load()
	if away {
		o.id = 0
	}
	again := away && !o.over && l == nil
	if !again && !more {
		s.remove(o)
	}
	if again && s.to != from && s.to != nil && s.to.open { // resend has left it
		s.transmit(o)
	}
	s.mu.Unlock()
	switch {
	case !away:
		o.done(body, more, err)
	case o.over:
		s.deliver(o.wait, nil)
	case l != nil: // it is this node by now
		o.local(l)
	default:
		s.lostFrom(from, err)
	}
}

// remove takes o out of the books. The lock is held.
func (s *Store) remove(o *op) {
	s.ops.list.Remove(o.place)
	o.place = nil
	if o.wait != nil {
		delete(s.ops.waits, o.wait)
	}
}

// writing reports whether a write has no answer yet.
func (s *Store) writing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.ops.list.Front(); e != nil; e = e.Next() {
		if o := e.Value.(*op); o.wait == nil {
			return true
		}
	}
	return false
}

// endAll ends everything that has no answer.
func (s *Store) endAll(why error) {
	s.mu.Lock()
	var over []func()
	for e := s.ops.list.Front(); e != nil; e = s.ops.list.Front() {
		o := e.Value.(*op)
		s.w.forget(o.id)
		s.remove(o)
		err := why
		if o.id != 0 && !o.again {
			err = broker.ErrUnknown
		}
		over = append(over, func() { o.done(nil, false, err) })
	}
	s.mu.Unlock()
	for _, f := range over {
		f()
	}
}

// Submit implements broker.Store.
func (s *Store) Submit(b *broker.Batch, level broker.Level, c broker.Completion) {
	t := &hand.Turn{Batch: b, To: c}
	s.lines.Enter(t)
	if l := s.lead.Load(); l != nil && l.ready.Load() {
		l.submit(b, level, func() { s.lines.Finished(t) })
		return
	}
	for i := range b.Units {
		b.Units[i].Result = broker.Result{}
	}
	var body []byte
	s.start(&op{
		kind: kindSubmit, source: b.Source,
		body: func() []byte {
			if body == nil { // it is the caller's again once the batch is done
				body = encodeBatch(b, level)
			}
			return body
		},
		done: func(answer []byte, _ bool, err error) {
			if err == nil {
				err = readResults(answer, b)
			}
			if err != nil {
				for i := range b.Units {
					b.Units[i].Result = broker.Result{Err: err}
				}
			}
			s.lines.Finished(t)
		},
		local: func(l *lead) { l.submit(b, level, func() { s.lines.Finished(t) }) },
	})
}

// call does an operation that its caller waits for.
func (s *Store) call(ctx context.Context, o *op, part func([]byte)) ([]byte, error) {
	type outcome struct {
		body []byte
		err  error
	}
	end := make(chan outcome, 1)
	fixed := o.body()
	o.body = func() []byte { return fixed }
	o.done = func(body []byte, more bool, err error) {
		if more {
			part(body)
			return
		}
		end <- outcome{body, err}
	}
	s.start(o)
	select {
	case out := <-end:
		return out.body, out.err
	case <-ctx.Done():
		s.mu.Lock()
		if o.place != nil {
			s.w.forget(o.id)
			s.remove(o)
		}
		s.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", broker.ErrUnknown, ctx.Err())
	}
}

// Definitions implements broker.Store.
func (s *Store) Definitions(ctx context.Context) ([]broker.Definition, error) {
	var ds []broker.Definition
	err := s.ask(ctx, kindDefinitions, true, nil, func(answer []byte) error { return json.Unmarshal(answer, &ds) },
		func(l *lead) (err error) { ds, err = l.inner.Definitions(ctx); return err })
	return ds, err
}

// ask has the leader do something, and reads its answer; here does it where this
// node leads.
func (s *Store) ask(ctx context.Context, kind string, again bool, ask []byte, read func([]byte) error, here func(*lead) error) error {
	if l := s.lead.Load(); l != nil {
		return here(l)
	}
	led := make(chan error, 1)
	o := &op{kind: kind, again: again, body: func() []byte { return ask }}
	o.local = func(l *lead) { go func() { led <- here(l); o.done(nil, false, errHere) }() }
	answer, err := s.call(ctx, o, nil)
	if errors.Is(err, errHere) {
		return <-led
	}
	if err != nil {
		return err
	}
	return read(answer)
}

// errHere says that the operation was done by this node itself.
var errHere = errors.New("done here")

// Define implements broker.Store.
func (s *Store) Define(ctx context.Context, d broker.Def) (t broker.Target, err error) {
	ask, err := json.Marshal(d)
	if err != nil {
		return 0, err
	}
	err = s.ask(ctx, kindDefine, true, ask, func(answer []byte) error {
		r := fields.Reader{Rest: answer}
		t = broker.Target(r.Uint())
		return nil
	}, func(l *lead) (err error) { t, err = l.define(ctx, d); return err })
	return t, err
}

// Drop implements broker.Store.
func (s *Store) Drop(ctx context.Context, t broker.Target) error {
	return s.ask(ctx, kindDrop, false, binary.AppendUvarint(nil, uint64(t)), func([]byte) error { return nil },
		func(l *lead) error { return l.drop(ctx, t) })
}

// Read implements broker.Store.
func (s *Store) Read(ctx context.Context, t broker.Target, p broker.Pos, limit int, dst []broker.Delivery) ([]broker.Delivery, error) {
	ask := appendPos(fields.AppendUints(nil, uint64(t), uint64(max(limit, 0))), &p)
	err := s.ask(ctx, kindRead, true, ask, func(answer []byte) (err error) {
		dst, err = readDeliveries(&fields.Reader{Rest: answer}, dst)
		return err
	}, func(l *lead) (err error) { dst, err = l.inner.Read(ctx, t, p, limit, dst); return err })
	return dst, err
}

// Find implements broker.Store.
func (s *Store) Find(ctx context.Context, t broker.Target, id broker.ID) (ref broker.Ref, err error) {
	ask := append(binary.AppendUvarint(nil, uint64(t)), id[:]...)
	err = s.ask(ctx, kindFind, true, ask, func(answer []byte) error {
		ref = readRef(&fields.Reader{Rest: answer})
		return nil
	}, func(l *lead) (err error) { ref, err = l.inner.Find(ctx, t, id); return err })
	return ref, err
}

// Info implements broker.Store.
func (s *Store) Info(ctx context.Context, t broker.Target) (in broker.Info, err error) {
	err = s.ask(ctx, kindInfo, true, binary.AppendUvarint(nil, uint64(t)), func(answer []byte) error { return json.Unmarshal(answer, &in) },
		func(l *lead) (err error) { in, err = l.inner.Info(ctx, t); return err })
	return in, err
}

// Get implements broker.Store.
func (s *Store) Get(ctx context.Context, space broker.Space, key string) (e broker.Entry, err error) {
	ask := fields.AppendText([]byte{byte(space)}, key)
	err = s.ask(ctx, kindGet, true, ask, func(answer []byte) error {
		e = readEntry(&fields.Reader{Rest: answer})
		return nil
	}, func(l *lead) (err error) { e, err = l.inner.Get(ctx, space, key); return err })
	return e, err
}

// listPage is how much of a List comes at once.
const listPage = 256 << 10

// List implements broker.Store.
func (s *Store) List(ctx context.Context, space broker.Space, prefix string, f func(broker.Entry) bool) error {
	var all []broker.Entry
	var bad error
	pages := uint64(0)
	read := func(page []byte) {
		r := fields.Reader{Rest: page}
		if r.Uint() != pages {
			bad = broker.ErrUnknown // one was lost
		}
		for pages++; len(r.Rest) > 0; {
			if all = append(all, readEntry(&r)); r.Bad {
				bad = errCodec
			}
		}
	}
	if l := s.lead.Load(); l != nil {
		return l.inner.List(ctx, space, prefix, f)
	}
	led := make(chan error, 1)
	ask := fields.AppendText([]byte{byte(space)}, prefix)
	o := &op{kind: kindList, again: false, body: func() []byte { return ask }}
	o.local = func(l *lead) {
		go func() {
			all = nil
			led <- l.inner.List(ctx, space, prefix, func(e broker.Entry) bool { all = append(all, e); return true })
			o.done(nil, false, errHere)
		}()
	}
	answer, err := s.call(ctx, o, read)
	switch {
	case errors.Is(err, errHere):
		err = <-led
	case err == nil:
		read(answer)
		err = bad
	}
	if errors.Is(err, broker.ErrUnknown) && ctx.Err() == nil { // cut off, or the leader is another one by now
		return s.List(ctx, space, prefix, f)
	}
	if err != nil {
		return err
	}
	for _, e := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !f(e) {
			return nil
		}
	}
	return nil
}
