package jetstream_test

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// TestARepeatCompletesAPublish that reached two of four streams: it is told as a duplicate
// where it is, and stored once everywhere. A unit is not one commit.
func TestARepeatCompletesAPublish(t *testing.T) {
	inTrap(t, func(x *trap) {
		streams := []string{"a", "b", "c", "d"}
		for _, name := range streams {
			x.stream(natsjs.StreamConfig{Name: name})
		}
		var repeats []bool
		for _, name := range append([]string{"a", "b"}, streams...) {
			ack, err := x.send(name+".m", "one", "Nats-Msg-Id", "id")
			if err != nil {
				x.Fatal(err)
			}
			repeats = append(repeats, ack.Duplicate)
		}
		if want := []bool{false, false, true, true, false, false}; !slices.Equal(repeats, want) {
			x.Errorf("told as duplicates: %v, want %v", repeats, want)
		}
		for _, name := range streams {
			if n := x.state(name).Msgs; n != 1 {
				x.Errorf("stream %s has %d messages, want 1", name, n)
			}
		}
	})
}

// TestADuplicateIsToldAfterItsMessageWasConsumed, with its sequence, for as long as the window
// lasts: a dead letter, a move or a repeat of a producer is then not there again.
func TestADuplicateIsToldAfterItsMessageWasConsumed(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.queue(natsjs.StreamConfig{Duplicates: 5 * time.Minute})
		publish := func(want bool, seq uint64) {
			x.Helper()
			if ack, err := x.send("q.m", "a", "Nats-Msg-Id", "id"); err != nil || ack.Duplicate != want || ack.Sequence != seq {
				x.Errorf("a publish with the same id: %+v, %v; want duplicate=%t, sequence %d", ack, err, want, seq)
			}
		}
		publish(false, 1)
		x.settle(x.one(), "+ACK")
		x.holds(0, 0)
		<-time.After(4 * time.Minute)
		publish(true, 1)
		<-time.After(2 * time.Minute)
		publish(false, 2)
	})
}

// TestThatNobodyIsThereIsToldAtOnce: a publish must be tried again later, and not without a pause.
func TestThatNobodyIsThereIsToldAtOnce(t *testing.T) {
	inTrap(t, func(x *trap) {
		began := time.Now()
		if _, err := x.ask("q.m", "a"); !errors.Is(err, nats.ErrNoResponders) || time.Since(began) > 0 {
			x.Errorf("%v after %s, want no responders at once", err, time.Since(began))
		}
	})
}

// TestALostAnswerCostsFiveSeconds in nats.go, which does not send again: so our calls do.
func TestALostAnswerCostsFiveSeconds(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.stream(natsjs.StreamConfig{})
		way := newDeaf(x.T, x.c.Servers[0])
		js, err := natsjs.New(x.connect(nats.InProcessServer(way)))
		if err != nil {
			x.Fatal(err)
		}
		if _, err := js.Publish(x.Context(), "q.m", nil); err != nil {
			x.Fatal(err)
		}
		way.mute.Store(true)
		began := time.Now()
		if _, err := js.Publish(x.Context(), "q.m", nil); err == nil || time.Since(began) != 5*time.Second {
			x.Errorf("%v after %s, want an error after 5s", err, time.Since(began))
		}
	})
}

// TestAPublishWhileCutOff is stored after the cut, unless nats.go is told to keep nothing: then
// it fails at once. By the time it is stored we have said that it may not be.
func TestAPublishWhileCutOff(t *testing.T) {
	for size, row := range map[int]struct {
		answer error
		stored uint64
	}{nats.DefaultReconnectBufSize: {nil, 2}, -1: {nats.ErrReconnectBufExceeded, 1}} {
		inTrap(t, func(x *trap) {
			x.stream(natsjs.StreamConfig{})
			way := newDeaf(x.T, x.c.Servers[0])
			away, back := make(chan bool, 1), make(chan bool, 1)
			nc := x.connect(nats.InProcessServer(way), nats.ReconnectBufSize(size),
				nats.DisconnectErrHandler(func(*nats.Conn, error) { away <- true }), nats.ReconnectHandler(func(*nats.Conn) { back <- true }))
			x.inbox(nc, "q.m")
			synctest.Wait()
			way.cut.Store(true) // when the next message comes to nc, which is its own
			if err := nc.Publish("q.m", nil); err != nil {
				x.Fatal(err)
			}
			waitFor(x, "the connection is cut", away)
			if err := nc.Publish("q.m", nil); !errors.Is(err, row.answer) {
				x.Errorf("a publish with a buffer of %d: %v, want %v", size, err, row.answer)
			}
			waitFor(x, "it is made again", back)
			synctest.Wait()
			if n := x.state("q").Msgs; n != row.stored {
				x.Errorf("with a buffer of %d there are %d messages, want %d", size, n, row.stored)
			}
		})
	}
}

