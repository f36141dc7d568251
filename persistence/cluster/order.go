package cluster

import (
	"sync"

	"millrace/broker"
)

// order keeps the answers to each Completion in the order of its Submits.
type order struct {
	mu sync.Mutex
	of map[broker.Completion]*line
}

// line is what one Completion waits for.
type line struct {
	waiting []*turn // oldest first
	calling bool
}

// turn is a batch in its line.
type turn struct {
	b    *broker.Batch
	c    broker.Completion
	over bool
}

// enter puts b behind what c waits for.
func (o *order) enter(b *broker.Batch, c broker.Completion) *turn {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.of == nil {
		o.of = map[broker.Completion]*line{}
	}
	l := o.of[c]
	if l == nil {
		l = &line{}
		o.of[c] = l
	}
	t := &turn{b: b, c: c}
	l.waiting = append(l.waiting, t)
	return t
}

// finished answers t and what stood behind it, if t is at the head.
func (o *order) finished(t *turn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t.over = true
	l := o.of[t.c]
	if l.calling {
		return
	}
	l.calling = true
	for len(l.waiting) > 0 && l.waiting[0].over {
		head := l.waiting[0]
		l.waiting[0] = nil
		l.waiting = l.waiting[1:]
		o.mu.Unlock()
		head.c.Done(head.b)
		o.mu.Lock()
	}
	l.calling = false
	if len(l.waiting) == 0 {
		delete(o.of, t.c)
	}
}
