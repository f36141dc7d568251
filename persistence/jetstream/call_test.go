package jetstream_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// bare connects to a server in the bubble of the test.
func bare(t *testing.T) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("nats://lone", jetstreamtest.InProcess(t).Dial())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// ask sends one request.
func ask(t *testing.T, nc *nats.Conn, subject string) error { return askAll(t, nc, subject)[0].err }

// asked is how a request ended, and when.
type asked struct {
	err  error
	took time.Duration
}

// askAll sends requests, all at once.
func askAll(t *testing.T, nc *nats.Conn, subjects ...string) []asked {
	t.Helper()
	c, err := jetstream.NewCalls(nc)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all := make([]asked, len(subjects))
	began := time.Now()
	var ends sync.WaitGroup
	ends.Add(len(all))
	for i, subject := range subjects {
		c.Start(subject, nil, func(err error) {
			all[i] = asked{err, time.Since(began)}
			ends.Done()
		})
	}
	ends.Wait()
	return all
}

// serve answers what comes to subject by f.
func serve(t *testing.T, nc *nats.Conn, subject string, f nats.MsgHandler) *nats.Subscription {
	t.Helper()
	sub, err := nc.Subscribe(subject, f)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// What nobody took is not done; what somebody may have taken is unknown, also
// when later nobody was there to be asked again.
func TestWhatOneServerMayHaveTakenIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc := bare(t)
		if err := ask(t, nc, "nobody"); !errors.Is(err, broker.ErrClosed) || errors.Is(err, broker.ErrUnknown) {
			t.Errorf("a call that nobody took answers %v, want that it is not done", err)
		}
		if err := serve(t, nc, "dies", func(*nats.Msg) {}).AutoUnsubscribe(1); err != nil {
			t.Fatal(err)
		}
		if err := ask(t, nc, "dies"); !errors.Is(err, broker.ErrUnknown) {
			t.Errorf("a call that somebody took who is gone answers %v, want that it is unknown", err)
		}
	})
}

// Servers that elect their leader say so at once, and are asked again.
func TestServersThatElectAreAskedAgain(t *testing.T) {
	const elects = `{"type":"x","error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`
	synctest.Test(t, func(t *testing.T) {
		nc := bare(t)
		answer := func(subject string, texts ...string) {
			asked := 0
			serve(t, nc, subject, func(m *nats.Msg) {
				_ = m.Respond([]byte(texts[min(asked, len(texts)-1)])) // who asked is there
				asked++
			})
		}
		answer("elects", elects, elects, "{}")
		if err := ask(t, nc, "elects"); err != nil {
			t.Errorf("asked while they elect: %v", err)
		}
		answer("never", elects)
		if err := ask(t, nc, "never"); !errors.Is(err, broker.ErrClosed) || errors.Is(err, broker.ErrUnknown) {
			t.Errorf("servers that never elect answer %v, want that it is not done", err)
		}
		serve(t, nc, "stored", func(m *nats.Msg) {
			_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Nats-Stream": {"s"}}, Data: []byte(elects + `"err_code":10158`)})
		})
		began := time.Now()
		if err := ask(t, nc, "stored"); err != nil || time.Since(began) > time.Second {
			t.Errorf("a message that holds such a text: %v after %v", err, time.Since(began))
		}
	})
}

// TestServersThatAreSlowAreAskedLessOften: each repeat is work for them.
func TestServersThatAreSlowAreAskedLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc := bare(t)
		sent := make(chan time.Duration, 100)
		began := time.Now()
		serve(t, nc, "silent", func(*nats.Msg) { sent <- time.Since(began) })
		if err := ask(t, nc, "silent"); !errors.Is(err, broker.ErrUnknown) {
			t.Errorf("a call without an answer is %v, want unknown", err)
		}
		var at []time.Duration
		for len(sent) > 0 {
			at = append(at, <-sent)
		}
		if len(at) < 8 || len(at) > 10 || at[1] > time.Second || at[len(at)-1] < 6*time.Second {
			t.Errorf("it was sent at %v; want that at once, soon again, and then each second until it is given up", at)
		}
	})
}

