package local_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// onFullDisk runs a test with a store, of which others fill the disk when it
// says so.
func onFullDisk(t *testing.T, run func(t *testing.T, disk *journaltest.QuotaFS, s *local.Store, q broker.Target)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewQuotaFS(journaltest.NewSectorFS(), 8<<20)
		o := crashOptions(disk)
		o.LowDisk, o.CompactRate = 1, 1<<30
		s := open(t, o)
		defer shut(t, s)
		run(t, disk, s, queueOn(t, s, broker.Def{Name: "q"}))
	})
}

func TestCompactionLeavesTheReserveForAcknowledgements(t *testing.T) {
	onFullDisk(t, func(t *testing.T, disk *journaltest.QuotaFS, s *local.Store, q broker.Target) {
		fill(t, s, q, 2000)
		kept := ackAll(t, s, q, 8)
		s.Tidy()        // looks
		synctest.Wait() // the next segment is prepared
		disk.Fill()
		time.Sleep(lookAgain)
		s.Tidy() // and moves as much as there is room for
		if n := s.Moved(); n == 0 || n >= int64(kept) || !s.State().Full {
			t.Fatalf("%d of %d messages were moved, the state is %+v", n, kept, s.State())
		}
		leased, err := s.Read(t.Context(), q, broker.Pos{States: broker.Leased}, 200, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range leased {
			if err := outcome(submit(s, func(b *broker.Batch) { b.Settle(leased[i].Ref, broker.ReasonAcked) })); err != nil {
				t.Fatalf("ack %d on a full disk: %v", i, err)
			}
		}
	})
}

func TestABatchOfMessagesUnderWayLeavesTheReserveForAcknowledgements(t *testing.T) {
	onFullDisk(t, func(t *testing.T, disk *journaltest.QuotaFS, s *local.Store, q broker.Target) {
		s.Bind(noEvents{})
		fill(t, s, q, 300)
		synctest.Wait() // the next segment is prepared
		disk.Fill()     // which the store does not notice yet
		b, c := &broker.Batch{}, make(batches, 1)
		for i := range 200 {
			b.Publish(numbered(i, 1000), broker.Route{Target: q})
			b.End()
		}
		s.Submit(b, broker.Durable, c)
		<-c
		if err := b.Units[199].Result.Err; b.Units[0].Result.Err != nil || !errors.Is(err, broker.ErrFull) {
			t.Fatalf("the first message: %v, the last: %v", b.Units[0].Result.Err, err)
		}
		ackSome(t, s, q, 300)
	})
}

func TestLeasesLeaveTheReserveForAcknowledgements(t *testing.T) {
	onFullDisk(t, func(t *testing.T, disk *journaltest.QuotaFS, s *local.Store, q broker.Target) {
		s.Bind(noEvents{})
		fill(t, s, q, 300)
		synctest.Wait() // the next segment is prepared
		disk.Fill()
		time.Sleep(lookAgain)
		for range 100 { // nobody succeeds
			c := make(collect, 1)
			w := &broker.Wait{Target: q, Max: 300, Lease: time.Second, Sink: c}
			s.Receive(w)
			if <-c; w.Err != nil || len(w.Got) != 300 {
				t.Fatalf("got %d messages, %v", len(w.Got), w.Err)
			}
			time.Sleep(2 * time.Second)
		}
		ackSome(t, s, q, 300)
	})
}
