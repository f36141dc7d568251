package cluster

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream/jetstreamtest"
)

// publishes is a store that keeps the payloads of what it is to publish, and is done
// with each batch when it is told so.
type publishes struct {
	broker.Store
	payloads []string
	done     []func()
	taken    func() // called for each
}

func (p *publishes) Submit(b *broker.Batch, _ broker.Level, c broker.Completion) {
	p.payloads = append(p.payloads, string(b.Ops[0].Message.Payload))
	p.done = append(p.done, func() { c.Done(b) })
	p.taken()
}

// batches is a Completion.
type batches []*broker.Batch

func (d *batches) Done(b *broker.Batch) { *d = append(*d, b) }

// submit hands over a publish.
func (s *Store) submit(payload string, c broker.Completion) {
	b := &broker.Batch{Source: c}
	b.Publish(&broker.Message{Topic: "a", Payload: []byte(payload)}, broker.Route{Target: 1})
	b.End()
	s.Submit(b, broker.Durable, c)
}

// TestANewLeaderDoesWhatWaitedForItBeforeAnythingNew, also where new publishes come while
// it is at it, and while it is at those.
func TestANewLeaderDoesWhatWaitedForItBeforeAnythingNew(t *testing.T) {
	s, answered := lone(t), new(batches)
	defer s.stop()
	inner := &publishes{}
	meanwhile := []string{"4", "5", "6"}
	inner.taken = func() {
		if len(meanwhile) > 0 {
			payload := meanwhile[0]
			meanwhile = meanwhile[1:]
			s.submit(payload, answered)
		}
	}
	s.submit("1", answered)
	s.submit("2", answered)
	l := newLead(s, inner)
	s.lead.Store(l) // from here on it leads
	s.submit("3", answered)
	s.takeOver(l)
	s.submit("7", answered)
	if want := []string{"1", "2", "3", "4", "5", "6", "7"}; !slices.Equal(inner.payloads, want) {
		t.Fatalf("the store was given %q, want %q", inner.payloads, want)
	}
	for _, done := range inner.done {
		done()
	}
	for i, b := range *answered {
		if got := string(b.Ops[0].Message.Payload); b.Units[0].Result.Err != nil || got != inner.payloads[i] {
			t.Errorf("answer %d is that to %s, %v", i+1, got, b.Units[0].Result.Err)
		}
	}
	if len(*answered) != len(inner.payloads) {
		t.Errorf("%d have an answer", len(*answered))
	}
}

// led is a node with a leader that answers nothing.
func led(t *testing.T) *Store {
	t.Helper()
	s := lone(t)
	nc, err := nats.Connect("", jetstreamtest.InProcess(t).Dial())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	s.w = newWire(nc, "mr", "b", 1) // it does not listen: that nobody is there it does not hear either
	s.to = &leader{name: "a", start: 1, session: 1, open: true}
	return s
}

// delivered is a WaitSink.
type delivered chan *broker.Wait

func (d delivered) Deliver(w *broker.Wait) { d <- w }

// TestACancelledWaitLastsUntilItsLeaderAnswersOrForAnswerIsOver, which begins with the
// cancel.
func TestACancelledWaitLastsUntilItsLeaderAnswersOrForAnswerIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, got := led(t), make(delivered, 1)
		defer s.stop()
		w := &broker.Wait{Target: 1, Max: 1, Until: s.Now().Add(time.Hour), Sink: got}
		s.Receive(w)
		<-time.After(2 * forAnswer)
		s.expire()
		if s.Cancel(w) {
			t.Fatal("a wait that the leader may be serving was said to be withdrawn")
		}
		<-time.After(forAnswer)
		s.expire()
		if len(got) > 0 {
			t.Fatal("it is over while its leader may answer")
		}
		<-time.After(1)
		s.expire()
		if len(got) == 0 {
			t.Fatal("it is not over")
		}
		if <-got; w.Err != nil || len(w.Got) > 0 || s.Cancel(w) {
			t.Errorf("it got %d messages, %v", len(w.Got), w.Err)
		}
	})
}

// TestARefusalThatComesLateIsNotTheNewLeaders: it was under way when what it refuses was
// sent again, and would have that sent once more.
func TestARefusalThatComesLateIsNotTheNewLeaders(t *testing.T) {
	s := led(t)
	defer s.stop()
	s.submit("1", new(batches))
	o := s.ops.list.Front().Value.(*op)
	refused, first := s.w.forget(o.id), o.id // as when its answer comes
	to := *s.to
	to.session++
	s.to = &to
	s.resend(&standing{GoesOn: true})
	again := o.id
	refused(nil, false, errAway)
	if s.to != &to || again == first || o.id != again {
		t.Errorf("it is followed: %v; the publish was sent as %d, then as %d, and is %d now", s.to == &to, first, again, o.id)
	}
}

// TestAReceiveThatAnEarlierLeaderRefusesIsSentToTheNewOne, which is followed by then: it
// could not be sent while it might have been served.
func TestAReceiveThatAnEarlierLeaderRefusesIsSentToTheNewOne(t *testing.T) {
	s := led(t)
	defer s.stop()
	s.Receive(&broker.Wait{Target: 1, Max: 1, Until: s.Now().Add(time.Hour), Sink: make(delivered, 1)})
	o := s.ops.list.Front().Value.(*op)
	refused, first := s.w.forget(o.id), o.id
	to := leader{name: "c", start: 2, session: 1, open: true}
	s.to = &to
	s.resend(&standing{})
	if o.id != first {
		t.Fatal("it was sent again while its answer was under way")
	}
	refused(nil, false, errAway)
	if s.to != &to || o.id == 0 || o.id == first || o.to != &to {
		t.Errorf("it is followed: %v; the receive was sent as %d, and is %d now", s.to == &to, first, o.id)
	}
}
