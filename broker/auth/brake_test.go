package auth_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker/auth"
)

// delay tells how long the next password is refused, 0 if it was looked at.
func delay(t *testing.T, a *auth.Auth, name, password, addr string) time.Duration {
	t.Helper()
	_, err := a.Login(t.Context(), name, password, "c", addr, false)
	var d *auth.DelayedError
	switch {
	case errors.As(err, &d):
		if !errors.Is(err, auth.ErrUnauthenticated) {
			t.Error("a delay is not ErrUnauthenticated")
		}
		return d.Retry
	case err != nil && !errors.Is(err, auth.ErrUnauthenticated):
		t.Fatal(err)
	}
	return 0
}

func TestWrongPasswordsDelayTheNextOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, &memory{})
		addUser(t, a, "dev", right, false)
		for i := range 10 {
			if d := delay(t, a, "dev", wrong, home); d != 0 {
				t.Fatalf("attempt %d was delayed by %v", i+1, d)
			}
		}
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			want *= time.Second
			if d := delay(t, a, "dev", right, home); d != want {
				t.Fatalf("delayed by %v, want %v, also for the right password", d, want)
			}
			<-time.After(want)
			if d := delay(t, a, "dev", wrong, home); d != 0 {
				t.Fatalf("still delayed by %v after %v", d, want)
			}
		}
		for _, other := range []struct{ name, addr string }{{"dev", "10.0.0.2:1"}, {"ops", home}} {
			if d := delay(t, a, other.name, wrong, other.addr); d != 0 {
				t.Errorf("%v feels the delay of another pair", other)
			}
		}
		<-time.After(time.Minute)
		if _, err := login(t, a, "dev", right); err != nil {
			t.Errorf("the right password in time gives %v", err)
		}
		if d := delay(t, a, "dev", wrong, home); d != 0 {
			t.Error("the right password did not forgive")
		}
		if d := delay(t, a, "dev", wrong, home); d != 0 {
			t.Error("the right password did not forgive")
		}
	})
}

func TestSlowMistakesAreNoGuessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, &memory{})
		addUser(t, a, "dev", right, false)
		for range 50 {
			if d := delay(t, a, "dev", wrong, home); d != 0 {
				t.Fatalf("delayed by %v", d)
			}
			<-time.After(34 * time.Second) // 9 in 5 minutes
		}
	})
}

func TestAnAddressHasAHundredMistakesAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, &memory{})
		addUser(t, a, "dev", right, false)
		id, secret := addKey(t, a, auth.KeySpec{})
		for i := range 100 {
			if d := delay(t, a, fmt.Sprint("u", i), wrong, fmt.Sprintf("[2001:db8::%x]:99", i)); d != 0 {
				t.Fatalf("attempt %d was delayed by %v", i+1, d)
			}
		}
		if d := delay(t, a, "dev", right, "2001:db8::ffff:ffff"); d != time.Minute {
			t.Errorf("delayed by %v, want a minute", d)
		}
		if _, err := a.Login(t.Context(), id, secret, "c", "2001:db8::1", false); err != nil {
			t.Errorf("a key felt the brake: %v", err)
		}
		if _, err := a.Login(t.Context(), "who", "", "c", "2001:db8::1", true); err != nil {
			t.Errorf("an anonymous client felt the brake: %v", err)
		}
		<-time.After(time.Minute)
		if d := delay(t, a, "dev", right, "2001:db8::1"); d != 0 {
			t.Errorf("still delayed by %v", d)
		}
	})
}

func TestGuessesSentAllAtOnceGainNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, &memory{})
		addUser(t, a, "dev", right, false)
		before := a.Hashes()
		release := auth.HoldHashing(t, a)
		var guesses sync.WaitGroup
		for i := range 90 {
			guesses.Go(func() { delay(t, a, "dev", fmt.Sprint("guess number ", i), home) })
		}
		synctest.Wait()
		release()
		guesses.Wait()
		if got := a.Hashes() - before; got > 11 { // two run at once, one may overshoot
			t.Errorf("%d of 90 guesses were looked at, want at most 11", got)
		}
	})
}

func TestAKeyThatSharesAUsersNameFeelsNoBrake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, &memory{})
		addUser(t, a, "dev", right, false)
		_, secret := addKey(t, a, auth.KeySpec{ID: "dev"})
		for range 30 {
			p, err := login(t, a, "dev", secret)
			if err != nil || p.Kind != auth.Key {
				t.Fatalf("got %v, %v", p, err)
			}
		}
		if d := delay(t, a, "dev", wrong, home); d != 0 {
			t.Errorf("the key's logins were counted as wrong passwords: %v", d)
		}
		for range 12 {
			delay(t, a, "dev", wrong, home)
		}
		if _, err := login(t, a, "dev", secret); err != nil {
			t.Errorf("the key felt the user's brake: %v", err)
		}
	})
}

func TestTheCountersAreBounded(t *testing.T) {
	a := open(t, &memory{})
	for i := range auth.MaxCounters + 1000 {
		auth.CountFailure(a, "dev", fmt.Sprintf("10.%d.%d.1", i>>8, i&255))
	}
	pairs, addrs := auth.BrakeCounters(a)
	if pairs != auth.MaxCounters || addrs != auth.MaxCounters {
		t.Errorf("%d pairs and %d addresses are counted, want %d", pairs, addrs, auth.MaxCounters)
	}
	auth.CountFailure(a, strings.Repeat("long", 1<<16), strings.Repeat("pipe", 1<<16))
}

func TestAddressesAreHosts(t *testing.T) {
	for remote, want := range map[string]string{
		"10.0.0.1:4711":       "10.0.0.1",
		"10.0.0.1":            "10.0.0.1",
		"[::ffff:10.0.0.1]:5": "10.0.0.1",
		"[2001:db8::1]:5":     "2001:db8::/64",
		"2001:db8::2":         "2001:db8::/64",
		"[fe80::1%eth0]:5":    "fe80::/64",
		"pipe":                "pipe",
		"":                    "",
	} {
		if got := auth.Address(remote); got != want {
			t.Errorf("%q: got %q, want %q", remote, got, want)
		}
	}
}