// TestAMessagesTimeIsWholeSeconds: it ends the hold of a node and the mark of a deleted key.
func TestAMessagesTimeIsWholeSeconds(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.stream(natsjs.StreamConfig{AllowMsgTTL: true})
		_, err := x.send("q.m", "a", "Nats-TTL", "500ms")
		x.refused("half a second", err, 10165)
		if _, err := x.send("q.m", "a", "Nats-TTL", "1s"); err != nil {
			x.Fatal(err)
		}
		began := time.Now()
		for x.state("q").Msgs > 0 && time.Since(began) < time.Minute {
			<-time.After(10 * time.Millisecond)
		}
		if took := time.Since(began); took < time.Second || took > 2*time.Second {
			x.Errorf("a message that lasts for a second is gone after %s", took)
		}
		if _, err := x.send("q.m", "b", "Nats-Expected-Last-Subject-Sequence", "0"); err != nil {
			x.Errorf("a key whose time is over is made again: %v", err)
		}
	})
}

// TestAWriteOverAnotherRevisionIsRefused, of the subject itself and of another one of the
// stream: it keeps a node that was given up from writing.
func TestAWriteOverAnotherRevisionIsRefused(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.stream(natsjs.StreamConfig{MaxMsgsPerSubject: 1})
		write := func(subject string, rev uint64, of string) (uint64, error) {
			h := []string{"Nats-Expected-Last-Subject-Sequence", strconv.FormatUint(rev, 10)}
			if of != "" {
				h = append(h, "Nats-Expected-Last-Subject-Sequence-Subject", of)
			}
			ack, err := x.send(subject, "v", h...)
			if err != nil {
				return 0, err
			}
			return ack.Sequence, nil
		}
		first, err := write("q.owner", 0, "")
		if err != nil {
			x.Fatal(err)
		}
		if _, err := write("q.window", first, "q.owner"); err != nil {
			x.Error(err)
		}
		_, err = write("q.owner", 0, "")
		x.refused("to make what is there", err, 10071)
		if _, err := write("q.owner", first, ""); err != nil {
			x.Error(err)
		}
		_, err = write("q.owner", first, "")
		x.refused("over an older revision", err, 10071)
		_, err = write("q.window", first, "q.owner")
		x.refused("by an owner that is no more", err, 10071)
	})
}

// batch publishes messages as one, a message to each subject with an id of its name.
func (x *trap) batch(id string, subjects ...string) (err error) {
	x.Helper()
	for i, subject := range subjects {
		m := nats.NewMsg(subject)
		m.Header.Set("Nats-Msg-Id", subject)
		m.Header.Set("Nats-Batch-Id", id)
		m.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
		if i == len(subjects)-1 {
			m.Header.Set("Nats-Batch-Commit", "1")
			_, err = x.js.PublishMsg(x.Context(), m)
			return err
		}
		if err := x.nc.PublishMsg(m); err != nil {
			x.Fatal(err)
		}
	}
	return nil
}

// TestABatchIsStoredAsAWholeOrNotAtAll, and a repeat is refused, not told as a duplicate: so
// queues share no stream, and a unit is no batch.
func TestABatchIsStoredAsAWholeOrNotAtAll(t *testing.T) {
	inTrap(t, func(x *trap) {
		x.stream(natsjs.StreamConfig{Storage: natsjs.MemoryStorage, AllowAtomicPublish: true, MaxMsgsPerSubject: 1, Discard: natsjs.DiscardNew, DiscardNewPerSubject: true})
		if err := x.batch("1", "q.a", "q.b", "q.c", "q.d"); err != nil {
			x.Fatal(err)
		}
		x.refused("a batch that was stored", x.batch("2", "q.a", "q.b", "q.c", "q.d"), 10201)
		x.refused("a batch with one that was stored", x.batch("3", "q.e", "q.a"), 10201)
		<-time.After(3 * time.Minute) // the ids are forgotten
		x.refused("a batch of which one does not fit", x.batch("4", "q.g", "q.a"), 10077)
		if n := x.state("q").Msgs; n != 4 {
			x.Errorf("%d messages are stored, want 4", n)
		}
	})
}
