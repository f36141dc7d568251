package broker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

func TestAckRemovesForGoodAndIsSafeToRepeat(t *testing.T) {
	f := open(t)
	f.queue("q", "t")
	f.publish("t", "1")
	got := f.expect("q", "1")[0]
	if s := f.ack("q", got); s != broker.Removed {
		t.Errorf("first ack: %s", s)
	}
	if s := f.ack("q", got); s != broker.Gone {
		t.Errorf("second ack: %s", s)
	}
	if i := f.info("q"); i.Out[broker.ReasonAcked] != 1 || i.Leased != 0 {
		t.Errorf("%+v", i.Info)
	}
	f.expect("q")
}

func TestLeaseThatLapsesGivesTheMessageToTheNext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		f.publish("t", "1")
		f.publish("t", "2")
		first := f.receive("q", 1)[0]
		if first.Attempt != 1 {
			t.Errorf("first attempt is %d", first.Attempt)
		}
		time.Sleep(30*time.Second - time.Millisecond)
		f.expect("q", "2")
		time.Sleep(time.Second)
		second := f.expect("q", "1")[0] // at its old place, before 2
		if second.Attempt != 2 || second.Receipt == first.Receipt {
			t.Errorf("second attempt is %d", second.Attempt)
		}
		_, err := f.Ack(f.ctx, "q", first.ID, first.Receipt)
		wantKind(t, err, broker.Invalid, broker.ReceiptSubject)
		f.ack("q", second)
	})
}

func TestLateAckCountsUntilTheMessageWasHandedOutAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		f.publish("t", "1")
		got := f.expect("q", "1")[0]
		time.Sleep(time.Minute)
		if s := f.ack("q", got); s != broker.Removed {
			t.Errorf("late ack: %s", s)
		}
		f.expect("q")
	})
}

func TestAckSaysWhatIsWrong(t *testing.T) {
	f := open(t)
	f.queue("q", "t")
	f.queue("other", "t")
	f.publish("t", "1")
	f.publish("t", "never handed out")
	got := f.receive("q", 1)[0]
	forged := strings.Map(func(r rune) rune {
		if r == 'A' {
			return 'B'
		}
		return r
	}, got.Receipt)
	for _, c := range []struct {
		why, queue string
		id         broker.ID
		receipt    string
		kind       broker.Kind
		subject    broker.Subject
	}{
		{"unknown queue", "none", got.ID, got.Receipt, broker.NotFound, broker.QueueSubject},
		{"forged", "q", got.ID, forged, broker.Invalid, broker.ReceiptSubject},
		{"empty", "q", got.ID, "", broker.Invalid, broker.ReceiptSubject},
		{"of another queue, never handed out there", "other", got.ID, got.Receipt, broker.NotFound, broker.MessageSubject},
		{"of another message", "q", broker.ID{1}, got.Receipt, broker.NotFound, broker.MessageSubject},
	} {
		t.Run(c.why, func(t *testing.T) {
			_, err := f.Ack(f.ctx, c.queue, c.id, c.receipt)
			wantKind(t, err, c.kind, c.subject)
		})
	}
	if i := f.info("q"); i.Leased != 1 || i.Ready != 1 {
		t.Errorf("a refused ack changed the queue: %+v", i.Info)
	}
}

func TestReceiptsOfADeletedQueueAreNotGoodForItsSuccessor(t *testing.T) {
	f := open(t)
	f.queue("q", "t")
	f.publish("t", "1")
	got := f.expect("q", "1")[0]
	if err := f.DeleteQueue(f.ctx, "q"); err != nil {
		t.Fatal(err)
	}
	f.queue("q", "t")
	f.publish("t", "2")
	_, err := f.Ack(f.ctx, "q", got.ID, got.Receipt)
	wantKind(t, err, broker.NotFound, broker.MessageSubject)
	f.expect("q", "2")
}

