package jetstream_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/jetstream"
)

// publishAll publishes many messages, in one batch.
func (x *clients) publishAll(bodies []string, to ...broker.Target) {
	x.Helper()
	b, done := &broker.Batch{}, make(answered, 1)
	for _, body := range bodies {
		b.Publish(x.message(body), routes(to)...)
		b.End()
	}
	x.Submit(b, broker.Durable, done)
	for _, u := range (<-done).Units {
		if u.Result.Err != nil {
			x.Fatal(u.Result.Err)
		}
	}
}

// ackAll acknowledges all of ds, in one batch.
func (x *clients) ackAll(ds []broker.Delivery) {
	x.Helper()
	b, done := &broker.Batch{}, make(answered, 1)
	for i := range ds {
		b.Settle(ds[i].Ref, broker.ReasonAcked)
		b.End()
	}
	x.Submit(b, broker.Durable, done)
	for _, u := range (<-done).Units {
		if u.Result.Err != nil {
			x.Fatal(u.Result.Err)
		}
	}
}

// bodies are n of them, each with a number of its own.
func bodies(from, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("m%06d", from+i)
	}
	return all
}

// holds are the bodies that a session has, taken or not.
func (x *clients) holds(s broker.Target) []string {
	x.Helper()
	ds, err := x.Read(x.Context(), s, broker.Pos{States: broker.Ready | broker.Leased | broker.Delayed}, 100_000, nil)
	if err != nil {
		x.Fatal(err)
	}
	all := make([]string, len(ds))
	for i := range ds {
		all[i] = string(ds[i].Payload)
	}
	return all
}

// TestAStartReadsLittleOfTheLog, however much of it nobody waits for any more, and
// however long ago the oldest came that somebody does.
func TestAStartReadsLittleOfTheLog(t *testing.T) {
	inBubble(t, func(x *clients) {
		away, busy, group := x.session("away"), x.session("busy"), x.session("group")
		n := 3*jetstream.LogPage + 100
		if err := x.publish("first", away, group); err != nil {
			x.Fatal(err)
		}
		for from := 0; from < n; from += 500 {
			some := bodies(from, min(500, n-from))
			x.publishAll(some, busy)
			x.ackAll(x.expect(busy, some...))
		}
		time.Sleep(10 * time.Second)
		if err := x.publish("last", away, busy); err != nil {
			x.Fatal(err)
		}
		for round := range 3 { // the second and third find what was booked by the one before
			x.Crash()
			x.start()
			if got := x.ReadOfLog(); got > jetstream.LogPage/2 {
				x.Errorf("start %d reads %d messages of the log, of which 2 are waited for", round, got)
			}
			for s, want := range map[broker.Target]string{away: "first last", group: "first", busy: "last"} {
				if got := strings.Join(x.holds(s), " "); got != want {
					x.Errorf("start %d: a session has %q, want %q", round, got, want)
				}
			}
		}
		x.ackAll(x.expect(away, "first", "last"))
		x.end()
		x.start()
		if got := x.ReadOfLog(); got != 0 {
			x.Errorf("after a close %d messages of the log are read", got)
		}
		x.ackAll(x.expect(group, "first"))
		x.ackAll(x.expect(busy, "last"))
		time.Sleep(10 * time.Second)
		if n := x.logged(); n != 0 {
			x.Errorf("the log holds %d messages that nobody waits for", n)
		}
	})
}

// TestAPageThatIsTooLargeIsReadFromTheLog: it names too many sessions.
func TestAPageThatIsTooLargeIsReadFromTheLog(t *testing.T) {
	inBubble(t, func(x *clients) {
		all := make([]broker.Target, 200)
		for i := range all {
			all[i] = x.session(fmt.Sprint("c", i))
		}
		want := bodies(0, 2*jetstream.LogPage)
		for some := range slices.Chunk(want, 512) {
			x.publishAll(some, all...)
		}
		time.Sleep(10 * time.Second)
		x.Crash()
		x.start()
		if got := x.ReadOfLog(); got != 0 {
			x.Errorf("the tail brings %d messages, and all are booked", got)
		}
		for _, s := range all {
			if got := x.holds(s); !slices.Equal(got, want) {
				x.Fatalf("a session has %d messages, want %d", len(got), len(want))
			}
		}
		for _, s := range all[1:] {
			x.ackAll(x.expect(s, want...))
		}
		time.Sleep(10 * time.Second)
		x.Crash()
		x.start()
		x.ackAll(x.expect(all[0], want...))
	})
}

