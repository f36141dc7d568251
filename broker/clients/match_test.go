package clients_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/broker/clients"
	"millrace/router"
)

// TestSubscriptionsThatMatchATopicAreThoseOfTheRouter compares with the one rule
// of matching, over random filters and topics of few levels.
func TestSubscriptionsThatMatchATopicAreThoseOfTheRouter(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	levels := []string{"a", "b", "", "$x", "a!", "+"}
	make1 := func(n int) string {
		parts := make([]string, 1+random.IntN(4))
		for i := range parts {
			parts[i] = levels[random.IntN(n)]
		}
		return strings.Join(parts, "/")
	}
	r := &clients.Registry{}
	s := &session{}
	filters := map[string]bool{}
	for range 400 {
		f := make1(len(levels))
		switch random.IntN(4) {
		case 0:
			f += "/#"
		case 1:
			f = "$share/g" + levels[random.IntN(2)] + "/" + f
		}
		if router.ValidFilter(f) != nil {
			continue
		}
		if filters[f] && random.IntN(2) == 0 {
			r.Unsubscribe(s, "c", f)
			delete(filters, f)
			continue
		}
		r.Subscribe(s, clients.Subscription{ClientID: "c", Filter: f})
		filters[f] = true
	}
	if len(filters) < 100 {
		t.Fatalf("only %d filters", len(filters))
	}
	for range 500 {
		topic := make1(len(levels) - 1)
		if topic == "" {
			continue // no topic
		}
		var want, got []string
		for f := range filters {
			s := clients.Subscription{Filter: f}
			if _, plain := s.Shared(); router.Match(plain, topic) {
				want = append(want, f)
			}
		}
		slices.Sort(want)
		for _, s := range r.Subscriptions(&clients.SubscriptionQuery{Matches: topic}, clients.Page{Limit: 1000}).Items {
			got = append(got, s.Filter)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("topic %q: %s", topic, diff)
		}
	}
}
