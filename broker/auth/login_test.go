package auth_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker/auth"
)

const (
	right = "correct horse"
	wrong = "battery staple"
	home  = "10.0.0.1:40000"
)

func login(t testing.TB, a *auth.Auth, name, password string) (*auth.Principal, error) {
	t.Helper()
	return a.Login(context.Background(), name, password, "c", home, false)
}

func TestLoginFindsUsersThenKeysThenAnonymous(t *testing.T) {
	a := open(t, &memory{})
	addUser(t, a, "dev", right, false)
	addUser(t, a, "root", right, true)
	addUser(t, a, "both", right, false)
	addKey(t, a, auth.KeySpec{ID: "both", Secret: "sixteen-characters"})
	addKey(t, a, auth.KeySpec{ID: "twin", Secret: "the-same-for-either"})
	addUser(t, a, "twin", "the-same-for-either", false)
	addKey(t, a, auth.KeySpec{ID: "kB3x", Secret: "sixteen-characters", Role: "publisher", Scopes: []string{"a/#"}})
	for _, c := range []struct {
		name, password string
		anonymous      bool
		want           string
	}{
		{"dev", right, false, "user:dev"},
		{"dev", wrong, false, ""},
		{"dev", wrong, true, ""}, // a name that exists is never anonymous
		{"both", right, false, "user:both"},
		{"both", "sixteen-characters", false, "key:both"},
		{"twin", "the-same-for-either", false, "user:twin"},
		{"kB3x", "sixteen-characters", false, "key:kB3x"},
		{"kB3x", wrong, true, ""},
		{"", "", true, "anonymous"},
		{"", "", false, ""},
		{"who", wrong, true, "anonymous"},
		{"who", wrong, false, ""},
	} {
		p, err := a.Login(t.Context(), c.name, c.password, "c", home, c.anonymous)
		got := ""
		if err == nil {
			got = p.String()
		} else if !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("%s: %v", c.name, err)
		}
		if got != c.want || p != nil && p.ClientID != "c" {
			t.Errorf("%q %v: got %q, want %q", c.name, c.anonymous, got, c.want)
		}
	}
	p, err := login(t, a, "root", right)
	must(t, err)
	if !p.Superuser || p.Role != auth.Administrator {
		t.Errorf("the superuser is %+v", p)
	}
	k, err := login(t, a, "kB3x", "sixteen-characters")
	must(t, err)
	if k.Role != auth.Publisher || !a.Allow(k, auth.Publish, topic("a/b")) || a.Allow(k, auth.Publish, topic("b")) {
		t.Errorf("the key's rights did not come along: %+v", k)
	}
}

func TestAnonymousNeedsTheOptionAndTheListener(t *testing.T) {
	a := open(t, &memory{}, func(o *auth.Options) { o.AllowAnonymous = false })
	if _, err := a.Login(t.Context(), "", "", "c", home, true); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("got %v, want ErrUnauthenticated", err)
	}
}

func TestAVerifiedPasswordIsRememberedWhileUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, &memory{})
		addUser(t, a, "dev", right, false)
		hashes := func(want uint64, after string) {
			t.Helper()
			before := a.Hashes()
			if _, err := login(t, a, "dev", right); err != nil {
				t.Fatal(err)
			}
			if got := a.Hashes() - before; got != want {
				t.Errorf("%s: %d hashes, want %d", after, got, want)
			}
		}
		hashes(1, "first login")
		hashes(0, "second login")
		<-time.After(14 * time.Minute)
		hashes(0, "14 minutes idle")
		<-time.After(14 * time.Minute)
		hashes(0, "14 minutes idle again")
		<-time.After(15 * time.Minute)
		hashes(1, "15 minutes idle")

		must(t, a.UpdateUser(t.Context(), auth.UserSpec{Username: "dev", Password: wrong}))
		if _, err := login(t, a, "dev", right); !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("the old password gives %v, want ErrUnauthenticated", err)
		}
		if _, err := login(t, a, "dev", wrong); err != nil {
			t.Errorf("the new password gives %v", err)
		}
	})
}

func TestEqualAttemptsShareOneRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, &memory{})
		addUser(t, a, "fleet", right, false)
		release := auth.HoldHashing(t, a)
		before := a.Hashes()
		var logins sync.WaitGroup
		for range 500 {
			logins.Go(func() {
				if _, err := login(t, a, "fleet", right); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		release()
		logins.Wait()
		if got := a.Hashes() - before; got != 1 {
			t.Errorf("500 equal logins took %d runs, want 1", got)
		}
	})
}

