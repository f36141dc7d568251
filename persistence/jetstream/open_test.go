package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/persistence/jetstream"
	"millrace/persistence/jetstream/jetstreamtest"
)

// fails opens a store that must not open, and compares the error.
func fails(t *testing.T, o jetstream.Options, kind error, text string) {
	t.Helper()
	s, err := jetstream.Open(t.Context(), o)
	if err == nil {
		_ = s.Close(context.Background()) // the test fails anyhow
		t.Fatal("it opens")
	}
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("error is %v, want %v with %q", err, kind, text)
	}
}

func TestWhatTheServersMustBe(t *testing.T) {
	off := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1, Configure: func(o *server.Options) { o.JetStreamMaxStore = -1 }})
	fails(t, jetstream.Options{URL: off.URL()}, jetstream.ErrUnfit, "start its servers with -js")

	on := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1, Configure: func(o *server.Options) { o.Username, o.Password = "me", "secret" }})
	at := strings.Replace(on.URL(), "nats://", "nats://me:secret@", 1)
	fails(t, jetstream.Options{URL: at, Replicas: 3}, jetstream.ErrUnfit, "is a lone server: take 1")
	fails(t, jetstream.Options{URL: strings.Replace(at, "secret", "wrong", 1)}, jetstream.ErrUnfit, "does not let us in")
	on.Stop()
	fails(t, jetstream.Options{URL: at, Wait: time.Second}, jetstream.ErrUnreachable, "within 1s")
	fails(t, jetstream.Options{URL: at, Wait: time.Second}, jetstream.ErrUnreachable, "start the servers, or name others with --store; --nats-wait says how long they are waited for")
	if _, err := jetstream.Open(t.Context(), jetstream.Options{URL: at, Wait: time.Millisecond}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("the password is in %v", err)
	}
}

// TestServersWithoutALeaderAreWaitedFor: a machine may start before those of the servers.
func TestServersWithoutALeaderAreWaitedFor(t *testing.T) {
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 3})
	o := jetstream.Options{URL: c.Servers[0].ClientURL(), Wait: 8 * time.Second}
	for _, s := range c.Servers[1:] {
		s.Shutdown()
		s.WaitForShutdown()
	}
	eventually(t, "the server that is left has no leader", func() bool {
		info, err := c.Servers[0].Jsz(nil)
		return err == nil && info.Meta != nil && info.Meta.Leader == ""
	})
	began := time.Now()
	fails(t, o, jetstream.ErrUnreachable, "within 8s")
	if took := time.Since(began); took < o.Wait {
		t.Errorf("it gives up after %s, and was to wait for %s", took, o.Wait)
	}
}

// TestServersThatAreMissingForTheCopiesAreWaitedFor, where the others have a leader: they
// were all switched on at once, and one is late.
func TestServersThatAreMissingForTheCopiesAreWaitedFor(t *testing.T) {
	p := jetstreamtest.StartProcesses(t)
	if err := open(t, jetstream.Options{URL: p.URL(), Prefix: "before"}).Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		p.Stop(i)
	}
	p.Start(0)
	p.Start(1)
	o := jetstream.Options{URL: p.URL(), Wait: 2 * time.Second}
	eventually(t, "the start finds too few servers", func() bool {
		began := time.Now()
		s, err := jetstream.Open(t.Context(), o)
		if err == nil {
			_ = s.Close(t.Context()) // the test fails anyhow
			t.Fatal("it opens")
		}
		if took := time.Since(began); took < o.Wait {
			t.Fatalf("it gives up after %s, and was to wait for %s: %v", took, o.Wait, err)
		}
		if !errors.Is(err, jetstream.ErrUnreachable) {
			t.Fatalf("error is %v, want one that another start may not have", err)
		}
		return strings.Contains(err.Error(), "start the servers that are missing")
	})

	said := make(chan string, 100)
	o.Wait = 2 * time.Minute
	o.Log = zerolog.New(writer(func(line []byte) {
		if strings.Contains(string(line), "too few nats servers") {
			said <- string(line)
		}
	}))
	opened := make(chan error, 1)
	go func() {
		s, err := jetstream.Open(t.Context(), o)
		if err == nil {
			err = s.Close(t.Context())
		}
		opened <- err
	}()
	select {
	case <-said:
	case err := <-opened:
		t.Fatalf("it does not wait: %v", err)
	}
	p.Start(2)
	if err := <-opened; err != nil {
		t.Error(err)
	}
	if len(said) > 0 {
		t.Errorf("that it waits it says again: %s", <-said)
	}

	o = jetstream.Options{URL: p.URL(), Prefix: "other", Wait: 5 * time.Second, Replicas: 5}
	fails(t, o, jetstream.ErrUnfit, "or ask for fewer with --nats-replicas")
}

// writer is a function as an io.Writer.
type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

