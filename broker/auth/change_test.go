package auth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/unicode/norm"

	"millrace/broker/auth"
)

func TestAKeyChangesItsSecretWithoutABreak(t *testing.T) {
	ctx, store := t.Context(), &memory{}
	a := open(t, store)
	id, first := addKey(t, a, auth.KeySpec{Role: "publisher"})
	old, err := a.Key(ctx, id, first)
	must(t, err)
	var invalid *auth.InvalidError
	if err := a.RetireSecret(ctx, id); !errors.As(err, &invalid) {
		t.Errorf("the only secret: %v", err)
	}
	second, err := a.AddSecret(ctx, id, "")
	must(t, err)
	var full *auth.LimitError
	if _, err := a.AddSecret(ctx, id, ""); !errors.As(err, &full) || full.Max != 2 {
		t.Errorf("a third secret: %v", err)
	}
	if _, err := a.AddSecret(ctx, id, "short"); !errors.As(err, &invalid) {
		t.Errorf("a bad secret: %v", err)
	}
	young, err := a.Key(ctx, id, second)
	must(t, err)
	for _, b := range []*auth.Auth{a, open(t, store)} {
		for _, secret := range []string{first, second} {
			if _, err := b.Bearer(ctx, id+"."+secret); err != nil {
				t.Error(err)
			}
		}
		if info, err := b.KeyInfo(id); err != nil || info.Secrets != 2 {
			t.Errorf("%+v, %v", info, err)
		}
	}
	if !a.Valid(old) || !a.Valid(young) {
		t.Error("a second secret ended the first")
	}
	must(t, a.RetireSecret(ctx, id))
	if a.Valid(old) || !a.Valid(young) || a.Allow(old, auth.Publish, topic("a")) {
		t.Error("who came with the retired secret goes, and nobody else")
	}
	if _, err := a.Key(ctx, id, first); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("the retired secret: %v", err)
	}
	if _, err := a.AddSecret(ctx, id, second); !errors.Is(err, auth.ErrExists) {
		t.Errorf("the same secret again: %v", err)
	}
	if _, err := a.AddSecret(ctx, "who", ""); !errors.Is(err, auth.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}

