package main_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"millrace/cmd/millrace/wire"
)

// TestNothingAcknowledgedIsLostOrComesBackAfterKill kills the real program at
// random moments under load from every door, and compares what is there
// afterwards with what producers and consumers had been told.
//
// MILLRACE_KILL_ROUNDS sets the number of rounds, MILLRACE_KILL_SEED repeats a run.
func TestNothingAcknowledgedIsLostOrComesBackAfterKill(t *testing.T) {
	rounds := fromEnv(t, "MILLRACE_KILL_ROUNDS", 5)
	if testing.Short() {
		rounds = 1
	}
	seed := fromEnv(t, "MILLRACE_KILL_SEED", time.Now().UnixNano()&0xffffff)
	t.Logf("seed %d (repeat with MILLRACE_KILL_SEED=%d)", seed, seed)
	r := rand.New(rand.NewPCG(uint64(seed), 0))

	book := filepath.Join(os.TempDir(), "millrace-ledger-"+strconv.FormatInt(seed, 10)+".txt")
	l, err := newLedger(book)
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	args := []string{"--data", data, "--bootstrap-file", bootstrapFile(t, testKeyYAML+killQueues)}
	kept := newKeepers()
	for round := range int(rounds) {
		first := l.size()
		s := startServer(t, args...)
		d := startLoad(t.Context(), l, s, "kill", kept, r.Uint64())
		pause := 50*time.Millisecond + time.Duration(r.Int64N(int64(1450*time.Millisecond)))
		<-time.After(pause)
		d.kill()

		s = startServer(t, args...)
		d.keepers.check(t, l, s)
		d.reader.check(t, l, newService(s))
		d.repeats.again(t, l, newService(s))
		drainAll(t, l, newService(s))
		sent, acked, settled, drained := l.audit(first)
		t.Logf("round %d: killed after %s; %d sent, %d acknowledged to producers, %d by consumers before the kill, %d drained after it",
			round+1, pause.Round(time.Millisecond), sent, acked, settled-drained, drained)

		// A clean restart keeps what waits, and brings nothing back.
		second := l.size()
		publishSome(t.Context(), t, l, s, r)
		s.stop()
		s = startServer(t, args...)
		drainAll(t, l, newService(s))
		l.audit(second)
		s.stop()
		if faults := l.report(); faults != "" {
			_ = l.close()
			t.Fatalf("round %d, seed %d, ledger %s:\n%s", round+1, seed, book, faults)
		}
		if acked == 0 {
			t.Errorf("round %d proved nothing: no producer had an answer", round+1)
		}
	}
	if err := errors.Join(l.close(), os.Remove(book)); err != nil {
		t.Error(err)
	}
}

func fromEnv(t *testing.T, name string, normal int64) int64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return normal
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		t.Fatalf("%s is %q, not a number", name, text)
	}
	return n
}

// drain empties the queue, also of what consumers held when they died.
func drain(t *testing.T, l *ledger, api *service, queue string) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); ; {
		got, err := api.consume(t.Context(), queue, 100, 1, 60)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			c, err := api.counts(t.Context(), queue)
			if err != nil {
				t.Fatal(err)
			}
			if c.Waiting == 0 && c.Held == 0 {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("queue %s does not become empty: %+v", queue, c)
			}
			continue
		}
		ns := make([]int, len(got))
		for i, h := range originals(queue, got) {
			ns[i] = l.received(h, true)
			l.settling(ns[i])
		}
		settled, err := api.ackAll(t.Context(), queue, got)
		if err != nil {
			t.Fatal(err)
		}
		for i, ok := range settled {
			if !ok {
				l.fault("refused", "the ack of message %d was refused within its lease", ns[i])
				continue
			}
			l.settled(ns[i])
		}
	}
}

// publishSome publishes through each door and wants an answer to each.
func publishSome(ctx context.Context, t *testing.T, l *ledger, s *server, r *rand.Rand) {
	t.Helper()
	api := newService(s)
	for range 10 {
		n, payload := l.send("http", r, true)
		if err := api.publish(ctx, "k/http", string(payload)); err != nil {
			t.Fatal(err)
		}
		l.acked(n)
	}
	c, err := wire.Dial(ctx, s.ports["mqtt"], wire.Login{ClientID: "some", User: testKeyID, Password: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 10 {
		n, payload := l.send("mqtt1", r, false)
		if _, err := c.Write(wire.AppendPublish(nil, "k/mqtt1", 1, uint16(i+1), payload)); err != nil {
			t.Fatal(err)
		}
		p, err := c.Read1()
		if err != nil || p.Type != wire.Puback {
			t.Fatalf("no PUBACK: %+v, %v", p, err)
		}
		l.acked(n)
	}
}

// TestDefinitionsSurviveAKill makes queues and kills at once after each answer.
func TestDefinitionsSurviveAKill(t *testing.T) {
	args := []string{"--data", t.TempDir(), "--bootstrap-file", bootstrapFile(t, testKeyYAML)}
	var made []string
	for _, name := range []string{"a", "b", "c"} {
		s := startServer(t, args...)
		api := newService(s)
		for _, m := range made {
			if _, err := api.counts(t.Context(), m); err != nil {
				t.Errorf("queue %s was answered with 201 and is gone after kill -9: %v", m, err)
			}
		}
		if err := api.call(t.Context(), http.MethodPost, "/queues", map[string]string{"name": name, "topic_filter": name + "/#"}, nil); err != nil {
			t.Fatal(err)
		}
		made = append(made, name)
		s.kill()
	}
}
