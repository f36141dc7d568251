package auth_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/broker/auth"
)

func ban(t *testing.T, a *auth.Auth, kind auth.BanKind, who string, until time.Time) {
	t.Helper()
	if _, err := a.AddBan(t.Context(), auth.Ban{Kind: kind, Who: who, Until: until}); err != nil {
		t.Fatalf("ban %s %s: %v", kind, who, err)
	}
}

func TestEachKindOfBanMeetsWhomItNames(t *testing.T) {
	for _, c := range []struct {
		kind               auth.BanKind
		who                string
		id, name, host     string
		otherID, otherName string
		otherHost          string
	}{
		{auth.BanClientID, "pump", "pump", "u", "10.0.0.1", "pump2", "pump", "10.0.0.1"},
		{auth.BanUsername, "ann", "c", "ann", "10.0.0.1", "ann", "Ann", "10.0.0.1"},
		{auth.BanHost, "10.0.0.1", "c", "u", "10.0.0.1", "c", "u", "10.0.0.2"},
		{auth.BanHost, "::ffff:10.0.0.1", "c", "u", "10.0.0.1", "c", "u", "10.0.0.10"},
		{auth.BanHost, "2001:db8::1", "c", "u", "2001:DB8:0::1", "c", "u", "2001:db8::2"},
		{auth.BanNetwork, "10.1.2.3/16", "c", "u", "10.1.255.1", "c", "u", "10.2.0.1"},
		{auth.BanNetwork, "2001:db8::/32", "c", "u", "2001:db8:1::7", "c", "u", "10.0.0.1"},
		{auth.BanClientIDMatch, "^meter-[0-9]+$", "meter-17", "u", "10.0.0.1", "meter-x", "meter-17", "10.0.0.1"},
		{auth.BanUsernameMatch, "guest", "c", "a guest here", "10.0.0.1", "guest", "", "10.0.0.1"},
	} {
		a := open(t, &memory{})
		ban(t, a, c.kind, c.who, time.Time{})
		if b, banned := a.Banned(c.id, c.name, c.host); !banned || b.Kind != c.kind {
			t.Errorf("%s %s does not meet %s %s %s", c.kind, c.who, c.id, c.name, c.host)
		}
		if _, banned := a.Banned(c.otherID, c.otherName, c.otherHost); banned {
			t.Errorf("%s %s meets %s %s %s", c.kind, c.who, c.otherID, c.otherName, c.otherHost)
		}
		if _, err := a.Login(t.Context(), c.name, "", c.id, "["+c.host+"]:1883", true); !errors.Is(err, auth.ErrBanned) {
			t.Errorf("%s %s: a login gave %v", c.kind, c.who, err)
		}
	}
}

func TestABanEndsSurvivesARestartAndCanBeLifted(t *testing.T) {
	store, now := &memory{}, time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := func(o *auth.Options) { o.Now = func() time.Time { return now } }
	a := open(t, store, clock)
	before, changed := a.Generation(), a.Changed()
	ban(t, a, auth.BanClientID, "short", now.Add(time.Minute))
	select {
	case <-changed:
	default:
		t.Error("a ban does not tell that something changed")
	}
	ban(t, a, auth.BanClientID, "long/with slash", time.Time{})
	if a.Generation() <= before {
		t.Error("the generation did not grow")
	}
	if _, err := a.AddBan(t.Context(), auth.Ban{Kind: auth.BanClientID, Who: "short"}); !errors.Is(err, auth.ErrExists) {
		t.Errorf("a second ban of one client: %v", err)
	}
	a = open(t, store, clock)
	if n := len(a.Bans()); n != 2 {
		t.Fatalf("%d bans after the restart, want 2", n)
	}
	now = now.Add(time.Minute)
	if _, banned := a.Banned("short", "", ""); banned {
		t.Error("the ban goes on after its end")
	}
	if diff := cmp.Diff("long/with slash", a.Bans()[0].Who); diff != "" || len(a.Bans()) != 1 {
		t.Errorf("bans %v", a.Bans())
	}
	ban(t, a, auth.BanClientID, "short", time.Time{}) // the one that is over is no obstacle
	for _, who := range []string{"long/with slash", "short"} {
		if err := a.RemoveBan(t.Context(), auth.BanClientID, who); err != nil {
			t.Errorf("lift the ban of %s: %v", who, err)
		}
		if err := a.RemoveBan(t.Context(), auth.BanClientID, who); !errors.Is(err, auth.ErrNotFound) {
			t.Errorf("lift it again: %v", err)
		}
	}
	if n := len(store.data); n != 0 {
		t.Errorf("%d records are left: %v", n, store.data)
	}
}

func TestBansThatCannotBeAreRefused(t *testing.T) {
	a := open(t, &memory{})
	var invalid *auth.InvalidError
	for _, b := range []auth.Ban{
		{Kind: "sourceport", Who: "x"},
		{Kind: auth.BanClientID},
		{Kind: auth.BanClientIDMatch, Who: "("},
		{Kind: auth.BanHost, Who: "10.0.0.0/8"},
		{Kind: auth.BanNetwork, Who: "10.0.0.1"},
		{Kind: auth.BanUsername, Who: "x", At: time.Now(), Until: time.Now().Add(-time.Hour)},
	} {
		if _, err := a.AddBan(t.Context(), b); !errors.As(err, &invalid) {
			t.Errorf("%+v: %v", b, err)
		}
	}
}

func TestThereIsALimitOfExpressionsInBans(t *testing.T) {
	a := open(t, &memory{})
	for i := range 1000 {
		ban(t, a, auth.BanClientIDMatch, fmt.Sprintf("^x%d$", i), time.Time{})
	}
	var limit *auth.LimitError
	if _, err := a.AddBan(t.Context(), auth.Ban{Kind: auth.BanNetwork, Who: "10.0.0.0/8"}); !errors.As(err, &limit) {
		t.Errorf("one more gave %v", err)
	}
	if err := a.RemoveBans(t.Context()); err != nil || len(a.Bans()) != 0 {
		t.Errorf("%v, %d bans are left", err, len(a.Bans()))
	}
}

func BenchmarkBannedAmongManyBans(b *testing.B) {
	a := open(b, &memory{})
	for i := range 10_000 {
		if _, err := a.AddBan(b.Context(), auth.Ban{Kind: auth.BanClientID, Who: fmt.Sprint("c", i)}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		a.Banned("nobody", "none", "192.0.2.7")
	}
}