func TestOneWhoLeavesDoesNotTakeTheOthersAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, &memory{})
		addUser(t, a, "dev", right, false)
		release := auth.HoldHashing(t, a)
		ctx, cancel := context.WithCancel(t.Context())
		var logins sync.WaitGroup
		logins.Go(func() {
			if _, err := a.Login(ctx, "dev", right, "c", home, false); !errors.Is(err, context.Canceled) {
				t.Errorf("the one who left got %v", err)
			}
		})
		synctest.Wait()
		logins.Go(func() {
			if _, err := login(t, a, "dev", right); err != nil {
				t.Errorf("the other got %v", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		release()
		logins.Wait()
	})
}

func TestAtMostSoManyChecksWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, &memory{})
		release := auth.HoldHashing(t, a)
		ctx, cancel := context.WithCancel(t.Context())
		var logins sync.WaitGroup
		for i := range auth.HashWaiting {
			logins.Go(func() {
				if _, err := a.Login(ctx, fmt.Sprint("u", i), wrong, "c", home, false); !errors.Is(err, context.Canceled) {
					t.Errorf("one that waited got %v", err)
				}
			})
		}
		synctest.Wait()
		if _, err := login(t, a, "one more", wrong); !errors.Is(err, auth.ErrBusy) {
			t.Errorf("got %v, want ErrBusy", err)
		}
		cancel()
		logins.Wait()
		release()
		if _, err := login(t, a, "one more", wrong); !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("got %v after the rush, want ErrUnauthenticated", err)
		}
	})
}

func TestAnUnknownNameCostsAHashUnlessItIsLetIn(t *testing.T) {
	a := open(t, &memory{})
	before := a.Hashes()
	if _, err := login(t, a, "who", wrong); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("got %v, want ErrUnauthenticated", err)
	}
	if got := a.Hashes() - before; got != 1 {
		t.Errorf("an unknown name took %d hashes, want 1", got)
	}
	_, err := a.Login(t.Context(), "who", wrong, "c", home, true)
	must(t, err)
	if got := a.Hashes() - before; got != 1 {
		t.Error("an anonymous client took a hash")
	}
}

func TestTheStoredPasswordIsArgon2id(t *testing.T) {
	store := &memory{}
	a, err := auth.Open(t.Context(), auth.Options{Store: store}) // at its real price
	must(t, err)
	defer a.Close(t.Context())
	addUser(t, a, "dev", right, false)
	want := `"$argon2id$v=19$m=19456,t=2,p=1$`
	if got := string(store.data["auth/user/dev"]); len(got) < 100 || got[len(`{"password":`):][:len(want)] != want {
		t.Errorf("stored %s", got)
	}
	if _, err := login(t, a, "dev", right); err != nil {
		t.Error(err)
	}
}

func TestAPrincipalEndsWithItsAccount(t *testing.T) {
	ctx := t.Context()
	for name, end := range map[string]func(*auth.Auth) error{
		"deleted":      func(a *auth.Auth) error { return a.DeleteUser(ctx, "dev") },
		"new password": func(a *auth.Auth) error { return a.UpdateUser(ctx, auth.UserSpec{Username: "dev", Password: wrong}) },
		"demoted":      func(a *auth.Auth) error { return a.UpdateUser(ctx, auth.UserSpec{Username: "dev"}) },
		"made again": func(a *auth.Auth) error {
			return errors.Join(a.DeleteUser(ctx, "dev"), a.AddUser(ctx, auth.UserSpec{Username: "dev", Password: right}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := open(t, &memory{})
			addUser(t, a, "dev", right, true)
			addKey(t, a, auth.KeySpec{Role: "administrator"}) // the user is not the last one
			p, err := login(t, a, "dev", right)
			must(t, err)
			if !a.Valid(p) || !a.Allow(p, auth.Manage, auth.Server) {
				t.Fatal("the principal has no rights to begin with")
			}
			must(t, end(a))
			if a.Valid(p) || a.Allow(p, auth.Publish, topic("a")) || a.Allow(p, auth.Manage, auth.Server) {
				t.Error("the principal outlived its account")
			}
		})
	}
}

func TestUsersAreChecked(t *testing.T) {
	ctx := t.Context()
	a := open(t, &memory{})
	addUser(t, a, "dev", right, false)
	var invalid *auth.InvalidError
	for _, s := range []auth.UserSpec{
		{Username: "", Password: right},
		{Username: "a\nb", Password: right},
		{Username: "\xff", Password: right},
		{Username: string(make([]byte, 257)), Password: right},
	} {
		if err := a.AddUser(ctx, s); !errors.As(err, &invalid) || invalid.Field != "username" {
			t.Errorf("%q: got %v, want an invalid username", s.Username, err)
		}
	}
	if err := a.AddUser(ctx, auth.UserSpec{Username: "dev", Password: right}); !errors.Is(err, auth.ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	if err := a.DeleteUser(ctx, "who"); !errors.Is(err, auth.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if err := a.UpdateUser(ctx, auth.UserSpec{Username: "who"}); !errors.Is(err, auth.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if a.HasAdministrator() {
		t.Error("there is no administrator yet")
	}
	must(t, a.UpdateUser(ctx, auth.UserSpec{Username: "dev", Superuser: true}))
	if !a.HasAdministrator() {
		t.Error("a superuser is an administrator")
	}
	if _, err := login(t, a, "dev", right); err != nil {
		t.Errorf("an update without a password changed it: %v", err)
	}
}
