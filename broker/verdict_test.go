package broker_test

import (
	"fmt"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
)

// denied are denies that lie in t/#, none of which is about t/1.
func denied(n int) (rules []auth.Rule) {
	for i := range n {
		rules = append(rules, auth.Rule{Effect: "deny", Who: "all", Do: []string{"subscribe"}, Filter: fmt.Sprintf("t/+/%d/#", i)})
	}
	return rules
}

func (f *fixture) rules(tb testing.TB, rules ...auth.Rule) {
	tb.Helper()
	if err := f.Auth().SetRules(f.ctx, rules); err != nil {
		tb.Fatal(err)
	}
}

func (f *fixture) delivers(s *broker.Subscription, topic string) bool {
	readers := f.Auth().Readers(topic)
	return s.Delivers(&readers)
}

func TestAVerdictAboutADeliveryEndsWithTheRules(t *testing.T) {
	f := open(t)
	reader := &auth.Principal{Kind: auth.Key, Name: "reader"}
	s := &broker.Subscription{Filter: "t/#", Principal: reader, Sink: nullSink{}}
	f.rules(t, denied(3)...)
	if err := f.Subscribe(s); err != nil {
		t.Fatal(err)
	}
	topics := make([]string, 0, 100) // more than are kept
	for i := range 50 {
		topics = append(topics, fmt.Sprintf("t/%d", i), fmt.Sprintf("t/x/%d", i))
	}
	for round := range 6 {
		if f.rules(t, denied(round*9)...); round == 5 {
			f.rules(t, auth.Rule{Effect: "allow", Who: "key:other", Do: []string{"publish"}, Filter: "#"})
		}
		refused := 0
		for range 2 { // the second time from memory, for some
			for _, topic := range topics {
				want := f.Auth().Allow(reader, auth.Subscribe, auth.TopicResource(topic))
				if got := f.delivers(s, topic); got != want {
					t.Errorf("round %d: delivery of %s: got %t, want %t", round, topic, got, want)
				}
				if !want {
					refused++
				}
			}
		}
		if want := 2 * min(50, round*9); round < 5 && refused != want {
			t.Errorf("round %d: %d refused, want %d", round, refused, want)
		}
	}
}

func TestADeliveryUnderRulesAllocatesNothing(t *testing.T) {
	f := open(t)
	f.rules(t, denied(30)...)
	s := &broker.Subscription{Filter: "t/#", Principal: &auth.Principal{Kind: auth.Key, Name: "reader"}, Sink: nullSink{}}
	if err := f.Subscribe(s); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if !f.delivers(s, "t/1") || f.delivers(s, "t/1/7") {
			t.Error("a wrong verdict")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkDelivers asks about one delivery, without rules and under 50 that
// lie in the filter.
func BenchmarkDelivers(b *testing.B) {
	for _, n := range []int{0, 50} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			f := open(b)
			f.rules(b, denied(n)...)
			s := &broker.Subscription{Filter: "t/#", Principal: &auth.Principal{Kind: auth.Key, Name: "reader"}, Sink: nullSink{}}
			if err := f.Subscribe(s); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if !f.delivers(s, "t/1/temperature") {
					b.Fatal("refused")
				}
			}
		})
	}
}