func TestAckBatchHasAResultForEach(t *testing.T) {
	f := open(t)
	f.queue("q", "t")
	for _, s := range []string{"1", "2", "3"} {
		f.publish("t", s)
	}
	got := f.expect("q", "1", "2", "3")
	f.ack("q", got[1])
	rs, err := f.AckBatch(f.ctx, "q", []broker.Settlement{
		{ID: got[0].ID, Receipt: got[0].Receipt},
		{ID: got[1].ID, Receipt: got[1].Receipt},
		{ID: got[2].ID, Receipt: "nonsense"},
		{ID: got[0].ID, Receipt: got[0].Receipt},
	})
	if err != nil {
		t.Fatal(err)
	}
	if rs[0].State != broker.Removed || rs[1].State != broker.Gone || rs[3].State != broker.Gone {
		t.Errorf("%+v", rs)
	}
	wantKind(t, rs[2].Err, broker.Invalid, broker.ReceiptSubject)
	if i := f.info("q"); i.Leased != 1 {
		t.Errorf("%+v", i.Info)
	}
}

func TestNackGivesBackAtTheOldPlaceAfterItsDelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		for _, s := range []string{"1", "2", "3"} {
			f.publish("t", s)
		}
		got := f.receive("q", 2)
		if _, err := f.Nack(f.ctx, "q", got[1].ID, got[1].Receipt, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Nack(f.ctx, "q", got[0].ID, got[0].Receipt, time.Minute); err != nil {
			t.Fatal(err)
		}
		if i := f.info("q"); i.Delayed != 1 || i.Ready != 2 {
			t.Errorf("%+v", i.Info)
		}
		f.expect("q", "2", "3")
		time.Sleep(time.Minute + time.Second)
		f.expect("q", "1", "2", "3") // the leases of 2 and 3 have lapsed too
	})
}

func TestNackWithoutDelayBacksOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t", func(c *broker.QueueConfig) {
			c.MaxRetries, c.BackoffMin, c.BackoffMax = broker.Unlimited, 2*time.Second, 10*time.Second
		})
		f.publish("t", "1")
		for _, want := range []time.Duration{2, 4, 8, 10, 10} {
			got := f.expect("q", "1")[0]
			d, err := f.Nack(f.ctx, "q", got.ID, got.Receipt, broker.Backoff)
			if err != nil || d != want*time.Second {
				t.Fatalf("attempt %d: delay %v, %v; want %d s", got.Attempt, d, err, want)
			}
			time.Sleep(d - time.Millisecond)
			f.expect("q")
			time.Sleep(time.Second)
		}
	})
}

func TestExtendHoldsTheLeaseForAtMostTwelveHours(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		f.publish("t", "1")
		got := f.expect("q", "1")[0]
		until, err := f.Extend(f.ctx, "q", got.ID, got.Receipt, time.Hour)
		if err != nil || time.Until(until) != time.Hour {
			t.Fatal(until, err)
		}
		time.Sleep(59 * time.Minute)
		f.expect("q")
		if _, err := f.Extend(f.ctx, "q", got.ID, got.Receipt, 11*time.Hour); err != nil {
			t.Fatal(err)
		}
		_, err = f.Extend(f.ctx, "q", got.ID, got.Receipt, 11*time.Hour+2*time.Minute)
		wantKind(t, err, broker.Invalid, broker.FieldSubject)
		_, err = f.Extend(f.ctx, "q", got.ID, got.Receipt, 12*time.Hour+time.Second)
		wantKind(t, err, broker.Invalid, broker.FieldSubject)
		if _, err := f.Extend(f.ctx, "q", got.ID, got.Receipt, 0); err != nil {
			t.Fatal(err)
		}
		again := f.expect("q", "1")[0]
		_, err = f.Extend(f.ctx, "q", got.ID, got.Receipt, time.Hour)
		wantKind(t, err, broker.Invalid, broker.ReceiptSubject)
		f.ack("q", again)
		_, err = f.Extend(f.ctx, "q", again.ID, again.Receipt, time.Hour)
		wantKind(t, err, broker.NotFound, broker.MessageSubject)
	})
}

