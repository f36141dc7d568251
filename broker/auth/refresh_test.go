package auth_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"millrace/broker/auth"
)

func TestTheDirectPredecessorIsGoodForTenSeconds(t *testing.T) {
	ctx := t.Context()
	for name, restart := range map[string]bool{"same process": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			c, store := newClock(), &memory{}
			a := withUser(t, store, at(c))
			first := issued(t, a, "dev", fast)
			second, err := a.Refresh(ctx, "one", first.Refresh)
			must(t, err)
			if second.Refresh == first.Refresh || second.Access == first.Access {
				t.Fatal("nothing rotated")
			}
			if restart {
				a = open(t, store, at(c))
			}
			c.advance(10*time.Second - 1)
			again, err := a.Refresh(ctx, "one", first.Refresh)
			must(t, err)
			if again != second {
				t.Error("the same question has another answer")
			}
			accepted(t, a, "one", again.Access)
			c.advance(time.Hour)
			if _, err := a.Refresh(ctx, "one", again.Refresh); err != nil {
				t.Errorf("the login did not live on: %v", err)
			}
		})
	}
}

func TestAnOlderRefreshTokenEndsTheLogin(t *testing.T) {
	ctx := t.Context()
	for name, wait := range map[string]struct {
		rotations int
		wait      time.Duration
	}{"predecessor after 10 s": {1, 10 * time.Second}, "older at once": {2, 0}} {
		t.Run(name, func(t *testing.T) {
			c, store, log := newClock(), &memory{}, &lines{}
			a := withUser(t, store, at(c), func(o *auth.Options) { o.Audit = log })
			stolen := issued(t, a, "dev", fast)
			other := issued(t, a, "dev", fast)
			now := stolen
			for range wait.rotations {
				var err error
				now, err = a.Refresh(ctx, "one", now.Refresh)
				must(t, err)
			}
			c.advance(wait.wait)
			refusedRefresh(t, a, "one", stolen.Refresh, "reuse")
			log.want(t, `"who":"user:dev"`, `"what":"token family ended"`, `"reason":"refresh token used again"`)
			refusedRefresh(t, a, "one", now.Refresh, "the family has ended")
			refusedToken(t, a, "one", now.Access, "the family has ended")
			accepted(t, a, "one", other.Access)
			a = open(t, store, at(c))
			refusedRefresh(t, a, "one", now.Refresh, "also after a restart")
		})
	}
}

func TestTwoThatRefreshAtTheSameMomentAreBothAnswered(t *testing.T) {
	a := withUser(t, &memory{})
	tokens := issued(t, a, "dev", fast)
	var both sync.WaitGroup
	var answers [8]auth.Tokens
	for i := range answers {
		both.Go(func() {
			var err error
			if answers[i], err = a.Refresh(t.Context(), "one", tokens.Refresh); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	for _, got := range answers {
		if got != answers[0] {
			t.Error("the answers differ, so one of them would end the login later")
		}
	}
	if _, err := a.Refresh(t.Context(), "one", answers[0].Refresh); err != nil {
		t.Errorf("the login did not live on: %v", err)
	}
}

// chain is a login as the oracle sees it.
type chain struct {
	tokens  []auth.Tokens // as handed out
	rotated time.Time     // when the last one was
	began   time.Time
	ended   bool

	otherKey bool // signs since then
}

// takes says whether token i is answered, and whether the chain ends by it.
func (c *chain) takes(i int, now time.Time, idle, absolute time.Duration) (ok, ends bool) {
	last := len(c.tokens) - 1
	switch {
	case c.ended || !now.Before(c.rotated.Add(idle)) || !now.Before(c.began.Add(absolute)):
		return false, false
	case i == last || i == last-1 && now.Sub(c.rotated) < 10*time.Second:
		return true, false
	}
	return false, true
}

func TestRefreshTokensBehaveAsInTheOracle(t *testing.T) {
	const idle, absolute = time.Hour, 3 * time.Hour
	grant := auth.Grant{Audience: []string{"one"}, Access: time.Minute, Idle: idle, Absolute: absolute}
	steps := []time.Duration{0, time.Second, 9 * time.Second, 10 * time.Second, 5 * time.Minute, 40 * time.Minute, 2 * time.Hour}
	rapid.Check(t, func(r *rapid.T) {
		clock, store := newClock(), &memory{}
		a := withUser(t, store, at(clock))
		chains := []*chain{}
		login := func() {
			now := clock.Now()
			chains = append(chains, &chain{tokens: []auth.Tokens{issued(t, a, "dev", grant)}, rotated: now, began: now})
		}
		login()
		for range rapid.IntRange(1, 25).Draw(r, "operations") {
			clock.advance(rapid.SampledFrom(steps).Draw(r, "wait"))
			c := chains[rapid.IntRange(0, len(chains)-1).Draw(r, "login")]
			now := clock.Now()
			switch rapid.IntRange(0, 11).Draw(r, "operation") {
			case 0:
				login()
			case 1:
				must(t, a.RotateSigningKey(t.Context()))
				for _, c := range chains {
					c.otherKey = true
				}
			case 2:
				if err := a.RevokeUser(t.Context(), "dev"); err != nil {
					r.Fatal(err)
				}
				for _, c := range chains {
					c.ended = true
				}
			default:
				i := max(0, len(c.tokens)-1-rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2}).Draw(r, "age"))
				ok, ends := c.takes(i, now, idle, absolute)
				got, err := a.Refresh(t.Context(), "one", c.tokens[i].Refresh)
				if (err == nil) != ok || err != nil && !errors.Is(err, auth.ErrUnauthenticated) {
					r.Fatalf("token %d of %d, rotated %v ago: got %v, want accepted %v", i, len(c.tokens), now.Sub(c.rotated), err, ok)
				}
				c.ended = c.ended || ends
				switch {
				case ok && i == len(c.tokens)-1:
					c.tokens, c.rotated, c.otherKey = append(c.tokens, got), now, false
				case ok && got != c.tokens[i+1] && !c.otherKey:
					r.Fatal("the predecessor has another answer")
				case ok:
					c.tokens[i+1] = got // the same, or signed anew
				}
			}
		}
		for n, c := range chains {
			dead := c.ended || !clock.Now().Before(c.rotated.Add(idle)) || !clock.Now().Before(c.began.Add(absolute))
			last := c.tokens[len(c.tokens)-1]
			_, err := a.Refresh(t.Context(), "one", last.Refresh)
			if (err != nil) != dead {
				r.Fatal(fmt.Sprint("login ", n, ": dead ", dead, ", got ", err))
			}
		}
	})
}

func TestALoginEndsWhenIdleAndAtItsEnd(t *testing.T) {
	c := newClock()
	a := withUser(t, &memory{}, at(c))
	idle := issued(t, a, "dev", fast)
	used := issued(t, a, "dev", fast)
	for range 4 {
		c.advance(7*24*time.Hour - time.Second)
		var err error
		used, err = a.Refresh(t.Context(), "one", used.Refresh)
		must(t, err)
	}
	if _, err := a.Refresh(t.Context(), "one", idle.Refresh); !errors.Is(err, auth.ErrExpired) {
		t.Errorf("idle for a month: %v", err)
	}
	if end := used.RefreshExpires.Sub(c.Now()); end > 2*24*time.Hour+time.Minute {
		t.Errorf("a token after 28 days lives %v longer", end)
	}
	c.advance(2*24*time.Hour + 5*time.Second)
	if _, err := a.Refresh(t.Context(), "one", used.Refresh); !errors.Is(err, auth.ErrExpired) {
		t.Errorf("after 30 days: %v", err)
	}
}
