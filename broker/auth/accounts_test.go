package auth_test

import (
	"context"
	"errors"
	"testing"

	"millrace/broker/auth"
)

const pond = "pond" // a door with accounts

func addAccount(t testing.TB, a *auth.Auth, name, password string) {
	t.Helper()
	must(t, a.AddUser(context.Background(), auth.UserSpec{Username: name, Password: password, Door: pond, Distinct: true}))
}

func TestAnAccountAndAUserMayHaveOneName(t *testing.T) {
	ctx, store := t.Context(), &memory{}
	a := open(t, store, func(o *auth.Options) { o.AllowAnonymous = false })
	addUser(t, a, "dev", "the user's words", false)
	addAccount(t, a, "dev", "the account's words")
	if err := a.AddUser(ctx, auth.UserSpec{Username: "DEV", Password: "the account's words", Door: pond, Distinct: true}); !errors.Is(err, auth.ErrExists) {
		t.Errorf("a name that looks the same: %v", err)
	}
	for range 2 { // the second time after reopening
		for name, login := range map[string]func(string) error{
			"mqtt":  func(pw string) error { _, err := a.Login(ctx, "dev", pw, "c", home, false); return err },
			"login": func(pw string) error { _, err := a.LoginPassword(ctx, "dev", pw, home); return err },
		} {
			if err := login("the account's words"); !errors.Is(err, auth.ErrUnauthenticated) {
				t.Errorf("%s takes an account: %v", name, err)
			}
			must(t, login("the user's words"))
		}
		if _, err := a.LoginAccount(ctx, pond, "dev", "the user's words", home); !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("the door takes a user: %v", err)
		}
		for _, name := range []string{pond + "\x00dev", pond + ":dev", pond + "/dev"} {
			if _, err := a.Login(ctx, name, "the account's words", "c", home, false); !errors.Is(err, auth.ErrUnauthenticated) {
				t.Errorf("MQTT takes %q: %v", name, err)
			}
		}
		if _, err := a.LoginAccount(ctx, "other", "dev", "the account's words", home); !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("another door takes it: %v", err)
		}
		p, err := a.LoginAccount(ctx, pond, "dev", "the account's words", home)
		must(t, err)
		if p.String() != "pond:dev" || len(a.Users()) != 1 {
			t.Errorf("%s, users %v", p, a.Users())
		}
		must(t, a.Close(ctx))
		a = open(t, store, func(o *auth.Options) { o.AllowAnonymous = false })
	}
	must(t, a.DeleteUser(ctx, "dev"))
	if _, err := a.LoginAccount(ctx, pond, "dev", "the account's words", home); err != nil {
		t.Errorf("the account went with the user: %v", err)
	}
}

func TestAnAccountDoesEverythingWithQueuesAndNothingElse(t *testing.T) {
	ctx := t.Context()
	a := open(t, &memory{})
	addAccount(t, a, "dev", right)
	p, err := a.LoginAccount(ctx, pond, "dev", right, home)
	must(t, err)
	must(t, a.SetRules(ctx, []auth.Rule{
		{Effect: "deny", Who: "user:dev", Do: []string{"publish", "consume", "manage"}, Filter: "queue:*"},
		{Effect: "allow", Who: "all", Do: []string{"publish"}, Filter: "sensors/#"},
		{Effect: "deny", Who: "all", Do: []string{"consume"}, Filter: "queue:secret"},
	}))
	for _, c := range []struct {
		act  auth.Action
		on   auth.Resource
		want bool
	}{
		{auth.Publish, auth.QueueResource("q"), true},
		{auth.Consume, auth.QueueResource("q"), true},
		{auth.Manage, auth.QueueResource("q"), true},
		{auth.View, auth.QueueResource("q"), true},
		{auth.Consume, auth.QueueResource("secret"), false},
		{auth.Publish, auth.TopicResource("sensors/1"), false},
		{auth.Subscribe, auth.TopicResource("a"), false},
		{auth.Consume, auth.StreamResource("s"), false},
		{auth.Manage, auth.Resource{Kind: auth.WholeServer}, false},
		{auth.View, auth.Resource{Kind: auth.WholeServer}, false},
	} {
		if d := a.Decide(p, c.act, c.on); d.Allowed != c.want {
			t.Errorf("%v %v: %+v", c.act, c.on, d)
		}
	}
}

func TestTokensOfAnAccountAreForItsDoorAlone(t *testing.T) {
	ctx, store := t.Context(), &memory{}
	a := open(t, store)
	addUser(t, a, "dev", right, false)
	addAccount(t, a, "dev", right)
	p, err := a.LoginAccount(ctx, pond, "dev", right, home)
	must(t, err)
	for _, audience := range [][]string{{"http"}, {pond, "http"}, {"http", pond}} {
		if _, err := a.Issue(ctx, p, auth.Grant{Audience: audience}); err == nil {
			t.Errorf("tokens for %v", audience)
		}
	}
	tokens, err := a.Issue(ctx, p, auth.Grant{Audience: []string{pond}})
	must(t, err)
	must(t, a.Close(ctx))
	a = open(t, store)
	refusedToken(t, a, "http", tokens.Access, "of another door")
	if got := accepted(t, a, pond, tokens.Access); got.Door != pond || got.Name != "dev" {
		t.Errorf("the token is of %s", got)
	}
	must(t, a.RevokeUser(ctx, "dev")) // the user
	accepted(t, a, pond, tokens.Access)

	p, err = a.LoginAccount(ctx, pond, "dev", right, home)
	must(t, err)
	must(t, a.ChangeOwnPassword(ctx, p, "quite another word"))
	refusedToken(t, a, pond, tokens.Access, "after a new password")
	refusedRefresh(t, a, pond, tokens.Refresh, "after a new password")
	if err := a.ChangeOwnPassword(ctx, p, "quite another word"); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("an old proof changes the password: %v", err)
	}
	if err := a.DeleteOwn(ctx, p); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("an old proof removes the account: %v", err)
	}
	p, err = a.LoginAccount(ctx, pond, "dev", "quite another word", home)
	must(t, err)
	must(t, a.DeleteOwn(ctx, p))
	if _, err := a.LoginAccount(ctx, pond, "dev", "quite another word", home); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("a deleted account logs in: %v", err)
	}
	if _, err := a.User("dev"); err != nil {
		t.Errorf("the user went with the account: %v", err)
	}
}

func TestDoorsAreChecked(t *testing.T) {
	a := open(t, &memory{})
	for _, s := range []auth.UserSpec{{Door: "user"}, {Door: "key"}, {Door: "a/b"}, {Door: "A"}, {Door: pond, Superuser: true}} {
		s.Username, s.Password = "dev", right
		if _, ok := errors.AsType[*auth.InvalidError](a.AddUser(t.Context(), s)); !ok {
			t.Errorf("%+v is taken", s)
		}
	}
}
