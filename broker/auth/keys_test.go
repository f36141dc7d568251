package auth_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/broker/auth"
)

func TestMadeKeysAreRandomAndUsable(t *testing.T) {
	a := open(t, &memory{})
	id, secret := addKey(t, a, auth.KeySpec{})
	other, _ := addKey(t, a, auth.KeySpec{})
	if !regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{11}$`).MatchString(id) || other == id {
		t.Errorf("ids %q and %q", id, other)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`).MatchString(secret) {
		t.Errorf("secret %q", secret)
	}
	p, err := a.Key(t.Context(), id, secret)
	must(t, err)
	if p.String() != "key:"+id || p.Role != auth.Client || p.ClientID != "" {
		t.Errorf("got %+v", p)
	}
}

func TestGivenKeysAreTakenAsTheyStand(t *testing.T) {
	ctx := t.Context()
	a := open(t, &memory{})
	const secret = "a.secret with dots: and ~"
	addKey(t, a, auth.KeySpec{ID: "_given-1", Secret: secret, Role: "administrator"})
	if _, err := a.Key(ctx, "_given-1", secret); err != nil {
		t.Error(err)
	}
	if _, err := a.Bearer(ctx, "_given-1."+secret); err != nil {
		t.Errorf("the token is not split at its first dot: %v", err)
	}
	for _, token := range []string{"", ".", "_given-1", "_given-1.", "." + secret, "_given-1." + secret + " ", "_given-1.." + secret, secret} {
		if _, err := a.Bearer(ctx, token); !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("%q: got %v, want ErrUnauthenticated", token, err)
		}
	}
	if _, _, err := a.AddKey(ctx, auth.KeySpec{ID: "_given-1", Secret: secret}); !errors.Is(err, auth.ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
}

func TestKeysAreChecked(t *testing.T) {
	a := open(t, &memory{})
	good := strings.Repeat("s", 16)
	for want, specs := range map[string][]auth.KeySpec{
		"id":        {{ID: "a.b"}, {ID: "ä"}, {ID: strings.Repeat("i", 65)}, {ID: "a b"}},
		"secret":    {{Secret: "fifteen-letters"}, {Secret: strings.Repeat("s", 257)}, {Secret: good + "\t"}, {Secret: good + "ä"}},
		"name":      {{Name: "a\x1bb"}, {Name: strings.Repeat("n", 257)}},
		"role":      {{Role: "root"}, {Role: "Client"}},
		"scopes":    {{Scopes: make([]string, 101)}},
		"scopes[1]": {{Scopes: []string{"a", "a/#/b"}}, {Scopes: []string{"a", ""}}, {Scopes: []string{"a", "queue:"}}, {Scopes: []string{"a", "$share/g/a"}}},
		"scopes[0]": {{Role: "administrator", Scopes: []string{"a/#"}}, {Scopes: []string{"a#"}}, {Scopes: []string{"$queue/a"}}},
	} {
		for _, s := range specs {
			_, _, err := a.AddKey(t.Context(), s)
			var invalid *auth.InvalidError
			if !errors.As(err, &invalid) || invalid.Field != want {
				t.Errorf("%s: got %v", want, err)
			}
		}
	}
	addKey(t, a, auth.KeySpec{ID: strings.Repeat("i", 64), Secret: strings.Repeat("s", 256), Role: "administrator", Scopes: []string{"#", "queue:*"}})
	if !a.HasAdministrator() {
		t.Error("a key with the role administrator is an administrator")
	}
}

func TestADeletedKeyEndsAtOnce(t *testing.T) {
	ctx := t.Context()
	a := open(t, &memory{})
	id, secret := addKey(t, a, auth.KeySpec{})
	p, err := a.Key(ctx, id, secret)
	must(t, err)
	must(t, a.DeleteKey(ctx, id))
	if a.Valid(p) || a.Allow(p, auth.Publish, topic("a")) {
		t.Error("the principal outlived its key")
	}
	if _, err := a.Key(ctx, id, secret); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("got %v, want ErrUnauthenticated", err)
	}
	if err := a.DeleteKey(ctx, id); !errors.Is(err, auth.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func TestAnExpiredKeyEndsAndMakesANewGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, store := t.Context(), &memory{}
		a := open(t, store)
		id, secret := addKey(t, a, auth.KeySpec{Role: "administrator", Expires: time.Now().Add(150 * time.Minute)})
		addKey(t, a, auth.KeySpec{Expires: time.Now().Add(200 * time.Minute)})
		if err := a.Close(ctx); err != nil {
			t.Fatal(err)
		}
		a = open(t, store)
		p, err := a.Key(ctx, id, secret)
		must(t, err)
		<-time.After(150*time.Minute - time.Nanosecond)
		synctest.Wait()
		before := a.Generation()
		if !a.Valid(p) {
			t.Error("the key ended too early")
		}
		<-time.After(time.Nanosecond)
		synctest.Wait()
		if a.Generation() == before || a.Valid(p) || a.Allow(p, auth.Publish, topic("a")) || a.HasAdministrator() {
			t.Error("the principal outlived its key")
		}
		if _, err := a.Key(ctx, id, secret); !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("got %v, want ErrUnauthenticated", err)
		}
	})
}

func TestLastUseIsWrittenOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, store := t.Context(), &memory{}
		a := open(t, store)
		id, secret := addKey(t, a, auth.KeySpec{})
		before := store.puts
		for range 100 {
			if _, err := a.Key(ctx, id, secret); err != nil {
				t.Fatal(err)
			}
			<-time.After(1100 * time.Millisecond)
		}
		used := time.Now().Add(-2 * time.Second).UTC().Truncate(time.Minute)
		<-time.After(10 * time.Minute)
		synctest.Wait()
		if got := store.puts - before; got != 2 {
			t.Errorf("100 uses in 110 seconds took %d writes, want 2", got)
		}
		if diff := cmp.Diff(used, a.Keys()[0].LastUsed); diff != "" {
			t.Errorf("last use: %s", diff)
		}
	})
}

func TestTheLastLoginOfAUserIsShownAndKept(t *testing.T) {
	store := &memory{}
	a := open(t, store)
	addUser(t, a, "dev", right, false)
	last := func(a *auth.Auth) time.Time {
		t.Helper()
		u, err := a.User("dev")
		must(t, err)
		return u.LastLogin
	}
	if _, err := a.LoginPassword(t.Context(), "dev", "another long one", home); err == nil || !last(a).IsZero() {
		t.Errorf("%v, last login %v before there was one", err, last(a))
	}
	_, err := a.LoginPassword(t.Context(), "dev", right, home)
	must(t, err)
	at := last(a)
	disabled := false
	must(t, a.ChangeUser(t.Context(), "dev", auth.UserChange{Disabled: &disabled}))
	if time.Since(at) > 2*time.Minute || !last(a).Equal(at) {
		t.Errorf("last login %v, after a change %v", at, last(a))
	}
	must(t, a.Close(t.Context()))
	if again := last(open(t, store)); !again.Equal(at) {
		t.Errorf("last login %v after a restart, was %v", again, at)
	}
}
