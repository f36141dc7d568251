package auth_test

import (
	"context"
	"testing"

	"millrace/broker/auth"
)

var (
	superuser = &auth.Principal{Kind: auth.User, Name: "root", Superuser: true}
	admin     = &auth.Principal{Kind: auth.Key, Name: "adm", Role: auth.Administrator}
	viewer    = &auth.Principal{Kind: auth.Key, Name: "vie", Role: auth.Viewer}
	publisher = &auth.Principal{Kind: auth.Key, Name: "pub", Role: auth.Publisher}
	dev       = &auth.Principal{Kind: auth.User, Name: "dev", ClientID: "c1"}
	nobody    = &auth.Principal{Kind: auth.Anonymous, ClientID: "c2"}
	broker    = &auth.Principal{Kind: auth.System}
	topicKey  = &auth.Principal{Kind: auth.Key, Name: "tk", Scopes: []string{"a/#", "x/%c/+"}, ClientID: "c3"}
	queueKey  = &auth.Principal{Kind: auth.Key, Name: "qk", Scopes: []string{"queue:work-*"}}
)

func topic(s string) auth.Resource  { return auth.TopicResource(s) }
func queue(s string) auth.Resource  { return auth.QueueResource(s) }
func stream(s string) auth.Resource { return auth.StreamResource(s) }

type question struct {
	who  *auth.Principal
	act  auth.Action
	what auth.Resource
	want string // yes, no, some (yes with Overlap)
}

func ask(t *testing.T, a *auth.Auth, questions []question) {
	t.Helper()
	for _, q := range questions {
		d := a.Decide(q.who, q.act, q.what)
		got := "no"
		if d.Allowed {
			got = "yes"
		}
		if d.Overlap {
			got = "some"
		}
		if got != q.want || d.Rule == "" {
			t.Errorf("%s %s %v: got %s (%s), want %s", q.who, q.act, q.what, got, d.Rule, q.want)
		}
		if a.Allow(q.who, q.act, q.what) != d.Allowed {
			t.Errorf("%s %s %v: Allow and Decide differ", q.who, q.act, q.what)
		}
	}
}

func TestRolesDecideWhereNoRuleDoes(t *testing.T) {
	ask(t, open(t, &memory{}), []question{
		{nil, auth.Publish, topic("a"), "no"},
		{broker, auth.Publish, topic("$SYS/x"), "yes"},
		{broker, auth.Manage, auth.Server, "yes"},

		{superuser, auth.Publish, topic("a"), "yes"},
		{superuser, auth.Subscribe, topic("$SYS/#"), "yes"},
		{superuser, auth.Publish, topic("$SYS/x"), "no"},
		{superuser, auth.Manage, auth.Server, "yes"},
		{admin, auth.Subscribe, topic("$SYS/#"), "yes"},
		{admin, auth.Manage, queue("q"), "yes"},
		{admin, auth.Consume, stream("s"), "yes"},
		{admin, auth.View, topic("$SYS/x"), "yes"},
		{admin, auth.Manage, auth.Server, "yes"},

		{viewer, auth.View, queue("q"), "yes"},
		{viewer, auth.View, auth.Server, "yes"},
		{viewer, auth.Manage, auth.Server, "no"},
		{viewer, auth.Publish, topic("a"), "no"},
		{viewer, auth.Subscribe, topic("a"), "no"},
		{viewer, auth.Consume, queue("q"), "no"},
		{viewer, auth.Manage, queue("q"), "no"},
		{viewer, auth.View, topic("$SYS/x"), "no"},

		{publisher, auth.Publish, topic("a"), "yes"},
		{publisher, auth.Publish, queue("q"), "yes"},
		{publisher, auth.Subscribe, topic("a"), "no"},
		{publisher, auth.Consume, queue("q"), "no"},
		{publisher, auth.View, queue("q"), "no"},

		{dev, auth.Publish, topic("a/b"), "yes"},
		{dev, auth.Publish, topic("$other/b"), "yes"},
		{dev, auth.Subscribe, topic("#"), "yes"},
		{dev, auth.Subscribe, topic("$SYS/#"), "no"},
		{dev, auth.Subscribe, topic("$events/#"), "no"},
		{dev, auth.Consume, queue("q"), "yes"},
		{dev, auth.View, queue("q"), "yes"},
		{dev, auth.Manage, queue("q"), "no"},
		{dev, auth.View, auth.Server, "no"},
		{dev, auth.Subscribe, queue("q"), "yes"},

		{nobody, auth.Publish, topic("a"), "yes"},
		{nobody, auth.Subscribe, topic("$share/g/#"), "yes"},
		{nobody, auth.Subscribe, topic("$share/g/$SYS/#"), "no"},
		{nobody, auth.Subscribe, topic("$SHARE/g/$Events/#"), "no"},
		{nobody, auth.Subscribe, topic("$other/#"), "yes"},
		{nobody, auth.Subscribe, topic("$SYS/#"), "no"},
		{nobody, auth.Subscribe, topic("$events/#"), "no"},
		{nobody, auth.Consume, queue("q"), "yes"},
		{nobody, auth.Consume, stream("s"), "yes"},
		{nobody, auth.Manage, queue("q"), "no"},
		{nobody, auth.Publish, auth.Server, "no"},
	})
}

