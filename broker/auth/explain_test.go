package auth_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/broker/auth"
)

func TestExplainNamesTheRuleAndItsPlace(t *testing.T) {
	store := &memory{}
	a := open(t, store)
	first := rule("allow", "user:dev", "a/#", "publish", "subscribe")
	setRules(t, a, first)
	api := auth.WithPrincipal(t.Context(), admin)
	must(t, a.SetRules(api, []auth.Rule{rule("deny", "all", "secret/#", "publish"), first, rule("deny", "client:c1", "a/x", "publish")}))
	for _, a := range []*auth.Auth{a, open(t, store)} {
		for _, c := range []struct {
			p     *auth.Principal
			act   auth.Action
			what  auth.Resource
			index int
			place string
		}{
			{dev, auth.Publish, topic("secret/a"), 0, auth.PlaceAPI},
			{dev, auth.Publish, topic("a/b"), 1, auth.PlaceBootstrap},
			{dev, auth.Publish, topic("$delayed/5/a/b"), 1, auth.PlaceBootstrap},
			{dev, auth.Subscribe, topic("$share/g/a/b"), 1, auth.PlaceBootstrap},
			{dev, auth.Publish, topic("a/x"), 2, auth.PlaceAPI},
			{dev, auth.Publish, topic("b"), -1, auth.PlaceRules},
			{nobody, auth.Publish, topic("b"), -1, auth.PlaceRole},
			{publisher, auth.Consume, queue("b"), -1, auth.PlaceRole},
			{topicKey, auth.Publish, topic("z"), -1, auth.PlaceRole},
			{superuser, auth.Publish, topic("secret/a"), -1, auth.PlaceRole},
			{dev, auth.Publish, topic("$SYS/a"), -1, auth.PlaceBroker},
			{dev, auth.Manage, auth.Server, -1, auth.PlaceRole},
			{nil, auth.Publish, topic("a"), -1, auth.PlaceBroker},
			{broker, auth.Publish, topic("a"), -1, auth.PlaceBroker},
		} {
			e := a.Explain(c.p, c.act, c.what)
			if e.Index != c.index || e.Place != c.place || e.Decision != a.Decide(c.p, c.act, c.what) {
				t.Errorf("%v %s %v: got %+v, want rule %d, %s", c.p, c.act, c.what, e, c.index, c.place)
			}
		}
	}
	e := a.Explain(dev, auth.Publish, topic("$delayed/5/a/x"))
	want := []auth.Candidate{
		{Rule: "deny all publish secret/#", Index: 0, Place: "api", Matches: "none"},
		{Rule: "allow user:dev publish,subscribe a/#", Index: 1, Place: "bootstrap", Allows: true, Matches: "all"},
		{Rule: "deny client:c1 publish a/x", Index: 2, Place: "api", Matches: "all"},
		{Rule: "role client", Index: -1, Place: "role", Allows: true, Matches: "all", Why: "allow rules name the principal, they count in place of the role"},
	}
	if diff := cmp.Diff(want, e.Candidates); diff != "" || e.Meant != topic("a/x") {
		t.Errorf("%v: %s", e.Meant, diff)
	}
}

func TestExplanationsAreThoseOfTheDecision(t *testing.T) {
	a := open(t, &memory{})
	rapid.Check(t, func(t *rapid.T) {
		o := oracle{drawRules(t), drawPrincipal(t)}
		if err := a.SetRules(t.Context(), o.rules); err != nil {
			t.Fatal(err)
		}
		r := topic(rapid.SampledFrom(topics).Draw(t, "topic"))
		if rapid.Bool().Draw(t, "queue") {
			r = queue(rapid.StringMatching(`[ab]{1,3}`).Draw(t, "name"))
		}
		act := auth.Action(rapid.IntRange(0, 4).Draw(t, "action"))
		e := a.Explain(o.p, act, r)
		if e.Decision != a.Decide(o.p, act, r) || e.Place == "" {
			t.Fatalf("explained %+v, decided %+v", e, a.Decide(o.p, act, r))
		}
		if e.Index >= 0 {
			decided := o.rules[e.Index]
			if decided.String() != e.Rule || (decided.Effect == "allow") != e.Allowed || !o.names(decided) {
				t.Fatalf("rule %d decided %+v", e.Index, e)
			}
		}
		about := 0
		for i, rule := range o.rules {
			if !o.names(rule) {
				continue
			}
			about++
			if e.Candidates == nil {
				continue
			}
			c := e.Candidates[about-1]
			if c.Index != i || c.Rule != rule.String() {
				t.Fatalf("candidate %d is %+v, want rule %d", about-1, c, i)
			}
			hits := o.hits(rule.Filter, r, rule.Effect == "deny")
			if c.Matches == "all" && !hits || c.Matches == "none" && c.Why == "" && hits {
				t.Fatalf("%+v of %v", c, r)
			}
		}
	})
}

