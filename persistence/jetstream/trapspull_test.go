package jetstream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// pull asks for messages of "q", which are to come to an inbox. It returns once the server knows.
func (x *trap) pull(nc *nats.Conn, inbox string, batch int, noWait bool, expires time.Duration) {
	x.Helper()
	ask, err := json.Marshal(map[string]any{"batch": batch, "no_wait": noWait, "expires": expires})
	if err != nil {
		x.Fatal(err)
	}
	if err := nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.q.c", inbox, ask); err != nil {
		x.Fatal(err)
	}
	synctest.Wait()
}

// inbox subscribes to a subject.
func (x *trap) inbox(nc *nats.Conn, subject string) *nats.Subscription {
	x.Helper()
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		x.Fatal(err)
	}
	return sub
}

// brings fails the test unless this comes next, at a time: a status, and the sequence if it is
// told, and the body of a message.
func (x *trap) brings(sub *nats.Subscription, want string, at time.Time) *nats.Msg {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), time.Hour) // see waitFor
	defer cancel()
	m, err := sub.NextMsgWithContext(ctx)
	if err != nil {
		x.Fatalf("want %q: %v", want, err)
	}
	got := m.Header.Get("Status") + m.Header.Get("Nats-Sequence") + string(m.Data)
	if by := time.Since(at); got != want || by < 0 || by > trapLate {
		x.Errorf("%q comes %s after its time, want %q", got, by, want)
	}
	return m
}

// TestADeliveryCarriesTheSubjectOfItsMessage, not that of the pull: so a queue has one pull for
// all who wait.
func TestADeliveryCarriesTheSubjectOfItsMessage(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{})
		sub := x.inbox(x.nc, "inbox.*")
		x.put("a")
		x.pull(x.nc, "inbox.1", 1, true, time.Second)
		if m := x.brings(sub, "a", time.Now()); m.Subject != "q.m" {
			x.Errorf("a delivery comes on %s, want q.m", m.Subject)
		}
		x.pull(x.nc, "inbox.2", 1, true, time.Second)
		if m := x.brings(sub, "408", time.Now().Add(time.Second)); m.Subject != "inbox.2" {
			x.Errorf("a status comes on %s, want inbox.2", m.Subject)
		}
	})
}

// TestAPullWaitsForTheFirstMessage if it is told both to wait and not to, and ends when no more
// are there: so those who wait have what there is at once.
func TestAPullWaitsForTheFirstMessage(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{})
		sub := x.inbox(x.nc, "inbox")
		began := time.Now()
		x.pull(x.nc, "inbox", 10, true, 5*time.Second)
		x.brings(sub, "408", began.Add(5*time.Second))
		x.pull(x.nc, "inbox", 10, true, 5*time.Second)
		<-time.After(time.Second)
		x.put("a")
		x.brings(sub, "a", time.Now())
		x.brings(sub, "404", time.Now())
	})
}

// TestAPullThatWaitsStaysOpen for the rest of what it asked for: it would take what nobody
// waits for any more.
func TestAPullThatWaitsStaysOpen(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{})
		sub := x.inbox(x.nc, "inbox")
		began := time.Now()
		x.pull(x.nc, "inbox", 10, false, 5*time.Second)
		for _, body := range []string{"a", "b"} {
			<-time.After(time.Second)
			x.put(body)
			x.brings(sub, body, time.Now())
		}
		x.brings(sub, "408", began.Add(5*time.Second))
	})
}

// TestPullsAreServedInTheirOrder, of whatever connection, as those are by us who wait for the one
// pull of a queue.
func TestPullsAreServedInTheirOrder(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{})
		var subs []*nats.Subscription
		for i := range 6 {
			nc := x.nc
			if i%2 == 0 {
				nc = x.connect(x.c.Dial())
			}
			to := fmt.Sprint("inbox.", i)
			subs = append(subs, x.inbox(nc, to))
			x.pull(nc, to, 1, true, time.Minute)
		}
		for i, sub := range subs {
			x.put(fmt.Sprint(i))
			x.brings(sub, fmt.Sprint(i), time.Now())
		}
	})
}

// TestWhatIsSentToWhoHasGoneStaysLeased: so a queue stays subscribed, and keeps for others what
// nobody takes.
func TestWhatIsSentToWhoHasGoneStaysLeased(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{})
		way := newDeaf(x.T, x.c.Servers[0])
		goes := x.connect(nats.InProcessServer(way))
		sub := x.inbox(goes, "inbox")
		x.pull(goes, "inbox", 1, true, time.Minute)
		_, read := way.jam() // the server learns it too late
		if err := sub.Unsubscribe(); err != nil {
			x.Fatal(err)
		}
		x.put("a")
		sent := time.Now()
		synctest.Wait()
		read()
		x.holds(1, 1)
		x.comes("what was sent to nobody", sent.Add(trapLease))
	})
}

// TestABatchOfDirectGetsSeesWhatIsLeased: by it a queue is browsed, and read when a node starts.
func TestABatchOfDirectGetsSeesWhatIsLeased(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{AllowDirect: true})
		x.put("a", "b", "c", "d")
		got := x.take(3)
		x.settle(got[0], "+ACK")
		x.settle(got[1], nack(time.Minute))
		x.holds(3, 2)
		sub := x.inbox(x.nc, "inbox")
		if err := x.nc.PublishRequest("$JS.API.DIRECT.GET.q", "inbox", []byte(`{"seq":1,"batch":10,"next_by_subj":">"}`)); err != nil {
			x.Fatal(err)
		}
		for _, want := range []string{"2b", "3c", "4d", "204"} {
			x.brings(sub, want, time.Now())
		}
	})
}