func TestReservedTopicsAreNobodys(t *testing.T) {
	a := open(t, &memory{})
	for _, p := range []*auth.Principal{superuser, admin, dev, nobody} {
		for _, name := range []string{"$SYS/a", "$events/a", "$queue/a", "$q/a", "$stream/a", "$share/a/b", "$delayed", "$delayed/5/$SYS/a", "$delayed/5/$delayed/5/a", "$sys/a", "$DELAYED/5/$Queue/a"} {
			if d := a.Decide(p, auth.Publish, topic(name)); d.Allowed {
				t.Errorf("%s may publish to %s by %s", p, name, d.Rule)
			}
		}
		if d := a.Decide(p, auth.Publish, topic("$delayed/5/a")); !d.Allowed {
			t.Errorf("%s may not publish with a delay: %s", p, d.Rule)
		}
		for _, name := range []string{"$queue/a", "$q/a", "$stream/a", "$share/a", "$share/g/$queue/a", "$SHARE/g/$share/g/a", "$delayed/#"} {
			if d := a.Decide(p, auth.Subscribe, topic(name)); d.Allowed {
				t.Errorf("%s may subscribe to %s as a topic by %s", p, name, d.Rule)
			}
		}
	}
}

func TestScopesNarrowARole(t *testing.T) {
	viewerOfA := &auth.Principal{Kind: auth.Key, Name: "va", Role: auth.Viewer, Scopes: []string{"queue:a"}}
	events := &auth.Principal{Kind: auth.Key, Name: "ev", Scopes: []string{"$events/#"}}
	ask(t, open(t, &memory{}), []question{
		{topicKey, auth.Publish, topic("a/b"), "yes"},
		{topicKey, auth.Publish, topic("a"), "yes"},
		{topicKey, auth.Publish, topic("b"), "no"},
		{topicKey, auth.Publish, topic("x/c3/up"), "yes"},
		{topicKey, auth.Publish, topic("x/c4/up"), "no"},
		{topicKey, auth.Subscribe, topic("a/+"), "yes"},
		{topicKey, auth.Subscribe, topic("#"), "some"},
		{topicKey, auth.Subscribe, topic("+/b"), "some"},
		{topicKey, auth.Subscribe, topic("b/#"), "no"},
		{topicKey, auth.Consume, queue("q"), "no"},
		{topicKey, auth.Consume, stream("a/b"), "no"},
		{queueKey, auth.Consume, queue("work-1"), "yes"},
		{queueKey, auth.View, queue("work-1"), "yes"},
		{queueKey, auth.Publish, queue("work-"), "yes"},
		{queueKey, auth.Consume, queue("play"), "no"},
		{queueKey, auth.Publish, topic("a"), "no"},
		{viewerOfA, auth.View, queue("a"), "yes"},
		{viewerOfA, auth.View, queue("b"), "no"},
		{viewerOfA, auth.View, topic("a"), "no"},
		{events, auth.Subscribe, topic("$events/client/+"), "yes"},
		{events, auth.Publish, topic("$events/client/x"), "no"},
	})
}

