package clients_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"millrace/broker/clients"
)

// session is one that only has subscriptions.
type session struct {
	clients.Session
	subs []clients.Subscription
}

func (s *session) Subscriptions() []clients.Subscription { return s.subs }

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// fleet makes a registry of n clients c00000, c00001, …: every second of user
// "even", every third offline, each with perClient subscriptions.
func fleet(n, perClient int) *clients.Registry {
	r := &clients.Registry{}
	for i := range n {
		s := &session{}
		f := &clients.Facts{
			ID: fmt.Sprintf("c%06d", i), Username: "odd", Host: fmt.Sprintf("10.0.%d.%d", i/250, i%250), Version: 4,
			Connected: i%3 != 0, CreatedAt: start.Add(time.Duration(i) * time.Second), ConnectedAt: start.Add(time.Duration(i) * time.Second),
		}
		if i%2 == 0 {
			f.Username, f.Version, f.CleanStart = "even", 5, true
		}
		r.Put(s, f)
		for k := range perClient {
			sub := clients.Subscription{ClientID: f.ID, Filter: fmt.Sprintf("site/%d/%d", i, k), QoS: byte(k % 3)}
			s.subs = append(s.subs, sub)
			r.Subscribe(s, sub)
		}
	}
	return r
}

func ids(cs []*clients.Client) (all []string) {
	for _, c := range cs {
		all = append(all, c.Facts.ID)
	}
	return all
}

func TestPagesFollowEachOtherWithoutGapAndRepetition(t *testing.T) {
	r := fleet(1000, 0)
	yes, no := true, false
	for _, q := range []clients.Query{
		{},
		{Usernames: []string{"even"}},
		{Usernames: []string{"even", "none", "odd"}, Host: "10.0.2.3"},
		{Usernames: []string{"odd", "even"}, LikeID: "99"},
		{Usernames: []string{"none"}},
		{Connected: &no},
		{Connected: &no, Usernames: []string{"even"}, Version: 5},
		{Host: "10.0.1.8", Connected: &yes},
		{LikeID: "7"},
		{Connected: &yes},
		{CleanStart: &yes, Version: 5},
		{CreatedFrom: start.Add(100 * time.Second), CreatedUntil: start.Add(200 * time.Second)},
		{Host: "10.0.1.7"},
		{LikeUsername: "dd"},
		{IDs: []string{"c000003", "c000001", "none", "c000003"}},
	} {
		all := r.List(&q, clients.Page{Limit: 100_000})
		want := all.Items
		if all.More || q.Exact() != (all.Count >= 0) || q.Exact() && all.Count != len(want) || !slices.IsSorted(ids(want)) {
			t.Fatalf("%+v: %d of %d, more %v", q, len(want), all.Count, all.More)
		}
		for _, c := range want {
			if !q.Wants(c.Facts) {
				t.Errorf("%+v lists %+v", q, c.Facts)
			}
		}
		byNumber, byKey := []string{}, []string{}
		for skip := 0; ; skip += 7 {
			page := r.List(&q, clients.Page{Skip: skip, Limit: 7})
			byNumber = append(byNumber, ids(page.Items)...)
			if !page.More {
				break
			}
		}
		for _, bound := range []int{0, 1, 50} {
			byKey = byKey[:0]
			for after, pages := "", 0; ; pages++ {
				page := r.List(&q, clients.Page{After: after, Limit: 7, Examine: bound})
				byKey = append(byKey, ids(page.Items)...)
				if after = page.Next; !page.More {
					break
				}
				if pages > 1100 {
					t.Fatalf("%+v never ends by key", q)
				}
			}
			if diff := cmp.Diff(ids(want), byKey, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%+v by key, looking at %d: %s", q, bound, diff)
			}
		}
		if diff := cmp.Diff(ids(want), byNumber, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%+v by number: %s", q, diff)
		}
	}
	if p := r.List(&clients.Query{}, clients.Page{Skip: 2000, Limit: 5}); len(p.Items) > 0 || p.Count != 1000 || p.More {
		t.Errorf("behind the end: %+v", p)
	}
}

func TestASessionThatWasTakenOverChangesNothingAnyMore(t *testing.T) {
	r := &clients.Registry{}
	old, now := &session{}, &session{}
	sub := clients.Subscription{ClientID: "c", Filter: "a/b"}
	r.Put(old, &clients.Facts{ID: "c", Connected: true})
	r.Subscribe(old, sub)
	r.Put(now, &clients.Facts{ID: "c", Connected: true})
	r.Subscribe(now, sub)
	r.Unsubscribe(old, "c", "a/b")
	r.Remove(old, "c")
	c, ok := r.Get("c")
	counts, peak := r.Counts()
	if !ok || c.Session != clients.Session(now) || counts.Connected != 1 || counts.Subscriptions != 1 || peak.Connected != 1 || r.Subscribers("a/b") != 1 {
		t.Errorf("%v %+v %+v", ok, counts, peak)
	}
	r.Unsubscribe(now, "c", "a/b")
	r.Put(now, &clients.Facts{ID: "c"})
	if counts, _ := r.Counts(); counts.Connected != 0 || counts.Sessions != 1 || counts.Topics != 0 {
		t.Errorf("offline: %+v", counts)
	}
	r.Remove(now, "c")
	if counts, peak := r.Counts(); counts != (clients.Counts{}) || peak.Sessions != 1 || peak.Subscriptions != 1 {
		t.Errorf("at the end: %+v %+v", counts, peak)
	}
}