// TestACallIsNotGivenUpWhileItsTurnComes: servers that are slow answer one after the
// other, and come to the last when all before it have their answers.
func TestACallIsNotGivenUpWhileItsTurnComes(t *testing.T) {
	const each, line = 3 * time.Second, 36 * time.Second
	synctest.Test(t, func(t *testing.T) {
		nc := bare(t)
		answerSlowly(t, nc, "slow", each)
		serve(t, nc, "lost", func(*nats.Msg) {})
		asks := append(slices.Repeat([]string{"slow"}, int(line/each)), "lost", "slow", "slow")
		for i, end := range askAll(t, nc, asks...) {
			switch {
			case asks[i] == "slow" && end.err != nil:
				t.Errorf("call %d of a line ends after %s with %v", i, end.took, end.err)
			case asks[i] == "lost" && (!errors.Is(end.err, broker.ErrUnknown) || end.took < line || end.took > line+2*each+9*time.Second):
				t.Errorf("a call to which there is no answer ends after %s with %v; want unknown, 8s after those before it and their repeats", end.took, end.err)
			}
		}
	})
}

// TestAnAnswerThatWaitsForUsIsNotTooLate: what an answer before it has us do lasts longer
// than a call may.
func TestAnAnswerThatWaitsForUsIsNotTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nc := bare(t)
		asked := make(chan int, 100)
		serve(t, nc, "quick", func(m *nats.Msg) {
			asked <- 1
			_ = m.Respond(nil) // who asked is there
		})
		c, err := jetstream.NewCalls(nc)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ends := make(chan error, 2)
		c.Start("quick", nil, func(err error) {
			<-time.After(20 * time.Second)
			ends <- err
		})
		c.Start("quick", nil, func(err error) { ends <- err })
		for range 2 {
			if err := <-ends; err != nil {
				t.Error(err)
			}
		}
		if n := len(asked); n > 3 {
			t.Errorf("two calls that are answered were sent %d times", n)
		}
	})
}

// TestALineIsGivenUpAfterAMinute, which is longer than who asked will wait.
func TestALineIsGivenUpAfterAMinute(t *testing.T) {
	const each = 6 * time.Second
	synctest.Test(t, func(t *testing.T) {
		nc := bare(t)
		answerSlowly(t, nc, "slow", each)
		for i, end := range askAll(t, nc, slices.Repeat([]string{"slow"}, 12)...) {
			switch {
			case i < 9 && end.err != nil:
				t.Errorf("call %d of a line ends after %s with %v", i, end.took, end.err)
			case i > 9 && (!errors.Is(end.err, broker.ErrUnknown) || end.took > time.Minute):
				t.Errorf("call %d of a line ends after %s with %v, want unknown after a minute", i, end.took, end.err)
			}
		}
	})
}

// answerSlowly answers what comes to subject, one after the other.
func answerSlowly(t *testing.T, nc *nats.Conn, subject string, each time.Duration) {
	t.Helper()
	known := map[string]bool{}
	t.Cleanup(func() { <-time.After(time.Hour) }) // what waits ends with the test
	serve(t, nc, subject, func(m *nats.Msg) {
		if !known[m.Reply] { // else it is a repeat
			known[m.Reply] = true
			<-time.After(each)
		}
		_ = m.Respond(nil) // who asked is there
	})
}

// TestAnswersAreHeardWhileTheServerReadsNothing: a server that is busy reads late, and what
// waits to be sent must not hold back what is known already.
func TestAnswersAreHeardWhileTheServerReadsNothing(t *testing.T) {
	way := newDeaf(t, jetstreamtest.InProcess(t).Servers[0])
	here, err := nats.Connect("nats://lone", nats.InProcessServer(way))
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	there, err := nats.Connect("nats://lone", nats.InProcessServer(way.Server))
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	calls, err := jetstream.NewCalls(here)
	if err != nil {
		t.Fatal(err)
	}
	defer calls.Close()
	came := make(chan *nats.Msg, 10)
	serve(t, there, "first", func(m *nats.Msg) { came <- m })
	serve(t, there, "second", func(m *nats.Msg) { _ = m.Respond(nil) }) // who asked is there
	flush(t, there)
	ends := make(chan string, 2)
	start := func(subject string, data []byte) {
		calls.Start(subject, data, func(err error) { ends <- fmt.Sprint(subject, " ", err) })
	}
	start("first", nil)
	first := <-came
	jammed, read := way.jam()
	go start("second", make([]byte, 100<<10)) // more than waits in memory
	<-jammed
	if err := first.Respond(nil); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"first <nil>", "second <nil>"} {
		select {
		case got := <-ends:
			if got != want {
				t.Errorf("%q ends, want %q", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("no end of %q after 30s", want)
		}
		read()
	}
}