func TestOptionsThatCannotBe(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for what, o := range map[string]jetstream.Options{
		`prefix "a.b" / name another with --nats-prefix`:               {Prefix: "a.b"},
		`domain "a b" / name it with --nats-domain`:                    {Domain: "a b"},
		"replicas 2 / take one of them with --nats-replicas":           {Replicas: 2},
		`sync "sometimes" / take one of them with --nats-sync`:         {Sync: "sometimes"},
		`"a" / nkey "b" / give one alone, --nats-creds or --nats-nkey`: {Creds: "a", NKey: "b"},
		`"a" / give both, --nats-tls-cert and --nats-tls-key`:          {Cert: "a"},
		"of 1ms / take at least 1s":                                    {Hold: time.Millisecond},
		"looking -1 messages / take 1 to 100000":                       {LookAhead: -1},
		none + " / name a file that we may read with --nats-creds":     {Creds: none},
		none + " / name a file of a seed with --nats-nkey":             {NKey: none},
		none + " / name files in PEM with --nats-tls-ca":               {CA: none},
		none + " / with --nats-tls-cert and --nats-tls-key":            {Cert: none, Key: none},
	} {
		_, err := jetstream.Open(t.Context(), o)
		if !errors.Is(err, jetstream.ErrUnfit) {
			t.Errorf("the error of %+v is %v", o, err)
			continue
		}
		for part := range strings.SplitSeq(what, " / ") { // what is wrong, and what to do
			if !strings.Contains(err.Error(), part) {
				t.Errorf("the error does not say %q: %v", part, err)
			}
		}
	}
}

func TestAPrefixIsOneNodes(t *testing.T) {
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1})
	o := jetstream.Options{URL: c.URL(), Node: "first", Hold: time.Second}
	first := open(t, o)
	other := o
	other.Node = "second"
	fails(t, other, jetstream.ErrInUse, `node "first" uses the nats prefix "mr" since `)
	fails(t, other, jetstream.ErrInUse, "Z: stop it, or take another prefix with --nats-prefix")
	other.Prefix = "other"
	if err := open(t, other).Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := first.Close(t.Context()); err != nil {
		t.Error(err)
	}
	o.Node = "second"
	if err := open(t, o).Close(t.Context()); err != nil { // it was given up
		t.Error(err)
	}
}

func TestStreamsOfOthersAreLeftAlone(t *testing.T) {
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1})
	nc, err := nats.Connect(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := natsjs.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateStream(t.Context(), natsjs.StreamConfig{Name: "mr_dead", Subjects: []string{"mr.x.>"}, Retention: natsjs.InterestPolicy})
	if err != nil {
		t.Fatal(err)
	}
	fails(t, jetstream.Options{URL: c.URL()}, jetstream.ErrUnfit, "stream mr_dead has retention Interest, and must have Limits: it is not ours")
}

func TestClocksAreCompared(t *testing.T) {
	began := time.Now()
	ended := began.Add(time.Second)
	for at, want := range map[time.Duration]time.Duration{
		-2 * time.Second: -2 * time.Second, 0: 0, time.Second / 2: 0, time.Second: 0, 4 * time.Second: 3 * time.Second,
	} {
		if got := jetstream.Ahead(began.Add(at), began, ended); got != want {
			t.Errorf("a clock that showed %s in a second is ahead by %s, want %s", at, got, want)
		}
	}
}

// TestADomain has every kind of call go to the JetStream of a domain.
func TestADomain(t *testing.T) {
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1, Configure: func(o *server.Options) { o.JetStreamDomain = "hub" }})
	for round := range uint64(2) {
		s := open(t, jetstream.Options{URL: c.URL(), Domain: "hub"})
		s.Bind(make(heard, 10))
		q, err := s.Define(t.Context(), broker.Def{Name: "q", Kind: broker.QueueTarget})
		if err != nil {
			t.Fatal(err)
		}
		log, err := s.Define(t.Context(), broker.Def{Name: "s", Kind: broker.StreamTarget})
		if err != nil {
			t.Fatal(err)
		}
		send(t, s, q, fmt.Sprint("a", round))
		send(t, s, log, fmt.Sprint("a", round))
		got := take(s, q, 1, time.Minute, 30*time.Second)
		if len(got) != 1 {
			t.Fatalf("%d are received", len(got))
		}
		r := commit(s, func(b *broker.Batch) {
			b.Settle(got[0].Ref, broker.ReasonAcked)
			b.Put(broker.SpaceSystem, "k", []byte{byte(round)}, 0)
		})
		if r.Err != nil {
			t.Error(r.Err)
		}
		if ds, err := s.Read(t.Context(), log, broker.Pos{Begin: true}, 10, nil); err != nil || uint64(len(ds)) != round+1 {
			t.Errorf("%d are read, %v", len(ds), err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