func setRules(t testing.TB, a *auth.Auth, rules ...auth.Rule) {
	t.Helper()
	must(t, a.SetRules(context.Background(), rules))
}

func rule(effect, who, filter string, do ...string) auth.Rule {
	return auth.Rule{Effect: effect, Who: who, Filter: filter, Do: do}
}

func TestDenyWinsAndOnlySubtracts(t *testing.T) {
	a := open(t, &memory{})
	setRules(t, a,
		rule("deny", "all", "secret/#", "publish", "subscribe"),
		rule("deny", "user:dev", "queue:vip*", "consume"),
		rule("deny", "client:c2", "a/+", "subscribe"),
	)
	ask(t, a, []question{
		{dev, auth.Publish, topic("secret/x"), "no"},
		{dev, auth.Publish, topic("a"), "yes"},
		{dev, auth.Subscribe, topic("#"), "some"},
		{dev, auth.Subscribe, topic("secret/+/x"), "no"},
		{dev, auth.Subscribe, topic("+/x"), "some"},
		{dev, auth.Subscribe, topic("a/#"), "yes"},
		{dev, auth.Consume, queue("vip1"), "no"},
		{dev, auth.View, queue("vip1"), "no"},
		{dev, auth.Publish, queue("vip1"), "yes"},
		{dev, auth.Manage, queue("q"), "no"},
		{nobody, auth.Subscribe, topic("a/b"), "no"},
		{nobody, auth.Subscribe, topic("a/#"), "some"},
		{nobody, auth.Consume, queue("vip1"), "yes"},
		{admin, auth.Publish, topic("secret/x"), "no"},
		{admin, auth.View, topic("secret/x"), "yes"},
		{viewer, auth.View, topic("secret/x"), "no"},
		{viewer, auth.View, topic("a"), "yes"},
		{superuser, auth.Publish, topic("secret/x"), "yes"},
	})
}

func TestAnAllowThatNamesAPrincipalReplacesItsRole(t *testing.T) {
	a := open(t, &memory{})
	setRules(t, a,
		rule("allow", "user:dev", "dev/#", "publish", "subscribe"),
		rule("deny", "user:dev", "dev/x/#", "subscribe"),
		rule("allow", "client:c3", "queue:*", "consume", "manage"),
		rule("allow", "anonymous", "open/+", "subscribe"),
	)
	ask(t, a, []question{
		{dev, auth.Publish, topic("dev/a"), "yes"},
		{dev, auth.Publish, topic("other"), "no"},
		{dev, auth.Subscribe, topic("#"), "some"},
		{dev, auth.Subscribe, topic("dev/x/+"), "no"},
		{dev, auth.Subscribe, topic("+/x/y"), "no"}, // all that is allowed of it is denied
		{dev, auth.Subscribe, topic("+/y"), "some"},
		{dev, auth.Consume, queue("q"), "no"},
		{topicKey, auth.Publish, topic("a/b"), "no"},
		{topicKey, auth.Manage, queue("q"), "yes"},
		{topicKey, auth.View, queue("q"), "yes"},
		{topicKey, auth.Manage, auth.Server, "no"},
		{nobody, auth.Subscribe, topic("open/a"), "yes"},
		{nobody, auth.Publish, topic("open/a"), "no"},
		{nobody, auth.Subscribe, topic("$SYS/#"), "no"},
		{publisher, auth.Publish, topic("other"), "yes"},
	})
	setRules(t, a, rule("allow", "all", "$SYS/#", "subscribe"), rule("allow", "all", "demo/#", "publish"))
	ask(t, a, []question{
		{dev, auth.Subscribe, topic("$SYS/#"), "no"},
		{dev, auth.Publish, topic("dev/a"), "no"},
		{publisher, auth.Publish, topic("demo/a"), "yes"},
		{admin, auth.Manage, queue("q"), "yes"}, // not narrowed by what all may do
		{viewer, auth.View, queue("q"), "yes"},
		{superuser, auth.Publish, topic("x"), "yes"},
	})
	setRules(t, a, rule("allow", "key:adm", "demo/#", "publish"))
	ask(t, a, []question{
		{admin, auth.Manage, queue("q"), "no"},
		{admin, auth.Publish, topic("demo/a"), "yes"},
		{admin, auth.Manage, auth.Server, "yes"},
	})
}

