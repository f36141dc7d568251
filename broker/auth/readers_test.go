package auth_test

import (
	"fmt"
	"sync"
	"testing"

	"millrace/broker/auth"
)

// within are denies that lie in t/#, none of which is about t/1.
func within(n int) (rules []auth.Rule) {
	for i := range n {
		rules = append(rules, auth.Rule{Effect: "deny", Who: "all", Do: []string{"subscribe"}, Filter: fmt.Sprintf("t/+/%d/#", i)})
	}
	return append(rules, auth.Rule{Effect: "deny", Who: "all", Do: []string{"subscribe"}, Filter: "own/%c/#"})
}

// reader is a subscription's principal, with the seat that it has at hand.
type reader struct {
	*auth.Principal
	seat auth.Seat
}

func (r *reader) in(who *auth.Readers) bool { return who.Include(r.Principal, &r.seat) }

func readers(n int) (all []*reader) {
	for i := range n {
		all = append(all, &reader{Principal: &auth.Principal{Kind: auth.Key, Name: "reader", ClientID: fmt.Sprint("c", i)}})
	}
	return all
}

// TestReadersAreThoseWhoAreAllowed compares them with Allow while the rules
// change, also where there is less room than topics.
func TestReadersAreThoseWhoAreAllowed(t *testing.T) {
	for _, room := range []int64{0, 1000, 1 << 20} {
		a := open(t, &memory{})
		a.SetMaxSheets(room)
		all := readers(100) // more than a word has seats
		var topics []string
		for i := range 20 {
			topics = append(topics, fmt.Sprintf("t/%d", i), fmt.Sprintf("t/x/%d", i), fmt.Sprintf("own/c%d/x", i))
		}
		for round := range 5 {
			must(t, a.SetRules(t.Context(), within(round*9)))
			refused := 0
			for range 3 {
				for _, topic := range topics {
					who := a.Readers(topic)
					for _, p := range all {
						want := a.Allow(p.Principal, auth.Subscribe, auth.TopicResource(topic))
						if got := p.in(&who); got != want {
							t.Fatalf("room %d, round %d: %s may read %s: got %t, want %t", room, round, p.ClientID, topic, got, want)
						}
						if !want {
							refused++
						}
					}
				}
			}
			if want := 3 * (20 + len(all)*min(20, round*9)); refused != want {
				t.Errorf("room %d, round %d: %d refused, want %d", room, round, refused, want)
			}
		}
	}
}

// TestReadersAreAskedAboutOnce: what was decided is not decided again, by
// however many principals and topics, until the rules change.
func TestReadersAreAskedAboutOnce(t *testing.T) {
	a := open(t, &memory{})
	must(t, a.SetRules(t.Context(), within(40)))
	all := readers(100)
	ask := func() {
		for i := range 1000 {
			who := a.Readers(fmt.Sprintf("t/%d/%d", i, i%80))
			for _, p := range all {
				if p.in(&who) != (i%80 >= 40) {
					t.Fatalf("%d: wrong", i)
				}
			}
		}
	}
	ask()
	if n := a.SheetsFilled(); n != 1000*len(all) {
		t.Fatalf("%d decisions are kept", n)
	}
	ask()
	if n := a.SheetsFilled(); n != 1000*len(all) {
		t.Errorf("%d decisions are kept", n)
	}
	who := a.Readers("t/1")
	if n := testing.AllocsPerRun(1000, func() {
		who = a.Readers("t/1")
		all[0].in(&who)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestPublishersAreAskedAboutOnce: under rules, too, a publish costs no look at them
// after the first, and a change of the rules is felt at once.
func TestPublishersAreAskedAboutOnce(t *testing.T) {
	a := open(t, &memory{})
	all := readers(40)
	deny := func(filter string) auth.Rule {
		return auth.Rule{Effect: "deny", Who: "all", Do: []string{"publish"}, Filter: filter}
	}
	for round := range 4 {
		rules := []auth.Rule{deny("other/+/x")}
		if round%2 == 1 {
			rules = append(rules, deny("t/secret"))
		}
		must(t, a.SetRules(t.Context(), rules))
		for range 3 {
			for _, p := range all {
				for name, want := range map[string]bool{"t/1": true, "t/secret": round%2 == 0} {
					if a.Allow(p.Principal, auth.Publish, topic(name)) != want {
						t.Fatalf("round %d, %s: want %v", round, name, want)
					}
				}
			}
		}
		if n := a.PublishersKept(); n != 2*len(all) {
			t.Errorf("round %d: %d decisions are kept", round, n)
		}
	}
	if n := testing.AllocsPerRun(1000, func() { a.Allow(all[0].Principal, auth.Publish, topic("t/1")) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestReadersWhileRulesChange: nobody is included under rules that forbid it
// once the change has returned.
func TestReadersWhileRulesChange(t *testing.T) {
	a := open(t, &memory{})
	all := readers(50)
	deny := []auth.Rule{{Effect: "deny", Who: "all", Do: []string{"subscribe"}, Filter: "t/secret"}, {Effect: "deny", Who: "all", Do: []string{"subscribe"}, Filter: "t/x"}}
	var asking sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		asking.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for _, topic := range []string{"t/secret", "t/x", "t/y"} {
					who := a.Readers(topic)
					for _, p := range all {
						p.in(&who)
					}
				}
			}
		})
	}
	for round := range 100 {
		n := round % 3
		must(t, a.SetRules(t.Context(), deny[:n]))
		for topic, want := range map[string]bool{"t/secret": n == 0, "t/x": n < 2, "t/y": true} {
			who := a.Readers(topic)
			for _, p := range all {
				if got := p.in(&who); got != want {
					t.Fatalf("round %d: %s may read %s: %t", round, p.ClientID, topic, got)
				}
			}
		}
	}
	close(done)
	asking.Wait()
}

// BenchmarkReaders is one message to so many readers, under 40 rules.
func BenchmarkReaders(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("readers=%d", n), func(b *testing.B) {
			a := open(b, &memory{})
			must(b, a.SetRules(b.Context(), within(40)))
			all := readers(n)
			topics := make([]string, 1000)
			for i := range topics {
				topics[i] = fmt.Sprintf("t/%d/temperature", i)
			}
			for _, topic := range topics {
				who := a.Readers(topic)
				for _, p := range all {
					p.in(&who)
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				who := a.Readers(topics[i%len(topics)])
				for _, p := range all {
					if !p.in(&who) {
						b.Fatal("refused")
					}
				}
			}
		})
	}
}

// BenchmarkAllowUnderRules is what a decision costs that nobody remembers.
func BenchmarkAllowUnderRules(b *testing.B) {
	a := open(b, &memory{})
	must(b, a.SetRules(b.Context(), within(40)))
	p := readers(1)[0]
	for b.Loop() {
		if !a.Allow(p.Principal, auth.Subscribe, auth.TopicResource("t/1/temperature")) {
			b.Fatal("refused")
		}
	}
}