func TestVisibilityZeroLeasesNothing(t *testing.T) {
	f := open(t)
	f.queue("q", "t", func(c *broker.QueueConfig) { c.MaxRetries = broker.Unlimited })
	f.publish("t", "1")
	for want := uint32(1); want < 4; want++ {
		got, err := f.Receive(f.ctx, "q", broker.ReceiveOptions{Max: 1})
		if err != nil || len(got) != 1 || got[0].Attempt != want {
			t.Fatalf("%+v, %v; want attempt %d", got, err, want)
		}
	}
}

func TestWaitIsWokenByWhatMakesAMessageReady(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(f *fixture)
		after   time.Duration
	}{
		"a publish": {func(f *fixture) {
			go func() { time.Sleep(7 * time.Second); f.publish("t", "1") }()
		}, 7 * time.Second},
		"a lease that ends": {func(f *fixture) {
			f.publish("t", "1")
			f.expect("q", "1")
		}, 30 * time.Second},
		"a delay that ends": {func(f *fixture) {
			f.publish("t", "1")
			got := f.expect("q", "1")[0]
			if _, err := f.Nack(f.ctx, "q", got.ID, got.Receipt, 9*time.Second); err != nil {
				f.tb.Error(err)
			}
		}, 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := open(t)
				f.queue("q", "t")
				c.prepare(f)
				start := time.Now()
				if got := f.await("q", 10, time.Minute); len(got) != 1 {
					t.Fatalf("got %d messages", len(got))
				}
				if took := time.Since(start); took < c.after || took > c.after+time.Second {
					t.Errorf("woken after %v, want %v", took, c.after)
				}
			})
		})
	}
}

func TestWaitEndsEmptyHanded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		start := time.Now()
		if got := f.await("q", 1, 20*time.Second); len(got) != 0 || time.Since(start) != 20*time.Second {
			t.Errorf("got %d messages after %v", len(got), time.Since(start))
		}
	})
}

func TestWaiterThatHasGoneTakesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		ctx, leave := context.WithCancel(f.ctx)
		gone := make(chan error)
		go func() {
			_, err := f.Receive(ctx, "q", broker.ReceiveOptions{Max: 1, Wait: time.Minute, Lease: broker.DefaultLease})
			gone <- err
		}()
		synctest.Wait()
		next := make(chan []broker.Received)
		go func() { next <- f.await("q", 1, time.Minute) }()
		synctest.Wait()
		leave()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("the waiter that left got %v", err)
		}
		f.publish("t", "1")
		if got := <-next; len(got) != 1 || got[0].Attempt != 1 {
			t.Errorf("the next waiter got %+v", got)
		}
	})
}

func TestWaitersAreServedInOrderOfArrival(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		order := make(chan int, 3)
		for i := range 3 {
			go func() {
				f.await("q", 1, time.Minute)
				order <- i
			}()
			synctest.Wait()
		}
		for want := range 3 {
			f.publish("t", "x")
			if got := <-order; got != want {
				t.Errorf("waiter %d was served, want %d", got, want)
			}
		}
	})
}

func TestDeletingAQueueEndsItsWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		ended := make(chan error)
		go func() {
			_, err := f.Receive(f.ctx, "q", broker.ReceiveOptions{Max: 1, Wait: time.Minute})
			ended <- err
		}()
		synctest.Wait()
		start := time.Now()
		if err := f.DeleteQueue(f.ctx, "q"); err != nil {
			t.Fatal(err)
		}
		wantKind(t, <-ended, broker.NotFound, broker.QueueSubject)
		if time.Since(start) > 0 {
			t.Errorf("it took %v", time.Since(start))
		}
	})
}

func TestTooManyWaitsAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t")
		ctx, stop := context.WithCancel(f.ctx)
		o := broker.ReceiveOptions{Max: 1, Wait: time.Hour}
		for range 10_000 {
			go func() { _, _ = f.Receive(ctx, "q", o) }()
		}
		synctest.Wait()
		_, err := f.Receive(ctx, "q", o)
		wantKind(t, err, broker.Full, "")
		f.receive("q", 1) // without waiting it is still allowed
		stop()
		synctest.Wait()
	})
}

