package hand_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"millrace/broker"
	"millrace/persistence/hand"
)

// answers is a Completion that says which batches it got, by number of operations.
type answers struct {
	name string
	got  *[]string
	then func()
}

func (a *answers) Done(b *broker.Batch) {
	*a.got = append(*a.got, fmt.Sprint(a.name, len(b.Ops)))
	if a.then != nil {
		a.then()
	}
}

// marked says besides when it was answered.
type marked struct {
	hand.Turn
	a *answers
}

func (m *marked) Answered() { *m.a.got = append(*m.a.got, "after "+fmt.Sprint(len(m.Batch.Ops))) }

func TestAnswersToOneComeInTheOrderOfItsSubmits(t *testing.T) {
	var l hand.Lines
	var got []string
	a, b := &answers{name: "a", got: &got}, &answers{name: "b", got: &got}
	enter := func(a *answers, n int) *marked {
		m := &marked{hand.Turn{Batch: &broker.Batch{Ops: make([]broker.Op, n)}, To: a}, a}
		l.Enter(m)
		return m
	}
	a1, a2, a3, b1 := enter(a, 1), enter(a, 2), enter(a, 3), enter(b, 1)
	l.Finished(a3)
	l.Finished(b1)
	l.Finished(a2)
	// What ends while an answer is given is answered behind it, by whoever gives that.
	var a4 *marked
	a.then = func() {
		if a4 == nil {
			a4 = enter(a, 4)
			l.Finished(a4)
		}
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	l.Wait(done) // not for ever
	l.Finished(a1)
	if want := []string{"b1", "after 1", "a1", "after 1", "a2", "after 2", "a3", "after 3", "a4", "after 4"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	l.Wait(t.Context())
}

func TestWhoWaitsGoesOnWhenAllIsAnswered(t *testing.T) {
	var l hand.Lines
	var got []string
	turns := []*hand.Turn{{Batch: &broker.Batch{}, To: &answers{got: &got}}, {Batch: &broker.Batch{}, To: &answers{name: "b", got: &got}}}
	for _, x := range turns {
		l.Enter(x)
	}
	over := make(chan int)
	go func() {
		l.Wait(t.Context())
		over <- len(got)
	}()
	for _, x := range turns {
		l.Finished(x)
	}
	if n := <-over; n != 2 {
		t.Errorf("it went on after %d answers, want 2", n)
	}
}
