package jetstream

import (
	"container/list"
	"sync"

	"millrace/persistence/hand"
)

// lines are the submissions under way, each in the line of its Completion, and all
// in the order in which they came.
type lines struct {
	hand.Lines

	mu   sync.Mutex
	open list.List // of *submission: what is not answered, oldest first
}

// enter puts b behind what came before.
func (l *lines) enter(b *submission) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Enter(b)
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

// Answered implements hand.InLine: it has those go on that waited for b.
func (b *submission) Answered() {
	l := &b.s.lines
	var turn []func()
	l.mu.Lock()
	l.open.Remove(b.open)
	if first := l.open.Front(); first != nil {
		next := first.Value.(*submission)
		turn, next.turn = next.turn, nil
	}
	l.mu.Unlock()
	for _, then := range turn {
		then()
	}
}
