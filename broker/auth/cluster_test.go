package auth_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"millrace/broker/auth"
)

// news is a change on its way to a node.
type news struct {
	key   string
	value []byte
	rev   uint64
}

// cluster is two Auths over one store.
type cluster struct {
	store *memory
	nodes [2]*auth.Auth
	sent  [2][]news // what each was not told yet
	told  [2][]news // and was
	at    time.Time // what they take for now
	asked [2]func() // called when a node asks for the time
}

// openCluster opens one whose changes are told at once, before they are answered, or
// when deliver is called.
func openCluster(t testing.TB, atOnce bool) *cluster {
	t.Helper()
	c := &cluster{store: &memory{}, at: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	for i := range c.nodes {
		c.nodes[i] = open(t, c.store, func(o *auth.Options) {
			o.Now = func() time.Time {
				if asked := c.asked[i]; asked != nil {
					asked()
				}
				return c.at
			}
		})
	}
	c.store.told = func(key string, value []byte, rev uint64) {
		for i, n := range c.nodes {
			if !atOnce {
				c.sent[i] = append(c.sent[i], news{key, value, rev})
			} else if err := n.Apply(key, value, rev); err != nil {
				t.Error(err)
			}
		}
	}
	return c
}

// deliver tells a node of some of the changes that it does not know of; of one key in a
// burst the last alone.
func (c *cluster) deliver(t fataler, node, some int, burst bool) {
	some = min(some, len(c.sent[node]))
	batch := c.sent[node][:some]
	c.sent[node] = c.sent[node][some:]
	for i, n := range batch {
		if burst && slices.ContainsFunc(batch[i+1:], func(later news) bool { return later.key == n.key }) {
			continue
		}
		c.tell(t, node, n)
	}
}

func (c *cluster) tell(t fataler, node int, n news) {
	if err := c.nodes[node].Apply(n.key, n.value, n.rev); err != nil {
		t.Fatalf("%s: %v", n.key, err)
	}
	c.told[node] = append(c.told[node], n)
}

// settle tells both nodes all.
func (c *cluster) settle(t fataler) {
	for i := range c.nodes {
		c.deliver(t, i, len(c.sent[i]), false)
	}
}

// fataler is what testing and rapid have in common.
type fataler interface{ Fatalf(string, ...any) }

// everything is what may be asked about the accounts of a node.
func everything(a *auth.Auth) map[string]any {
	users, keys := a.Users(), a.Keys()
	for i := range users {
		users[i].LastLogin = time.Time{} // each node says later
	}
	for i := range keys {
		keys[i].LastUsed = time.Time{}
	}
	return map[string]any{"users": users, "keys": keys, "rules": a.Rules(), "bans": a.Bans(), "signers": a.SigningKeys()}
}

// TestNodesThatShareAStoreDecideAlike has changes made on either node, and told to the
// other late, in bursts and twice.
func TestNodesThatShareAStoreDecideAlike(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := &world{cluster: openCluster(t, false)}
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			node := rapid.IntRange(0, 1).Draw(r, "node")
			switch rapid.IntRange(0, 9).Draw(r, "step") {
			case 0, 1:
				w.deliver(r, node, rapid.IntRange(1, 5).Draw(r, "some"), rapid.Bool().Draw(r, "burst"))
			case 2:
				if told := w.told[node]; len(told) > 0 { // once more
					w.tell(r, node, rapid.SampledFrom(told).Draw(r, "again"))
				}
			case 3:
				w.settle(r)
				w.login(t)
			default:
				w.change(t, r, w.nodes[node])
			}
			w.at = w.at.Add(time.Second)
		}
		for i := range w.nodes {
			w.deliver(r, i, len(w.sent[i]), rapid.Bool().Draw(r, "burst"))
		}
		w.compare(r)
	})
}

// world is what came out of the changes to a cluster.
type world struct {
	*cluster
	pairs  [][2]*auth.Principal // one who logged in on both
	tokens []string
	next   []string // refresh tokens
}

var (
	sharedUsers     = []string{"ann", "bob", "cid"}
	sharedKeys      = []string{"k1", "k2", "k3"}
	sharedPasswords = []string{"correct horse battery", "staple staple staple"}
	sharedSecrets   = []string{"a-secret-of-sixteen", "b-secret-of-sixteen"}
	sharedRoles     = []string{"administrator", "viewer", "publisher", "client"}
	sharedFilters   = []string{"a/#", "a/+", "b", "own/%u"}
)

