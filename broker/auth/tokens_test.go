package auth_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/broker/auth"
)

// clock is a time that stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func at(c *clock) func(*auth.Options) { return func(o *auth.Options) { o.Now = c.Now } }

var fast = auth.Grant{Audience: []string{"one", "two"}}

// issued is a user with tokens of the doors one and two, issued by one.
func issued(t testing.TB, a *auth.Auth, name string, g auth.Grant) auth.Tokens {
	t.Helper()
	p, err := a.LoginPassword(t.Context(), name, right, home)
	must(t, err)
	tokens, err := a.Issue(t.Context(), p, g)
	must(t, err)
	return tokens
}

func withUser(t testing.TB, store *memory, change ...func(*auth.Options)) *auth.Auth {
	t.Helper()
	a := open(t, store, change...)
	addUser(t, a, "dev", right, false)
	return a
}

func refusedToken(t *testing.T, a *auth.Auth, audience, token, why string) {
	t.Helper()
	if p, err := a.Access(t.Context(), audience, token); p != nil || !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("%s: got %v, %v, want ErrUnauthenticated", why, p, err)
	}
}

func refusedRefresh(t *testing.T, a *auth.Auth, audience, token, why string) {
	t.Helper()
	if got, err := a.Refresh(t.Context(), audience, token); got != (auth.Tokens{}) || !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("%s: got %v, %v, want ErrUnauthenticated", why, got, err)
	}
}

func accepted(t *testing.T, a *auth.Auth, audience, token string) *auth.Principal {
	t.Helper()
	p, err := a.Access(t.Context(), audience, token)
	if err != nil {
		t.Fatalf("access to %s: %v", audience, err)
	}
	return p
}

func TestTokensAreTakenByTheirAudience(t *testing.T) {
	a := open(t, &memory{})
	addUser(t, a, "dev", right, true)
	tokens := issued(t, a, "dev", fast)
	for range 2 { // verified, then remembered
		for _, door := range []string{"one", "two"} {
			p := accepted(t, a, door, tokens.Access)
			if p.String() != "user:dev" || p.Role != auth.Administrator || !a.Allow(p, auth.Manage, auth.Server) || p.ClientID != "" {
				t.Errorf("got %+v", p)
			}
		}
		refusedToken(t, a, "three", tokens.Access, "another door")
		refusedToken(t, a, "", tokens.Access, "no door")
	}
	refusedRefresh(t, a, "two", tokens.Refresh, "refresh by a door that did not issue")
	if _, err := a.Refresh(t.Context(), "one", tokens.Refresh); err != nil {
		t.Error(err)
	}
}

func TestATokenSaysWhatItMust(t *testing.T) {
	c := newClock()
	a := withUser(t, &memory{}, at(c))
	tokens := issued(t, a, "dev", fast)
	read := func(token string, part int) (m map[string]any) {
		b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[part])
		must(t, err)
		must(t, json.Unmarshal(b, &m))
		return m
	}
	kid, _ := auth.PublicKey(a)
	if diff := cmp.Diff(map[string]any{"alg": "EdDSA", "typ": "at+jwt", "kid": kid}, read(tokens.Access, 0)); diff != "" {
		t.Error(diff)
	}
	now := float64(c.now.Unix())
	access, refresh := read(tokens.Access, 1), read(tokens.Refresh, 1)
	for _, id := range []string{"jti", "sid", "ver"} {
		if access[id] == "" || access[id] == nil {
			t.Errorf("no %s", id)
		}
		delete(access, id)
	}
	want := map[string]any{"iss": "millrace", "aud": []any{"one", "two"}, "sub": "dev", "iat": now, "exp": now + 900}
	if diff := cmp.Diff(want, access); diff != "" {
		t.Error(diff)
	}
	if b, err := base64.RawURLEncoding.DecodeString(refresh["jti"].(string)); err != nil || len(b) != 32 {
		t.Errorf("the refresh token has a jti of %d bytes, %v", len(b), err)
	}
	if exp := refresh["exp"].(float64) - now; exp != 7*24*3600 {
		t.Errorf("the refresh token lives %v s", exp)
	}
	if !tokens.AccessExpires.Equal(c.now.Add(15*time.Minute)) || !tokens.RefreshExpires.Equal(c.now.Add(7*24*time.Hour)) {
		t.Errorf("told %+v", tokens.AccessExpires)
	}
}