func TestPlaceholdersAreLiterals(t *testing.T) {
	a := open(t, &memory{})
	setRules(t, a,
		rule("allow", "all", "%c/x", "publish", "subscribe"),
		rule("allow", "all", "u/dev-%u/#", "publish", "subscribe"),
		rule("allow", "all", "queue:%c-*", "consume"),
	)
	as := func(name, client string) *auth.Principal {
		return &auth.Principal{Kind: auth.User, Name: name, ClientID: client}
	}
	ask(t, a, []question{
		{as("n", "c"), auth.Publish, topic("c/x"), "yes"},
		{as("n", "c"), auth.Publish, topic("d/x"), "no"},
		{as("n", "c"), auth.Subscribe, topic("+/x"), "some"},
		{as("n", "c"), auth.Publish, topic("u/dev-n/a"), "yes"},
		{as("n", "c"), auth.Publish, topic("u/dev-/a"), "no"},
		{as("n", "c"), auth.Consume, queue("c-1"), "yes"},
		{as("n", ""), auth.Publish, topic("/x"), "no"},
		{as("n", "+"), auth.Publish, topic("c/x"), "no"},
		{as("n", "+"), auth.Publish, topic("+/x"), "no"},
		{as("n", "a/b"), auth.Publish, topic("a/b/x"), "no"},
		{as("n", "#"), auth.Subscribe, topic("#"), "some"}, // through %u alone
		{as("n", "$events"), auth.Subscribe, topic("$events/x"), "no"},
		{as("n", "$x"), auth.Publish, topic("$x/x"), "no"},
		{as("n", "*"), auth.Consume, queue("z-1"), "no"},
		{as("n", "\x00"), auth.Publish, topic("\x00/x"), "no"},
		{as("%c", "z"), auth.Publish, topic("u/dev-z/a"), "no"},
		{as("%c", "z"), auth.Publish, topic("u/dev-%c/a"), "yes"},
	})
}

func TestTheReasonNamesWhatDecided(t *testing.T) {
	a := open(t, &memory{})
	setRules(t, a, rule("deny", "all", "secret/#", "publish"), rule("allow", "key:tk", "a/#", "publish", "subscribe"))
	for want, d := range map[string]auth.Decision{
		"deny all publish secret/#":                 a.Decide(dev, auth.Publish, topic("secret/a")),
		"allow key:tk publish,subscribe a/#":        a.Decide(topicKey, auth.Publish, topic("a/b")),
		"no allow rule of key:tk gives it":          a.Decide(topicKey, auth.Publish, topic("b")),
		"role client":                               a.Decide(dev, auth.Publish, topic("a")),
		"role client, scope queue:work-*":           a.Decide(queueKey, auth.Consume, queue("work-1")),
		"role client, outside the scopes of key:qk": a.Decide(queueKey, auth.Consume, queue("x")),
		"reserved topic $SYS":                       a.Decide(dev, auth.Subscribe, topic("$SYS/#")),
		"superuser":                                 a.Decide(superuser, auth.Publish, topic("a")),
		"system":                                    a.Decide(broker, auth.Publish, topic("a")),
		"no principal":                              a.Decide(auth.From(t.Context()), auth.Publish, topic("a")),
	} {
		if d.Rule != want {
			t.Errorf("got %q, want %q", d.Rule, want)
		}
	}
	if p := auth.From(auth.WithPrincipal(t.Context(), dev)); p != dev {
		t.Errorf("the context carries %v, want %v", p, dev)
	}
}

func TestPrincipalsHaveNamesForLogs(t *testing.T) {
	for want, p := range map[string]*auth.Principal{"user:dev": dev, "key:tk": topicKey, "anonymous": nobody, "system": broker, "nobody": nil} {
		if got := p.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