func TestKeysChange(t *testing.T) {
	c, store := newClock(), &memory{}
	a := open(t, store, at(c))
	ctx := auth.WithPrincipal(t.Context(), admin)
	id, secret, err := a.AddKey(ctx, auth.KeySpec{Name: "billing"})
	must(t, err)
	in := c.Now().Add(time.Hour)
	p, err := a.Key(ctx, id, secret)
	must(t, err)
	must(t, a.ChangeKey(ctx, id, auth.KeyChange{Name: new("b2"), Owner: new("ann"), Description: new("for b"), Expires: &in}))
	if !a.Valid(p) {
		t.Error("new words ended a principal")
	}
	want := auth.KeyInfo{ID: id, Name: "b2", Owner: "ann", Description: "for b", Secrets: 1, Created: c.Now(), Expires: in}
	for _, b := range []*auth.Auth{a, open(t, store, at(c))} {
		got, err := b.KeyInfo(id)
		must(t, err)
		got.LastUsed = time.Time{}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	for name, change := range map[string]auth.KeyChange{
		"scopes": {Scopes: &[]string{"a/#"}}, "role": {Role: new("viewer")}, "off": {Disabled: new(true)},
	} {
		id, secret := addKey(t, a, auth.KeySpec{})
		p, err := a.Key(ctx, id, secret)
		must(t, err)
		must(t, a.ChangeKey(ctx, id, change))
		if a.Valid(p) {
			t.Errorf("%s: a principal has the rights of before", name)
		}
		if _, err := a.Key(ctx, id, secret); (err == nil) == (name == "off") {
			t.Errorf("%s: %v", name, err)
		}
	}
	before := a.Generation()
	for want, change := range map[string]auth.KeyChange{
		"role": {Role: new("root")}, "scopes[0]": {Scopes: &[]string{"a/#/b"}}, "name": {Name: new("a\n")}, "owner": {Owner: new(strings.Repeat("o", 257))},
	} {
		var invalid *auth.InvalidError
		if err := a.ChangeKey(ctx, id, change); !errors.As(err, &invalid) || invalid.Field != want {
			t.Errorf("%s: %v", want, err)
		}
	}
	if err := a.ChangeKey(ctx, "who", auth.KeyChange{}); !errors.Is(err, auth.ErrNotFound) || a.Generation() != before {
		t.Errorf("of nobody: %v", err)
	}
	if first, err := a.KeyInfo(id); err != nil || first.Owner != "ann" {
		t.Error(err)
	}
	other, _, err := a.AddKey(ctx, auth.KeySpec{})
	must(t, err)
	if info, _ := a.KeyInfo(other); info.Owner != "key:adm" {
		t.Errorf("owned by %q", info.Owner)
	}
}

func TestAnExpiryCanBeMoved(t *testing.T) {
	ctx, c := t.Context(), newClock()
	a := open(t, &memory{}, at(c))
	id, secret := addKey(t, a, auth.KeySpec{Expires: c.Now().Add(time.Hour)})
	p, err := a.Key(ctx, id, secret)
	must(t, err)
	must(t, a.ChangeKey(ctx, id, auth.KeyChange{Expires: new(c.Now().Add(2 * time.Hour))}))
	c.advance(time.Hour)
	must(t, a.SetRules(ctx, nil)) // a new policy
	if !a.Valid(p) {
		t.Error("the old end counts")
	}
	must(t, a.ChangeKey(ctx, id, auth.KeyChange{Expires: new(time.Time{})}))
	c.advance(1000 * time.Hour)
	must(t, a.SetRules(ctx, nil))
	if _, err := a.Key(ctx, id, secret); err != nil || !a.Valid(p) {
		t.Error("never came")
	}
	must(t, a.ChangeKey(ctx, id, auth.KeyChange{Expires: new(c.Now())}))
	if _, err := a.Key(ctx, id, secret); err == nil || a.Valid(p) {
		t.Error("the key has no end")
	}
}

func TestUsersAndKeysAreBounded(t *testing.T) {
	ctx := t.Context()
	a := open(t, &memory{}, func(o *auth.Options) { o.Limits = auth.Limits{Users: 2, Keys: 3} })
	for i := range 4 {
		name := string(rune('a' + i))
		userErr := a.AddUser(ctx, auth.UserSpec{Username: name, Password: right})
		_, _, keyErr := a.AddKey(ctx, auth.KeySpec{ID: name})
		for _, c := range []struct {
			err  error
			what string
			max  int
		}{{userErr, "users", 2}, {keyErr, "keys", 3}} {
			var full *auth.LimitError
			if over := i >= c.max; over != errors.As(c.err, &full) || over && (full.What != c.what || full.Max != c.max) {
				t.Errorf("number %d of %s: %v", i+1, c.what, c.err)
			}
		}
	}
	must(t, a.DeleteUser(ctx, "a"))
	addUser(t, a, "c", right, false)
}

func TestADisabledUserStaysOut(t *testing.T) {
	ctx, store := t.Context(), &memory{}
	a := withUser(t, store)
	p, err := login(t, a, "dev", right)
	must(t, err)
	must(t, a.ChangeUser(ctx, "dev", auth.UserChange{Disabled: new(true)}))
	for _, b := range []*auth.Auth{a, open(t, store)} {
		if _, err := login(t, b, "dev", right); !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("got %v", err)
		}
		if _, err := b.LoginPassword(ctx, "dev", right, home); !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("got %v", err)
		}
		if u, err := b.User("dev"); err != nil || !u.Disabled {
			t.Errorf("%+v, %v", u, err)
		}
	}
	if a.Valid(p) {
		t.Error("the connection stays")
	}
	must(t, a.ChangeUser(ctx, "dev", auth.UserChange{Disabled: new(false)}))
	if _, err := login(t, a, "dev", right); err != nil {
		t.Error(err)
	}
	if _, err := a.User("who"); !errors.Is(err, auth.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// TestADescriptionStaysAndEndsNothing: what people write about a user has no say
// in who the user is.
func TestADescriptionStaysAndEndsNothing(t *testing.T) {
	ctx, store := t.Context(), &memory{}
	a := open(t, store)
	must(t, a.AddUser(ctx, auth.UserSpec{Username: "ann", Password: "correct horse", Description: "runs the plant"}))
	p, err := a.LoginPassword(ctx, "ann", "correct horse", "")
	must(t, err)
	text, long := "ran the plant", strings.Repeat("x", 257)
	must(t, a.ChangeUser(ctx, "ann", auth.UserChange{Description: &text}))
	if !a.Valid(p) {
		t.Error("a description ended the login")
	}
	other := "another horse"
	must(t, a.ChangeUser(ctx, "ann", auth.UserChange{Password: &other}))
	for _, b := range []*auth.Auth{a, open(t, store)} {
		if u, err := b.User("ann"); err != nil || u.Description != text {
			t.Errorf("%+v, %v", u, err)
		}
	}
	var invalid *auth.InvalidError
	if err := a.ChangeUser(ctx, "ann", auth.UserChange{Description: &long}); !errors.As(err, &invalid) || invalid.Field != "description" {
		t.Errorf("257 bytes: %v", err)
	}
	if err := a.AddUser(ctx, auth.UserSpec{Username: "bob", Password: "correct horse", Description: "a\x00"}); !errors.As(err, &invalid) {
		t.Errorf("a control character: %v", err)
	}
}

func TestAPasswordIsTheSameHoweverItIsWritten(t *testing.T) {
	a := open(t, &memory{})
	composed := norm.NFC.String("ünïcödé ångström")
	apart := norm.NFD.String(composed)
	addUser(t, a, "one", composed, false)
	addUser(t, a, "two", apart, false)
	for _, name := range []string{"one", "two"} {
		for _, password := range []string{composed, apart} {
			if _, err := login(t, a, name, password); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := login(t, a, "one", strings.Repeat(apart, 10_000)); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("got %v", err)
	}
	addUser(t, a, "long", norm.NFD.String(strings.Repeat("ü", 256)), false)
}

func TestAPasswordIsHashedAnewWhenThePriceRises(t *testing.T) {
	ctx, store := t.Context(), &memory{}
	a := withUser(t, store)
	tokens := issued(t, a, "dev", fast)
	before := string(store.data["auth/user/dev"])

	b := open(t, store, auth.Cost(16))
	if _, err := login(t, b, "dev", wrong); err == nil || string(store.data["auth/user/dev"]) != before {
		t.Fatal("a wrong password changed something")
	}
	p, err := login(t, b, "dev", right)
	must(t, err)
	now := string(store.data["auth/user/dev"])
	if !strings.Contains(now, "$m=16,") {
		t.Fatalf("stored %s", now)
	}
	if !b.Valid(p) {
		t.Error("the login that brought the password ended by it")
	}
	accepted(t, b, "one", tokens.Access)
	if _, err := b.LoginPassword(ctx, "dev", right, home); err != nil || string(store.data["auth/user/dev"]) != now {
		t.Errorf("again: %v", err)
	}
	cheaper := open(t, store, auth.Cost(8))
	_, err = login(t, cheaper, "dev", right)
	must(t, err)
	if string(store.data["auth/user/dev"]) != now {
		t.Error("the price fell")
	}
}

func TestLoginPasswordIsForUsersAndFeelsTheBrake(t *testing.T) {
	ctx := t.Context()
	a := withUser(t, &memory{})
	id, secret := addKey(t, a, auth.KeySpec{})
	addUser(t, a, "root", right, true)
	if _, err := a.LoginPassword(ctx, id, secret, home); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("a key: %v", err)
	}
	if _, err := a.LoginPassword(ctx, "", "", home); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("nobody: %v", err)
	}
	p, err := a.LoginPassword(ctx, "root", right, home)
	must(t, err)
	if p.Role != auth.Administrator || !p.Superuser || p.ClientID != "" {
		t.Errorf("%+v", p)
	}
	for range 5 {
		_, _ = a.LoginPassword(ctx, "dev", wrong, home)
		_, _ = login(t, a, "dev", wrong)
	}
	var delayed *auth.DelayedError
	if _, err := a.LoginPassword(ctx, "dev", right, home); !errors.As(err, &delayed) {
		t.Errorf("ten wrong passwords on both doors: %v", err)
	}
}