func TestReceiveChecksItsOptions(t *testing.T) {
	f := open(t)
	f.queue("q", "t")
	for _, o := range []broker.ReceiveOptions{
		{Max: 0}, {Max: -1}, {Max: 1, Wait: -1}, {Max: 1, Lease: -2}, {Max: 1, Lease: 12*time.Hour + 1},
	} {
		_, err := f.Receive(f.ctx, "q", o)
		wantKind(t, err, broker.Invalid, broker.FieldSubject)
	}
	_, err := f.Receive(f.ctx, "none", broker.ReceiveOptions{Max: 1})
	wantKind(t, err, broker.NotFound, broker.QueueSubject)
	publisher := auth.WithPrincipal(context.Background(), &auth.Principal{Kind: auth.Key, Name: "p", Role: auth.Publisher})
	_, err = f.Receive(publisher, "q", broker.ReceiveOptions{Max: 1})
	wantKind(t, err, broker.Forbidden, "")
	_, err = f.Receive(publisher, "none", broker.ReceiveOptions{Max: 1})
	wantKind(t, err, broker.Forbidden, "") // whether the queue exists or not
}

func TestBrowseLeasesNothing(t *testing.T) {
	f := open(t)
	f.queue("q", "t")
	for _, s := range []string{"1", "2", "3"} {
		f.publish("t", s)
	}
	ds, err := f.Browse(f.ctx, "q", broker.Ready, 1, 1)
	if err != nil || len(ds) != 1 || string(ds[0].Payload) != "2" || ds[0].Attempt != 0 {
		t.Fatalf("%+v, %v", ds, err)
	}
	if got := f.expect("q", "1", "2", "3"); got[0].Attempt != 1 {
		t.Errorf("attempt %d", got[0].Attempt)
	}
}

func TestPurgeTakesReadyAndDelayedOrAll(t *testing.T) {
	f := open(t)
	f.queue("q", "t")
	for _, s := range []string{"leased", "delayed", "ready"} {
		f.publish("t", s)
	}
	got := f.receive("q", 2)
	if _, err := f.Nack(f.ctx, "q", got[1].ID, got[1].Receipt, time.Hour); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Purge(f.ctx, "q", false); err != nil || n != 2 {
		t.Fatalf("purged %d, %v; want 2", n, err)
	}
	if i := f.info("q"); i.Leased != 1 || i.Ready+i.Delayed != 0 || i.Out[broker.ReasonPurged] != 2 {
		t.Errorf("%+v", i.Info)
	}
	f.publish("t", "after")
	if n, err := f.Purge(f.ctx, "q", true); err != nil || n != 2 {
		t.Fatalf("purged %d, %v; want 2", n, err)
	}
	if s := f.ack("q", got[0]); s != broker.Gone {
		t.Errorf("ack of a purged message: %s", s)
	}
}

func TestExpiredMessagesAreNotDelivered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		f.queue("q", "t", func(c *broker.QueueConfig) { c.TTL = time.Minute })
		f.publish("t", "queue's limit")
		if _, err := f.Publish(f.ctx, &broker.Message{
			Topic: "t", Payload: []byte("its own"), QoS: 1, Expires: time.Now().Add(10 * time.Second).UnixMilli(),
		}); err != nil {
			t.Fatal(err)
		}
		f.publish("t", "leased")
		got := f.receive("q", 3)
		for _, g := range got[:2] {
			if _, err := f.Nack(f.ctx, "q", g.ID, g.Receipt, 0); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(11 * time.Second)
		first := f.receive("q", 5)
		if len(first) != 1 || string(first[0].Payload) != "queue's limit" {
			t.Fatalf("got %q", texts(first))
		}
		if _, err := f.Nack(f.ctx, "q", first[0].ID, first[0].Receipt, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Extend(f.ctx, "q", got[2].ID, got[2].Receipt, time.Hour); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		f.expect("q")
		if i := f.info("q"); i.Out[broker.ReasonExpired] != 2 || i.Leased != 1 {
			t.Errorf("a leased message does not expire: %+v", i.Info)
		}
		f.ack("q", got[2])
	})
}
