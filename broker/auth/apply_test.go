package auth_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/broker/auth"
)

// TestNodesThatStartAtOnceMakeOneOfEach has both begin with nothing.
func TestNodesThatStartAtOnceMakeOneOfEach(t *testing.T) {
	for range 20 {
		c := openCluster(t, true)
		var made [2]error
		var tokens [2]auth.Tokens
		var all sync.WaitGroup
		for i, a := range c.nodes {
			all.Go(func() {
				ctx := t.Context()
				made[i] = a.AddUser(ctx, auth.UserSpec{Username: "admin", Password: fmt.Sprint("a long password ", i), Superuser: true})
				must(t, a.AddUser(ctx, auth.UserSpec{Username: fmt.Sprint("user ", i), Password: "another password"}))
				p, err := a.LoginPassword(ctx, fmt.Sprint("user ", i), "another password", "")
				must(t, err)
				tokens[i], err = a.Issue(ctx, p, fast)
				must(t, err)
				must(t, a.UpdateRules(ctx, func(rules []auth.Rule) ([]auth.Rule, error) {
					return append(rules, rule("deny", "all", fmt.Sprint("x/", i), "publish")), nil
				}))
			})
		}
		all.Wait()
		first, second := made[0], made[1]
		if first != nil {
			first, second = second, first
		}
		if first != nil || !errors.Is(second, auth.ErrExists) {
			t.Errorf("the first administrator was made with %v and %v", made[0], made[1])
		}
		for i, a := range c.nodes {
			for _, tk := range tokens {
				if _, err := a.Access(t.Context(), "one", tk.Access); err != nil {
					t.Errorf("node %d: %v", i, err)
				}
			}
			if n := len(a.SigningKeys()); n != 1 {
				t.Errorf("node %d has %d signing keys", i, n)
			}
			if n := len(a.Rules()); n != 2 {
				t.Errorf("node %d has %d rules: the change of one was lost", i, n)
			}
		}
		if diff := cmp.Diff(everything(c.nodes[0]), everything(c.nodes[1])); diff != "" {
			t.Errorf("the nodes differ:\n%s", diff)
		}
	}
}

// TestASigningKeyThatIsMadeElsewhereMeanwhileIsUsed has the other node make it at
// each moment at which this one asks for the time.
func TestASigningKeyThatIsMadeElsewhereMeanwhileIsUsed(t *testing.T) {
	for at := 1; ; at++ {
		c := openCluster(t, true)
		must(t, c.nodes[0].AddUser(t.Context(), auth.UserSpec{Username: "dev", Password: right}))
		var who [2]*auth.Principal
		for i, a := range c.nodes {
			p, err := a.LoginPassword(t.Context(), "dev", right, "")
			must(t, err)
			who[i] = p
		}
		moments := 0
		c.asked[0] = func() {
			if moments++; moments == at {
				_, err := c.nodes[1].Issue(t.Context(), who[1], fast)
				must(t, err)
			}
		}
		_, err := c.nodes[0].Issue(t.Context(), who[0], fast)
		must(t, err)
		if moments < at {
			return
		}
		if n := len(c.nodes[0].SigningKeys()); n != 1 {
			t.Errorf("made at moment %d, there are %d signing keys", at, n)
		}
	}
}

// TestALoginGoesOnAtAnotherNode refreshes at both nodes at once, from the same token.
func TestALoginGoesOnAtAnotherNode(t *testing.T) {
	c := openCluster(t, true)
	ctx := t.Context()
	must(t, c.nodes[0].AddUser(ctx, auth.UserSpec{Username: "dev", Password: right}))
	tokens := issued(t, c.nodes[0], "dev", fast)
	for round := range 20 {
		var answers [2]auth.Tokens
		var both sync.WaitGroup
		for i, a := range c.nodes {
			both.Go(func() {
				var err error
				if answers[i], err = a.Refresh(ctx, "one", tokens.Refresh); err != nil {
					t.Errorf("round %d, node %d: %v", round, i, err)
				}
			})
		}
		both.Wait()
		if answers[0] != answers[1] {
			t.Fatalf("round %d: the answers differ, so one of them would end the login later", round)
		}
		tokens = answers[0]
		for _, a := range c.nodes {
			accepted(t, a, "one", tokens.Access)
		}
	}
	must(t, c.nodes[1].RevokeRefresh(ctx, "one", tokens.Refresh))
	for _, a := range c.nodes {
		refusedToken(t, a, "one", tokens.Access, "logged out at the other node")
	}
}