// change makes one change on a node. Most are possible; which not, both nodes know.
func (w *world) change(t *testing.T, r *rapid.T, a *auth.Auth) {
	ctx := auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System})
	pick := func(what string, from []string) string { return rapid.SampledFrom(from).Draw(r, what) }
	user, id := pick("user", sharedUsers), pick("key", sharedKeys)
	on := rapid.Bool().Draw(r, "on")
	switch rapid.IntRange(0, 15).Draw(r, "change") {
	case 0, 1:
		_ = a.AddUser(ctx, auth.UserSpec{Username: user, Password: pick("password", sharedPasswords), Superuser: on})
	case 2:
		password := pick("password", sharedPasswords)
		_ = a.ChangeUser(ctx, user, auth.UserChange{Password: &password})
	case 3:
		_ = a.ChangeUser(ctx, user, auth.UserChange{Superuser: &on})
	case 4:
		_ = a.ChangeUser(ctx, user, auth.UserChange{Disabled: &on})
	case 5:
		text := pick("description", sharedFilters)
		_ = a.ChangeUser(ctx, user, auth.UserChange{Description: &text})
		_ = a.ChangeKey(ctx, id, auth.KeyChange{Description: &text})
	case 6:
		_ = a.DeleteUser(ctx, user)
	case 7:
		_ = a.RevokeUser(ctx, user)
	case 8, 9:
		_, _, _ = a.AddKey(ctx, auth.KeySpec{ID: id, Secret: pick("secret", sharedSecrets), Role: pick("role", sharedRoles)})
	case 10:
		role := pick("role", sharedRoles)
		_ = a.ChangeKey(ctx, id, auth.KeyChange{Role: &role, Disabled: &on})
	case 11:
		if on {
			_, _ = a.AddSecret(ctx, id, pick("secret", sharedSecrets))
		} else {
			_ = a.RetireSecret(ctx, id)
		}
	case 12:
		_ = a.DeleteKey(ctx, id)
	case 13:
		effect := pick("effect", []string{"allow", "deny"})
		who := pick("who", []string{"user:" + user, "key:" + id, "all"})
		must(t, a.UpdateRules(ctx, func(rules []auth.Rule) ([]auth.Rule, error) {
			if on && len(rules) > 0 {
				return rules[1:], nil
			}
			return append(rules, rule(effect, who, pick("filter", sharedFilters), "publish", "subscribe")), nil
		}))
	case 14:
		b := auth.Ban{Kind: auth.BanUsername, Who: user, Until: w.at.Add(time.Duration(rapid.IntRange(1, 60).Draw(r, "until")) * time.Second)}
		if on {
			_, _ = a.AddBan(ctx, b)
		} else {
			_ = a.RemoveBan(ctx, b.Kind, b.Who)
		}
	case 15:
		w.useTokens(t, r, a)
	}
}

// useTokens begins, renews and ends logins.
func (w *world) useTokens(t *testing.T, r *rapid.T, a *auth.Auth) {
	ctx := t.Context()
	took := func(got auth.Tokens, err error) {
		if err == nil {
			w.tokens, w.next = append(w.tokens, got.Access), append(w.next, got.Refresh)
		}
	}
	switch rapid.IntRange(0, 5).Draw(r, "tokens") {
	case 0:
		must(t, a.RotateSigningKey(ctx))
	case 1, 2:
		if len(w.next) > 0 {
			took(a.Refresh(ctx, "one", rapid.SampledFrom(w.next).Draw(r, "refresh")))
		}
	case 3:
		if len(w.next) > 0 {
			_ = a.RevokeRefresh(ctx, "one", rapid.SampledFrom(w.next).Draw(r, "revoked"))
		}
	default:
		for _, password := range sharedPasswords {
			p, err := a.LoginPassword(ctx, rapid.SampledFrom(sharedUsers).Draw(r, "who"), password, "")
			if err == nil {
				took(a.Issue(ctx, p, fast))
			}
		}
	}
}

// login logs in on both nodes by all that there is.
func (w *world) login(t *testing.T) {
	ctx := t.Context()
	both := func(f func(*auth.Auth) (*auth.Principal, error)) {
		one, err1 := f(w.nodes[0])
		two, err2 := f(w.nodes[1])
		if (err1 == nil) != (err2 == nil) {
			t.Errorf("one node says %v, the other %v", err1, err2)
		}
		if err1 == nil && err2 == nil {
			w.pairs = append(w.pairs, [2]*auth.Principal{one, two})
		}
	}
	for _, id := range sharedKeys {
		for _, secret := range sharedSecrets {
			both(func(a *auth.Auth) (*auth.Principal, error) { return a.Key(ctx, id, secret) })
		}
	}
	for i, name := range sharedUsers {
		password := sharedPasswords[i%len(sharedPasswords)]
		both(func(a *auth.Auth) (*auth.Principal, error) { return a.Login(ctx, name, password, "c", "", false) })
	}
	for _, token := range w.tokens {
		both(func(a *auth.Auth) (*auth.Principal, error) { return a.Access(ctx, "one", token) })
	}
}

// compare sees that both nodes, which know all, decide alike.
func (w *world) compare(t *rapid.T) {
	one, two := w.nodes[0], w.nodes[1]
	if diff := cmp.Diff(everything(one), everything(two)); diff != "" {
		t.Fatalf("the nodes differ:\n%s", diff)
	}
	for _, name := range sharedUsers {
		_, banned1 := one.Banned("", name, "")
		if _, banned2 := two.Banned("", name, ""); banned1 != banned2 {
			t.Fatalf("%s is banned on one node alone", name)
		}
	}
	for _, p := range w.pairs {
		if one.Valid(p[0]) != two.Valid(p[1]) {
			t.Fatalf("%v is valid on one node alone", p[0])
		}
		for _, name := range []string{"a", "a/b", "a/b/c", "b", "own/ann", "$SYS/x"} {
			for _, act := range []auth.Action{auth.Publish, auth.Subscribe, auth.View} {
				if d1, d2 := one.Decide(p[0], act, topic(name)), two.Decide(p[1], act, topic(name)); d1 != d2 {
					t.Fatalf("%v %s %s: %+v and %+v", p[0], act, name, d1, d2)
				}
			}
		}
	}
	for _, token := range w.tokens {
		_, err1 := one.Access(t.Context(), "one", token)
		if _, err2 := two.Access(t.Context(), "one", token); !errors.Is(err1, err2) {
			t.Fatalf("a token: %v and %v", err1, err2)
		}
	}
}