func TestSubscriptionsAreFoundByEachCondition(t *testing.T) {
	r := &clients.Registry{}
	one, two := byte(1), byte(2)
	yes := true
	for id, subs := range map[string][]clients.Subscription{
		"a": {{Filter: "x/+", QoS: 1}, {Filter: "$share/g/x/#", QoS: 2}},
		"b": {{Filter: "x/+", QoS: 2, Durable: true}, {Filter: "$share/h/x/#"}, {Filter: "y"}},
	} {
		s := &session{}
		r.Put(s, &clients.Facts{ID: id})
		for _, sub := range subs {
			sub.ClientID = id
			s.subs = append(s.subs, sub)
			r.Subscribe(s, sub)
		}
	}
	for want, q := range map[string]clients.SubscriptionQuery{
		"$share/g/x/# a, $share/h/x/# b, x/+ a, x/+ b, y b": {},
		"x/+ a, $share/g/x/# a":                             {ClientID: "a"},
		"x/+ a, x/+ b":                                      {Filter: "x/+"},
		"$share/g/x/# a":                                    {Group: "g"},
		"$share/g/x/# a, $share/h/x/# b":                    {Filter: "x/#"},
		"$share/g/x/# a, $share/h/x/# b, x/+ a, x/+ b":      {Matches: "x/1"},
		"x/+ a":                 {QoS: &one, Filter: "x/+"},
		"$share/g/x/# a, x/+ b": {QoS: &two},
		"x/+ b":                 {Durable: &yes},
		"":                      {ClientID: "none"},
	} {
		var got []string
		page := r.Subscriptions(&q, clients.Page{Limit: 10})
		for _, s := range page.Items {
			got = append(got, s.Filter+" "+s.ClientID)
		}
		if strings.Join(got, ", ") != want || page.More || q.Exact() && page.Count != len(got) {
			t.Errorf("%+v: got %v, %d", q, got, page.Count)
		}
		var skipped []string
		for i := range got {
			for _, s := range r.Subscriptions(&q, clients.Page{Skip: i, Limit: 1}).Items {
				skipped = append(skipped, s.Filter+" "+s.ClientID)
			}
		}
		if diff := cmp.Diff(got, skipped); diff != "" {
			t.Errorf("%+v one by one: %s", q, diff)
		}
	}
	topics := r.Topics(clients.Page{Skip: 1, Limit: 1})
	if diff := cmp.Diff(clients.Listed[string]{Items: []string{"x/+"}, Count: 3, More: true}, topics); diff != "" {
		t.Error(diff)
	}
	if counts, _ := r.Counts(); counts.SharedSubscriptions != 2 || r.Subscribers("x/#") != 2 {
		t.Errorf("%+v", counts)
	}
}

func BenchmarkIndexOf100000ClientsAnd500000Subscriptions(b *testing.B) {
	r := fleet(100_000, 5)
	page := func(b *testing.B, q clients.Query) {
		b.Helper()
		for b.Loop() {
			r.List(&q, clients.Page{Skip: rand.IntN(90_000), Limit: 100})
		}
	}
	b.Run("clients/page", func(b *testing.B) { page(b, clients.Query{}) })
	b.Run("clients/cursor", func(b *testing.B) {
		for b.Loop() {
			r.List(&clients.Query{}, clients.Page{After: fmt.Sprintf("c%06d", rand.IntN(90_000)), Limit: 100})
		}
	})
	b.Run("clients/username", func(b *testing.B) {
		for b.Loop() {
			r.List(&clients.Query{Usernames: []string{"even"}}, clients.Page{Limit: 100})
		}
	})
	b.Run("clients/username/page", func(b *testing.B) {
		for b.Loop() {
			r.List(&clients.Query{Usernames: []string{"even"}}, clients.Page{Skip: rand.IntN(40_000), Limit: 100})
		}
	})
	b.Run("clients/address", func(b *testing.B) {
		for b.Loop() {
			r.List(&clients.Query{Host: "10.0.100.7"}, clients.Page{Limit: 100})
		}
	})
	b.Run("clients/like/cursor", func(b *testing.B) {
		for b.Loop() {
			r.List(&clients.Query{LikeID: "none"}, clients.Page{After: "c050000", Limit: 100, Examine: 10_000})
		}
	})
	b.Run("clients/like", func(b *testing.B) {
		for b.Loop() {
			r.List(&clients.Query{LikeID: "c0999"}, clients.Page{Limit: 100})
		}
	})
	b.Run("subscriptions/page", func(b *testing.B) {
		for b.Loop() {
			r.Subscriptions(&clients.SubscriptionQuery{}, clients.Page{Skip: rand.IntN(490_000), Limit: 100})
		}
	})
	b.Run("subscriptions/match", func(b *testing.B) {
		for b.Loop() {
			r.Subscriptions(&clients.SubscriptionQuery{Matches: "site/99999/4"}, clients.Page{Limit: 100})
		}
	})
	b.Run("subscriptions/topic", func(b *testing.B) {
		for b.Loop() {
			r.Subscriptions(&clients.SubscriptionQuery{Filter: "site/99999/4"}, clients.Page{Limit: 100})
		}
	})
	b.Run("topics/page", func(b *testing.B) {
		for b.Loop() {
			r.Topics(clients.Page{Skip: rand.IntN(490_000), Limit: 100})
		}
	})
	b.Run("subscribe", func(b *testing.B) {
		s, i := &session{}, 0
		for b.Loop() {
			i++
			sub := clients.Subscription{ClientID: "new", Filter: fmt.Sprint("site/", i%1000)}
			r.Subscribe(s, sub)
			r.Unsubscribe(s, "new", sub.Filter)
		}
	})
	b.Run("connect", func(b *testing.B) {
		s, f := &session{}, &clients.Facts{ID: "new", Connected: true}
		for b.Loop() {
			r.Put(s, f)
			r.Remove(s, "new")
		}
	})
}