func TestExplanationsAreBounded(t *testing.T) {
	a := open(t, &memory{})
	rules := make([]auth.Rule, auth.MaxCandidates+10)
	for i := range rules {
		rules[i] = rule("deny", "all", fmt.Sprint("a/", i), "publish")
	}
	setRules(t, a, rules...)
	e := a.Explain(dev, auth.Publish, topic(fmt.Sprint("a/", len(rules)-1)))
	if len(e.Candidates) != auth.MaxCandidates || e.Omitted != 11 || e.Index != len(rules)-1 {
		t.Errorf("%d candidates, %d left out, rule %d", len(e.Candidates), e.Omitted, e.Index)
	}
}

func TestIdentitiesAreThoseOfALogin(t *testing.T) {
	ctx := t.Context()
	a := open(t, &memory{})
	addUser(t, a, "root", right, true)
	addUser(t, a, "dev", right, false)
	addKey(t, a, auth.KeySpec{ID: "k", Role: "publisher", Scopes: []string{"a/%c"}})
	for _, c := range []struct{ who, client, want string }{
		{"user:dev", "c1", "user:dev"},
		{"user:root", "", "user:root"},
		{"key:k", "c1", "key:k"},
		{"client:c1", "", "anonymous"},
		{"client:c1", "c1", "anonymous"},
		{"anonymous", "c1", "anonymous"},
	} {
		p, err := a.Identity(ctx, c.who, c.client)
		if err != nil || p.String() != c.want || p.ClientID != c.client && c.who != "client:c1" || !a.Valid(p) {
			t.Errorf("%s: got %+v, %v", c.who, p, err)
		}
	}
	p, err := a.Identity(ctx, "key:k", "c1")
	must(t, err)
	ask(t, a, []question{{p, auth.Publish, topic("a/c1"), "yes"}, {p, auth.Publish, topic("a/c2"), "no"}})
	p, err = a.Identity(ctx, "client:c9", "")
	must(t, err)
	setRules(t, a, rule("deny", "client:c9", "x", "publish"))
	if e := a.Explain(p, auth.Publish, topic("x")); e.Allowed || e.Index != 0 {
		t.Errorf("got %+v", e)
	}
	for who, want := range map[string]error{"user:who": auth.ErrNotFound, "key:who": auth.ErrNotFound} {
		if _, err := a.Identity(ctx, who, ""); !errors.Is(err, want) {
			t.Errorf("%s: %v", who, err)
		}
	}
	var invalid *auth.InvalidError
	for _, who := range []string{"", "all", "user:", "key:", "client:", "group:x", "user", strings.Repeat("x", 300)} {
		if _, err := a.Identity(ctx, who, ""); !errors.As(err, &invalid) {
			t.Errorf("%q: %v", who, err)
		}
	}
	if _, err := a.Identity(ctx, "client:a", "b"); !errors.As(err, &invalid) {
		t.Errorf("two clients: %v", err)
	}
	must(t, a.ChangeUser(ctx, "dev", auth.UserChange{Disabled: new(true)}))
	p, err = a.Identity(ctx, "user:dev", "")
	must(t, err)
	if e := a.Explain(p, auth.Publish, topic("a")); e.Allowed || e.Rule != "user:dev is disabled" || e.Place != auth.PlaceBroker {
		t.Errorf("got %+v", e)
	}
	closed := open(t, &memory{}, func(o *auth.Options) { o.AllowAnonymous = false })
	if e := closed.Explain(nobody, auth.Publish, topic("a")); e.Allowed {
		t.Errorf("who is not let in may %+v", e)
	}
}
