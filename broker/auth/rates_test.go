package auth_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker/auth"
)

// metered runs f in fake time with rates in force.
func metered(t *testing.T, r auth.Rates, f func(t *testing.T, a *auth.Auth)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := open(t, &memory{}, func(o *auth.Options) { o.Rates = r })
		f(t, a)
		must(t, a.Close(t.Context()))
	})
}

func app(id string) *auth.Principal { return &auth.Principal{Kind: auth.Key, Name: id} }

// spend tries one of u after another until one is refused, and returns how
// many went and what refused.
func spend(t *testing.T, a *auth.Auth, p *auth.Principal, u auth.Usage) (n int, refused *auth.RateError) {
	t.Helper()
	for ; n < 1000; n++ {
		if err := a.Spend(t.Context(), p, u); err != nil {
			if !errors.As(err, &refused) {
				t.Fatal(err)
			}
			return n, refused
		}
	}
	return n, nil
}

func TestARateIsPerIdentityAndExactAtItsEdge(t *testing.T) {
	metered(t, auth.Rates{Requests: 5}, func(t *testing.T, a *auth.Auth) {
		one := auth.Usage{Requests: 1}
		p := app("a")
		n, e := spend(t, a, p, one)
		if n != 5 || e == nil || e.What != "requests" || e.Rate != 5 || e.Retry != 200*time.Millisecond {
			t.Fatalf("%d went, then %+v", n, e)
		}
		if n, _ := spend(t, a, app("a"), one); n != 0 { // another connection of the same
			t.Errorf("a second connection of the identity has %d more", n)
		}
		if n, _ := spend(t, a, app("b"), one); n != 5 {
			t.Errorf("another identity has %d", n)
		}
		<-time.After(e.Retry - time.Millisecond)
		if n, _ := spend(t, a, p, one); n != 0 {
			t.Errorf("%d went before the time that was told", n)
		}
		<-time.After(time.Millisecond)
		if n, _ := spend(t, a, p, one); n != 1 {
			t.Errorf("%d went after the time that was told", n)
		}
		<-time.After(time.Hour)
		if n, _ := spend(t, a, p, one); n != 5 {
			t.Errorf("an hour saved %d", n)
		}
		if n, _ := spend(t, a, p, auth.Usage{Messages: 1, Bytes: 1 << 30}); n != 1000 {
			t.Errorf("what has no rate was refused after %d", n)
		}
		if n, _ := spend(t, a, &auth.Principal{Kind: auth.System}, one); n != 1000 {
			t.Errorf("the broker itself was refused after %d", n)
		}
	})
}

func TestWhatIsLargerThanASecondIsPaidForAfterwards(t *testing.T) {
	metered(t, auth.Rates{Messages: 10, Bytes: 1000}, func(t *testing.T, a *auth.Auth) {
		p := app("a")
		must(t, a.Spend(t.Context(), p, auth.Usage{Messages: 50, Bytes: 100}))
		var e *auth.RateError
		if err := a.Spend(t.Context(), p, auth.Usage{Messages: 1}); !errors.As(err, &e) || (e.Retry-4100*time.Millisecond).Abs() > time.Microsecond {
			t.Errorf("got %v", err)
		}
		<-time.After(5 * time.Second)
		if err := a.Spend(t.Context(), p, auth.Usage{Messages: 1, Bytes: 5000}); err != nil {
			t.Error(err)
		}
		if err := a.Spend(t.Context(), p, auth.Usage{Messages: 1, Bytes: 1}); !errors.As(err, &e) || e.What != "bytes" {
			t.Errorf("got %v", err)
		}
		if err := a.Spend(auth.Unmetered(t.Context()), p, auth.Usage{Messages: 1, Bytes: 1}); err != nil {
			t.Errorf("unmetered: %v", err)
		}
	})
}

func TestAReservationTellsThePauseOrIsNone(t *testing.T) {
	metered(t, auth.Rates{Messages: 10}, func(t *testing.T, a *auth.Auth) {
		p, one := app("a"), auth.Usage{Messages: 1}
		for i := range 30 {
			want := time.Duration(max(0, i-9)) * 100 * time.Millisecond
			if pause, ok := a.Reserve(p, one, time.Minute); !ok || (pause-want).Abs() > time.Microsecond {
				t.Errorf("reservation %d: pause %v, %t, want %v", i, pause, ok, want)
			}
		}
		if pause, ok := a.Reserve(p, one, time.Second); ok {
			t.Errorf("a pause of %v is beyond the patience", pause)
		}
		<-time.After(2 * time.Second)
		if pause, ok := a.Reserve(p, one, time.Second); !ok || pause > 100*time.Millisecond {
			t.Errorf("pause %v, %t: what was not booked was paid for", pause, ok)
		}
	})
}

func TestAnonymousClientsAreMeteredByClientIDAndTheTableIsBounded(t *testing.T) {
	metered(t, auth.Rates{Messages: 1}, func(t *testing.T, a *auth.Auth) {
		for i := range auth.MaxMeters + 10 {
			p := &auth.Principal{Kind: auth.Anonymous, ClientID: fmt.Sprint(i)}
			must(t, a.Spend(t.Context(), p, auth.Usage{Messages: 1}))
		}
		if n := auth.Meters(a); n > auth.MaxMeters {
			t.Errorf("%d identities are counted", n)
		}
		<-time.After(time.Minute)
		must(t, a.Spend(t.Context(), app("late"), auth.Usage{Messages: 1}))
		if n := auth.Meters(a); n != 1 {
			t.Errorf("%d identities are counted when all but one are owed nothing", n)
		}
	})
}
