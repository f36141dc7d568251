package local_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// lookAgain is longer than the store relies on what it knows of the disk.
const lookAgain = 200 * time.Millisecond

// fillUp publishes until it is refused, and returns how many were taken.
func fillUp(tb testing.TB, s *local.Store, q broker.Target) int {
	tb.Helper()
	for n := range 100_000 {
		if err := outcome(publishTo(s, q)); err != nil {
			if !errors.Is(err, broker.ErrFull) {
				tb.Fatalf("publish to a disk that fills up: %v", err)
			}
			if !s.State().Full || s.State().Err != nil {
				tb.Fatalf("refused, and the state is %+v", s.State())
			}
			return n
		}
	}
	tb.Fatal("the disk never filled up")
	return 0
}

// ackSome takes n messages and acknowledges each by itself.
func ackSome(tb testing.TB, s *local.Store, q broker.Target, n int) {
	tb.Helper()
	for _, d := range receive(tb, s, q, n) {
		c := submit(s, func(b *broker.Batch) { b.Settle(d.Ref, broker.ReasonAcked) })
		if err := outcome(c); err != nil {
			tb.Fatalf("ack on a full disk: %v", err)
		}
	}
}

func TestALowDiskRefusesWhatTakesRoomAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewQuotaFS(journaltest.NewSectorFS(), 2<<20)
		o := crashOptions(disk)
		o.LowDisk = 1 << 20
		s := open(t, o)
		s.Bind(noEvents{})
		q := queueOn(t, s, broker.Def{Name: "q"})
		volatile := queueOn(t, s, broker.Def{Name: "m", Volatile: true})
		retain := func(v []byte) error {
			return outcome(submit(s, func(b *broker.Batch) { b.Put(broker.SpaceRetained, "t", v, 0) }))
		}
		if err := errors.Join(outcome(publishTo(s, q)), outcome(publishTo(s, q)), retain([]byte("v"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)         // segments are prepared behind the back
		edge := disk.Free() - o.LowDisk // so much more, and it is low
		disk.Occupy(edge)
		time.Sleep(lookAgain)
		if err := outcome(publishTo(s, q)); err != nil || s.State().Full {
			t.Fatalf("refused while there is just enough: %v", err)
		}
		disk.Occupy(edge + 1)
		time.Sleep(lookAgain)
		if !s.State().Full {
			t.Error("the state does not show that the disk is low")
		}
		ctx := context.Background()
		_, defined := s.Define(ctx, broker.Def{Name: "new", Kind: broker.QueueTarget})
		both := submit(s, func(b *broker.Batch) {
			b.Publish(numbered(1, 10), broker.Route{Target: q}, broker.Route{Target: volatile})
		})
		for what, err := range map[string]error{"publish": outcome(publishTo(s, q)), "publish to both": outcome(both), "retained": retain([]byte("w")), "definition": defined} {
			if !errors.Is(err, broker.ErrFull) {
				t.Errorf("%s on a low disk answers %v", what, err)
			}
		}
		for what, put := range map[string]func(b *broker.Batch){
			"deleting a retained value": func(b *broker.Batch) { b.Put(broker.SpaceRetained, "t", nil, 0) },
			"a cursor":                  func(b *broker.Batch) { b.Put(broker.SpaceCursors, "c", []byte("5"), 0) },
			"an account":                func(b *broker.Batch) { b.Put(broker.SpaceAuth, "k", []byte("revoked"), 0) },
			"a publish to memory":       func(b *broker.Batch) { b.Publish(numbered(1, 10), broker.Route{Target: volatile}) },
			"a purge":                   func(b *broker.Batch) { b.Purge(volatile, true) },
		} {
			if err := outcome(submit(s, put)); err != nil {
				t.Errorf("%s on a low disk answers %v", what, err)
			}
		}
		ackSome(t, s, q, 1)
		if _, err := s.Define(ctx, broker.Def{Name: "q", Kind: broker.QueueTarget, MaxMessages: 5}); err != nil {
			t.Errorf("altering a queue on a low disk answers %v", err)
		}
		disk.Occupy(edge - o.LowDisk/10 + 1) // not yet a tenth above the mark
		time.Sleep(lookAgain)
		if err := outcome(publishTo(s, q)); !errors.Is(err, broker.ErrFull) {
			t.Errorf("publish just above the mark answers %v", err)
		}
		disk.Occupy(edge - o.LowDisk/10)
		time.Sleep(lookAgain)
		if err := outcome(publishTo(s, q)); err != nil || s.State().Full {
			t.Errorf("publish a tenth above the mark answers %v", err)
		}
		shut(t, s)
	})
}

func TestADiskThatOthersFillLeavesTheReserveForAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewQuotaFS(journaltest.NewSectorFS(), 4<<20)
		o := crashOptions(disk)
		o.LowDisk = 1 // only a full disk is low
		s := open(t, o)
		s.Bind(noEvents{})
		q := queueOn(t, s, broker.Def{Name: "q"})
		const n = 3000
		for range n {
			if err := outcome(publishTo(s, q)); err != nil {
				t.Fatal(err)
			}
		}
		for round := range 5 {
			disk.Occupy(disk.Free())
			time.Sleep(lookAgain)
			fillUp(t, s, q)
			ackSome(t, s, q, 500) // more than what is left of a segment
			disk.Occupy(0)
			time.Sleep(3 * time.Second) // preparing is tried again
			if err := outcome(publishTo(s, q)); err != nil {
				t.Fatalf("round %d: publish after there was room again: %v", round, err)
			}
			if disk.Free() < 1<<20 {
				break // sealed segments stay until there are checkpoints
			}
		}
		shut(t, s)
		disk.Occupy(disk.Free())
		s = open(t, o) // a full disk is no reason not to open
		s.Bind(noEvents{})
		ackSome(t, s, q, 10)
		if err := outcome(publishTo(s, q)); !errors.Is(err, broker.ErrFull) {
			t.Errorf("publish to a store opened on a full disk answers %v", err)
		}
		shut(t, s)
	})
}