// TestNoCrashLosesWhatIsBooked has sessions come and go, and take some of what they
// have, and the node die at any time.
func TestNoCrashLosesWhatIsBooked(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(x *clients) {
				random := rand.New(rand.NewPCG(seed, 0))
				has := map[broker.Target][]string{}
				var all []broker.Target
				for i := range 5 {
					all = append(all, x.session(fmt.Sprint("c", i)))
				}
				n := 0
				for round := range 60 {
					switch k := random.IntN(10); {
					case k < 5:
						some, to := bodies(n, 1+random.IntN(400)), all[random.IntN(3):3+random.IntN(3)]
						n += len(some)
						x.publishAll(some, to...)
						for _, s := range to {
							has[s] = append(has[s], some...)
						}
					case k < 7:
						s := all[random.IntN(len(all))]
						got := take(x.Store, s, 1+random.IntN(600), time.Second, 0)
						random.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
						got = got[:random.IntN(len(got)+1)]
						x.ackAll(got)
						has[s] = slices.DeleteFunc(has[s], func(body string) bool {
							return slices.ContainsFunc(got, func(d broker.Delivery) bool { return string(d.Payload) == body })
						})
					case k == 7:
						i := random.IntN(len(all))
						if err := x.Drop(x.Context(), all[i]); err != nil {
							x.Fatal(err)
						}
						delete(has, all[i])
						all[i] = x.session(fmt.Sprint("d", round))
					default:
						time.Sleep(time.Duration(random.IntN(5000)) * time.Millisecond)
						x.Crash()
						x.start()
						for _, s := range all {
							if got := x.holds(s); !slices.Equal(got, has[s]) {
								x.Fatalf("round %d: a session has %d messages, want %d", round, len(got), len(has[s]))
							}
						}
					}
				}
			})
		})
	}
}

// TestALogThatWasMadeAnewIsNotTheOneInTheBooks: an operator put an older one back, or
// deleted it.
func TestALogThatWasMadeAnewIsNotTheOneInTheBooks(t *testing.T) {
	inBubble(t, func(x *clients) {
		s := x.session("s")
		x.publishAll(bodies(0, 10), s)
		x.end()
		if err := jetStream(x.T, x.c).DeleteStream(x.Context(), "mr_log"); err != nil {
			x.Fatal(err)
		}
		x.start()
		x.publishAll(bodies(10, 3), s)
		for range 2 {
			if got := x.holds(s); !slices.Equal(got, bodies(10, 3)) {
				x.Errorf("the session has %q", got)
			}
			x.end()
			x.start()
		}
	})
}

// TestAStopBooksWhatComesAtItsEnd has the store close while publishes are under way:
// those that are answered are there after it.
func TestAStopBooksWhatComesAtItsEnd(t *testing.T) {
	inBubble(t, func(x *clients) {
		s := x.session("s")
		want := map[string]bool{}
		for round := range 8 {
			done := make(answered, 50)
			for i := range cap(done) {
				b := &broker.Batch{}
				b.Publish(x.message(fmt.Sprint(round, "-", i)), routes([]broker.Target{s})...)
				b.End()
				x.Submit(b, broker.Durable, done)
			}
			for range round { // it closes a little later every time
				runtime.Gosched()
			}
			x.end()
			for range cap(done) {
				if b := <-done; b.Units[0].Result.Err == nil {
					want[string(b.Ops[0].Message.Payload)] = true
				}
			}
			x.start()
			got := x.holds(s)
			for body := range want {
				if !slices.Contains(got, body) {
					x.Fatalf("round %d: %s was answered, and is not there after a close", round, body)
				}
			}
		}
		if len(want) == 0 {
			x.Error("nothing was answered")
		}
	})
}
