package jetstream

import (
	"container/list"
	"context"
	"sync"

	"millrace/broker"
)

// lines keep the answers to each Completion in the order of its Submits: one
// line for each that has batches under way.
type lines struct {
	mu   sync.Mutex
	of   map[broker.Completion]*line
	open list.List     // of *submission: what is not answered, oldest first
	idle chan struct{} // closed when nothing is under way, while somebody waits for that
}

// line is what one Completion waits for.
type line struct {
	waiting []*submission // oldest first
	calling bool
}

// enter puts b behind what its Completion waits for.
func (l *lines) enter(b *submission) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.of[b.c]
	if x == nil {
		x = &line{}
		l.of[b.c] = x
	}
	x.waiting = append(x.waiting, b)
	b.open = l.open.PushBack(b)
}

// inTurn calls then once all that was submitted before b has been answered.
func (l *lines) inTurn(b *submission, then func()) {
	l.mu.Lock()
	first := l.open.Front() == b.open
	if !first {
		b.turn = append(b.turn, then)
	}
	l.mu.Unlock()
	if first {
		then()
	}
}

// answered takes b out of the books and returns what waits for that. The caller
// holds mu.
func (l *lines) answered(b *submission) (turn []func()) {
	l.open.Remove(b.open)
	if first := l.open.Front(); first != nil {
		next := first.Value.(*submission)
		turn, next.turn = next.turn, nil
	}
	return turn
}

// finished answers b and what stood behind it, if b is at the head.
func (l *lines) finished(b *submission) {
	l.mu.Lock()
	b.over = true
	x := l.of[b.c]
	if x.calling {
		l.mu.Unlock()
		return
	}
	x.calling = true
	for len(x.waiting) > 0 && x.waiting[0].over {
		head := x.waiting[0]
		x.waiting[0] = nil
		x.waiting = x.waiting[1:]
		l.mu.Unlock()
		head.c.Done(head.b)
		l.mu.Lock()
		if turn := l.answered(head); turn != nil {
			l.mu.Unlock()
			for _, then := range turn {
				then()
			}
			l.mu.Lock()
		}
	}
	x.calling = false
	if len(x.waiting) == 0 {
		delete(l.of, b.c)
		if len(l.of) == 0 && l.idle != nil {
			close(l.idle)
			l.idle = nil
		}
	}
	l.mu.Unlock()
}

// wait returns when nothing is under way, or ctx ends.
func (l *lines) wait(ctx context.Context) {
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