// TestAChangeElsewhereIsFelt by who watches, as one that was made here is.
func TestAChangeElsewhereIsFelt(t *testing.T) {
	c := openCluster(t, true)
	here, there := c.nodes[0], c.nodes[1]
	ctx := auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System})
	must(t, there.AddUser(ctx, auth.UserSpec{Username: "dev", Password: right}))
	p, err := here.Login(ctx, "dev", right, "c1", "", false)
	must(t, err)
	felt := func(what string, change func() error) {
		t.Helper()
		before, changed := here.Generation(), here.Changed()
		must(t, change())
		select {
		case <-changed:
		default:
			t.Errorf("%s: nobody is told", what)
		}
		if here.Generation() <= before {
			t.Errorf("%s: the generation did not grow", what)
		}
	}
	felt("rules", func() error { return there.SetRules(ctx, []auth.Rule{rule("deny", "all", "a", "publish")}) })
	if here.Allow(p, auth.Publish, topic("a")) {
		t.Error("the rule is not in force")
	}
	felt("a ban", func() error {
		_, err := there.AddBan(ctx, auth.Ban{Kind: auth.BanClientID, Who: "c1"})
		return err
	})
	if _, banned := here.Banned("c1", "dev", ""); !banned {
		t.Error("the ban is not in force")
	}
	must(t, there.RemoveBans(ctx))
	if _, banned := here.Banned("c1", "dev", ""); banned {
		t.Error("the ban is in force")
	}
	text := "a text"
	felt("a description", func() error { return there.ChangeUser(ctx, "dev", auth.UserChange{Description: &text}) })
	if !here.Valid(p) {
		t.Error("a description ends nobody")
	}
	felt("a password", func() error {
		return there.UpdateUser(ctx, auth.UserSpec{Username: "dev", Password: "another " + right})
	})
	if here.Valid(p) {
		t.Error("a new password ends who came with the old one")
	}
	if _, err := here.Login(ctx, "dev", right, "c1", "", false); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("the old password: %v", err)
	}
	felt("the end of a user", func() error { return there.DeleteUser(ctx, "dev") })
}

// TestWhoIsOvertakenDecidesAgain: a node that is told late waits for what is ahead of
// its own change, and gives up when that does not come.
func TestWhoIsOvertakenDecidesAgain(t *testing.T) {
	for name, comes := range map[string]bool{"it comes": true, "it does not come": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := openCluster(t, false)
				late := &behind{memory: c.store}
				here, err := auth.Open(t.Context(), auth.Options{Store: late})
				must(t, err)
				defer here.Close(t.Context())
				late.hold()
				must(t, c.nodes[1].SetRules(t.Context(), []auth.Rule{rule("deny", "all", "there", "publish")}))
				go func() {
					time.Sleep(3 * time.Second)
					if !comes {
						return
					}
					for _, n := range c.sent[0] {
						must(t, here.Apply(n.key, n.value, n.rev)) // though a change is under way
					}
				}()
				began := time.Now()
				err = here.UpdateRules(t.Context(), func(rules []auth.Rule) ([]auth.Rule, error) {
					return append(rules, rule("deny", "all", "here", "publish")), nil
				})
				if (err == nil) != comes || comes != (time.Since(began) < 4*time.Second) {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
				if want := map[bool]int{true: 2, false: 0}[comes]; len(here.Rules()) != want {
					t.Errorf("%d rules, want %d", len(here.Rules()), want)
				}
			})
		})
	}
}

// behind is a store of which a node sees what was there at a time.
type behind struct {
	*memory
	seen map[string]auth.Entry
}

func (b *behind) hold() { b.seen = map[string]auth.Entry{} }

func (b *behind) Entries(ctx context.Context, prefix string) (map[string]auth.Entry, error) {
	if b.seen != nil {
		return b.seen, nil
	}
	return b.memory.Entries(ctx, prefix)
}

// TestWhatIsNotUnderstoodChangesNothing: what was in force stays.
func TestWhatIsNotUnderstoodChangesNothing(t *testing.T) {
	a := withUser(t, &memory{})
	setRules(t, a, rule("deny", "all", "a", "publish"))
	before := everything(a)
	for key, value := range map[string]string{
		"auth/user/dev": `{"password":"x"}`, "auth/key/k": `{"role":"king"}`, "auth/rules": `[{"effect":"maybe"}]`, "auth/signers": `[{}]`,
		"auth/login/x": `{}`, "auth/ban/peerhost/x": `{}`, "auth/last-use": `[]`, "auth/strange": `{}`, "else": `{}`,
	} {
		if err := a.Apply(key, []byte(value), 1<<40); err == nil {
			t.Errorf("%s: %s was understood", key, value)
		}
	}
	if diff := cmp.Diff(before, everything(a)); diff != "" {
		t.Error(diff)
	}
	setRules(t, a)
}

// TestLastUsesOfNodesAreMerged: the later of two times counts, wherever it was.
func TestLastUsesOfNodesAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openCluster(t, true)
		ctx := t.Context()
		ids := [2]string{}
		for i, a := range c.nodes {
			id, secret, err := a.AddKey(ctx, auth.KeySpec{})
			must(t, err)
			_, err = a.Key(ctx, id, secret)
			must(t, err)
			ids[i] = id
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		for i, a := range append(c.nodes[:], open(t, c.store)) {
			for _, id := range ids {
				if k, err := a.KeyInfo(id); err != nil || !k.LastUsed.Equal(c.at) {
					t.Errorf("node %d: key used %v, %v", i, k.LastUsed, err)
				}
			}
		}
	})
}