func TestATokenEndsWithItsTime(t *testing.T) {
	c := newClock()
	a := withUser(t, &memory{}, at(c))
	for _, life := range []time.Duration{0, time.Second, time.Hour, 24 * time.Hour} {
		tokens := issued(t, a, "dev", auth.Grant{Audience: []string{"one"}, Access: life, NoRefresh: true})
		if tokens.Refresh != "" {
			t.Error("a refresh token nobody asked for")
		}
		c.advance(tokens.AccessExpires.Sub(c.Now()) + 59*time.Second)
		p := accepted(t, a, "one", tokens.Access)
		if !a.Valid(p) || !a.Allow(p, auth.Publish, topic("a")) {
			t.Error("ended too early")
		}
		c.advance(time.Second)
		if _, err := a.Access(t.Context(), "one", tokens.Access); !errors.Is(err, auth.ErrExpired) {
			t.Errorf("%v: got %v, want ErrExpired", life, err)
		}
		if a.Valid(p) || a.Allow(p, auth.Publish, topic("a")) || !p.Expires().Equal(c.Now()) {
			t.Error("the principal outlived its token")
		}
	}
}

func TestGrantsAreChecked(t *testing.T) {
	a := withUser(t, &memory{})
	addKey(t, a, auth.KeySpec{ID: "k", Secret: "sixteen-characters"})
	p, err := a.LoginPassword(t.Context(), "dev", right, home)
	must(t, err)
	door := []string{"one"}
	for want, g := range map[string]auth.Grant{
		"audience": {}, "audience ": {Audience: []string{""}}, "audience  ": {Audience: make([]string, 9)},
		"access": {Audience: door, Access: 24*time.Hour + 1}, "access ": {Audience: door, Access: -1},
		"absolute": {Audience: door, Absolute: 30*24*time.Hour + 1},
		"idle":     {Audience: door, Idle: 2 * time.Hour, Absolute: time.Hour}, "idle ": {Audience: door, Idle: -1},
	} {
		_, err := a.Issue(t.Context(), p, g)
		var invalid *auth.InvalidError
		if !errors.As(err, &invalid) || invalid.Field != strings.TrimSpace(want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	k, err := a.Key(t.Context(), "k", "sixteen-characters")
	must(t, err)
	byToken := accepted(t, a, "one", issued(t, a, "dev", fast).Access)
	for _, p := range []*auth.Principal{nil, k, byToken, {Kind: auth.User, Name: "dev"}} {
		var invalid *auth.InvalidError
		if _, err := a.Issue(t.Context(), p, fast); !errors.As(err, &invalid) {
			t.Errorf("%v got tokens, or %v", p, err)
		}
	}
	must(t, a.ChangeUser(t.Context(), "dev", auth.UserChange{Superuser: new(false)}))
	if _, err := a.Issue(t.Context(), p, fast); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("a principal of before gets %v", err)
	}
}

func TestWhatEndsTokens(t *testing.T) {
	ctx := t.Context()
	for name, c := range map[string]struct {
		end   func(a *auth.Auth, p *auth.Principal, refresh string) error
		other bool // another login of the same user lives on
	}{
		"logout":            {func(a *auth.Auth, p *auth.Principal, _ string) error { return a.Revoke(ctx, p) }, true},
		"logout by refresh": {func(a *auth.Auth, _ *auth.Principal, r string) error { return a.RevokeRefresh(ctx, "one", r) }, true},
		"everywhere":        {func(a *auth.Auth, _ *auth.Principal, _ string) error { return a.RevokeUser(ctx, "dev") }, false},
		"new password": {func(a *auth.Auth, _ *auth.Principal, _ string) error {
			return a.ChangeUser(ctx, "dev", auth.UserChange{Password: new(wrong)})
		}, false},
		"disabled": {func(a *auth.Auth, _ *auth.Principal, _ string) error {
			return a.ChangeUser(ctx, "dev", auth.UserChange{Disabled: new(true)})
		}, false},
		"disabled and enabled": {func(a *auth.Auth, _ *auth.Principal, _ string) error {
			return errors.Join(a.ChangeUser(ctx, "dev", auth.UserChange{Disabled: new(true)}), a.ChangeUser(ctx, "dev", auth.UserChange{Disabled: new(false)}))
		}, false},
		"deleted": {func(a *auth.Auth, _ *auth.Principal, _ string) error { return a.DeleteUser(ctx, "dev") }, false},
		"made again": {func(a *auth.Auth, _ *auth.Principal, _ string) error {
			return errors.Join(a.DeleteUser(ctx, "dev"), a.AddUser(ctx, auth.UserSpec{Username: "dev", Password: right}))
		}, false},
		"two rotations": {func(a *auth.Auth, _ *auth.Principal, _ string) error {
			return errors.Join(a.RotateSigningKey(ctx), a.RotateSigningKey(ctx))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			store := &memory{}
			a := withUser(t, store)
			one, two := issued(t, a, "dev", fast), issued(t, a, "dev", fast)
			p := accepted(t, a, "one", one.Access)
			accepted(t, a, "one", two.Access)
			must(t, c.end(a, p, one.Refresh))
			for range 2 { // in memory, and from the store
				refusedToken(t, a, "one", one.Access, "access")
				if name != "two rotations" {
					refusedRefresh(t, a, "one", one.Refresh, "refresh")
					if a.Valid(p) {
						t.Error("the principal outlived its token")
					}
				}
				if c.other {
					accepted(t, a, "one", two.Access)
				} else {
					refusedToken(t, a, "one", two.Access, "the other")
				}
				a = open(t, store)
			}
		})
	}
}

func TestOtherChangesGiveTokensTheRightsOfNow(t *testing.T) {
	ctx := t.Context()
	a := withUser(t, &memory{})
	tokens := issued(t, a, "dev", fast)
	must(t, a.ChangeUser(ctx, "dev", auth.UserChange{Superuser: new(true)}))
	if p := accepted(t, a, "one", tokens.Access); !p.Superuser {
		t.Error("the token has the rights of before")
	}
	mqtt, err := login(t, a, "dev", right)
	must(t, err)
	must(t, a.RevokeUser(ctx, "dev"))
	if !a.Valid(mqtt) {
		t.Error("the end of all tokens closed a connection that came with the password")
	}
}

func TestAUserHasABoundedNumberOfLogins(t *testing.T) {
	c, store := newClock(), &memory{}
	a := withUser(t, store, at(c), func(o *auth.Options) { o.Limits = auth.Limits{Logins: 5, LoginsPerUser: 3} })
	addUser(t, a, "ops", right, false)
	var all []auth.Tokens
	for range 3 {
		all = append(all, issued(t, a, "dev", fast))
		c.advance(time.Second)
	}
	_, err := a.Refresh(t.Context(), "one", all[0].Refresh) // now the second is idle longest
	must(t, err)
	issued(t, a, "dev", fast)
	accepted(t, a, "one", all[0].Access)
	refusedToken(t, a, "one", all[1].Access, "the one idle longest")
	accepted(t, a, "one", all[2].Access)

	issued(t, a, "ops", fast)
	issued(t, a, "ops", fast)
	p, err := a.LoginPassword(t.Context(), "ops", right, home)
	must(t, err)
	var full *auth.LimitError
	if _, err := a.Issue(t.Context(), p, fast); !errors.As(err, &full) || full.What != "logins" || full.Max != 5 {
		t.Errorf("the sixth of five logins: %v", err)
	}
	c.advance(8 * 24 * time.Hour)
	p, err = a.LoginPassword(t.Context(), "ops", right, home)
	must(t, err)
	if _, err := a.Issue(t.Context(), p, fast); err != nil {
		t.Errorf("dead logins take room: %v", err)
	}
	left := 0
	for key := range store.data {
		if strings.HasPrefix(key, "auth/login/") {
			left++
		}
	}
	if left != 1 {
		t.Errorf("%d logins are stored, want the new one", left)
	}
}

func TestRotationOverlapsByTheLongestAccessToken(t *testing.T) {
	ctx, c, store := t.Context(), newClock(), &memory{}
	a := withUser(t, store, at(c))
	short, long := issued(t, a, "dev", fast), issued(t, a, "dev", auth.Grant{Audience: []string{"one"}, Access: time.Hour})
	must(t, a.RotateSigningKey(ctx))
	if n := strings.Count(string(store.data["auth/signers"]), `"seed"`); n != 1 {
		t.Errorf("%d private keys are stored, want 1", n)
	}
	a = open(t, store, at(c))
	accepted(t, a, "one", short.Access)
	next, err := a.Refresh(ctx, "one", short.Refresh)
	must(t, err)
	accepted(t, a, "one", next.Access)
	c.advance(time.Hour)
	accepted(t, a, "one", long.Access)
	c.advance(time.Minute)
	refusedToken(t, a, "one", long.Access, "after the overlap")

	must(t, a.RotateSigningKey(ctx))
	must(t, a.RotateSigningKey(ctx))
	if _, err := a.Refresh(ctx, "one", next.Refresh); err != nil {
		t.Errorf("rotations ended a login: %v", err)
	}
	kid, _ := auth.PublicKey(a)
	c.advance(90 * 24 * time.Hour)
	issued(t, a, "dev", fast)
	if now, _ := auth.PublicKey(a); now == kid {
		t.Error("a key of 90 days still signs")
	}
}

func TestAStoreThatFailsGivesNoTokens(t *testing.T) {
	ctx, store := t.Context(), &memory{}
	a := withUser(t, store)
	tokens := issued(t, a, "dev", fast)
	p := accepted(t, a, "one", tokens.Access)
	mine, err := a.LoginPassword(ctx, "dev", right, home)
	must(t, err)
	store.fail = errors.New("disk is gone")
	if _, err := a.Issue(ctx, mine, fast); !errors.Is(err, store.fail) {
		t.Errorf("issue: %v", err)
	}
	if _, err := a.Refresh(ctx, "one", tokens.Refresh); !errors.Is(err, store.fail) {
		t.Errorf("refresh: %v", err)
	}
	if err := a.RotateSigningKey(ctx); !errors.Is(err, store.fail) {
		t.Errorf("rotate: %v", err)
	}
	if err := a.Revoke(ctx, p); !errors.Is(err, store.fail) {
		t.Errorf("revoke: %v", err)
	}
	refusedToken(t, a, "one", tokens.Access, "after a logout that could not be stored")
	store.fail = nil
}

func TestBearerTellsKeysFromTokens(t *testing.T) {
	a := withUser(t, &memory{})
	tokens := issued(t, a, "dev", fast)
	addKey(t, a, auth.KeySpec{ID: strings.Repeat("e", 64), Secret: "a.secret.of.sixteen"})
	addKey(t, a, auth.KeySpec{ID: "eyJ", Secret: "one.dot-and-letters"})
	for text, want := range map[string]string{
		tokens.Access: "user:dev", strings.Repeat("e", 64) + ".a.secret.of.sixteen": "key:" + strings.Repeat("e", 64),
		"eyJ.one.dot-and-letters": "key:eyJ", tokens.Refresh: "", "": "", "a.b.c": "",
	} {
		p, err := a.BearerOrAccess(t.Context(), "one", text)
		if err == nil {
			if p.String() != want {
				t.Errorf("%q is %s, want %s", text, p, want)
			}
		} else if want != "" || !errors.Is(err, auth.ErrUnauthenticated) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
