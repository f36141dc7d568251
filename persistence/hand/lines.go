package hand

import (
	"context"
	"sync"

	"millrace/broker"
)

// Lines keep the answers to each Completion in the order of its Submits: one line
// for each that has batches under way. The zero value is ready to use.
type Lines struct {
	mu   sync.Mutex
	of   map[broker.Completion]*line
	idle chan struct{} // closed when nothing is under way, while somebody waits for that
}

// InLine is a batch in its line: a Turn, or what has one in it.
type InLine interface {
	place() *Turn
	// Answered is called after the answer, before the next of the line.
	Answered()
}

// Turn is the place of a batch in its line.
type Turn struct {
	Batch *broker.Batch
	To    broker.Completion
	over  bool // under the lock of the lines
}

func (t *Turn) place() *Turn { return t }

// Answered implements InLine.
func (*Turn) Answered() {}

// line is what one Completion waits for.
type line struct {
	waiting []InLine // oldest first
	calling bool
}

// Enter puts t behind what its Completion waits for.
func (l *Lines) Enter(t InLine) {
	to := t.place().To
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[broker.Completion]*line{}
	}
	x := l.of[to]
	if x == nil {
		x = &line{}
		l.of[to] = x
	}
	x.waiting = append(x.waiting, t)
}

// Finished answers t and what stood behind it, if t is at the head.
func (l *Lines) Finished(t InLine) {
	own := t.place()
	l.mu.Lock()
	defer l.mu.Unlock()
	own.over = true
	x := l.of[own.To]
	if x.calling {
		return
	}
	x.calling = true
	for len(x.waiting) > 0 && x.waiting[0].place().over {
		head := x.waiting[0]
		x.waiting[0] = nil
		x.waiting = x.waiting[1:]
		l.mu.Unlock()
		head.place().To.Done(head.place().Batch)
		head.Answered()
		l.mu.Lock()
	}
	x.calling = false
	if len(x.waiting) > 0 {
		return
	}
	delete(l.of, own.To)
	if len(l.of) == 0 && l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
}

// Wait returns when nothing is under way, or ctx ends.
func (l *Lines) Wait(ctx context.Context) {
	l.mu.Lock()
	if len(l.of) == 0 {
		l.mu.Unlock()
		return
	}
	if l.idle == nil {
		l.idle = make(chan struct{})
	}
	idle := l.idle
	l.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
