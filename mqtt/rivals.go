package mqtt

import (
	"sync"
	"time"
)

const (
	// rivalGap is how soon one take-over comes after another where clients fight.
	rivalGap = 10 * time.Second
	// From then on each CONNECT with the id waits: twice as long at each
	// take-over, up to the most.
	rivalDelay    = 500 * time.Millisecond
	rivalMaxDelay = 8 * time.Second
	// rivalAlarm is how long an alarm stands after the last such take-over.
	rivalAlarm = time.Minute
	rivalText  = "clients fight for one client id, or one connects again without end: give each an id of its own"
	// maxHeld is how many wait for one id.
	maxHeld = 8
	// sweepRivals is how many ids are known before old ones are looked for.
	sweepRivals = 1024
)

// fight is what a take-over means for its client id.
type fight uint8

const (
	noFight fight = iota
	fightBegins
	fightGoesOn
)

// rivals brakes clients that fight for one id: each would take the other's
// place at once, as fast as they can connect. Everybody else feels nothing.
type rivals struct {
	from  int // Options.RivalsFrom
	mu    sync.Mutex
	by    map[string]*rival
	sweep int // at how many ids old ones are looked for
}

type rival struct {
	takeovers int // in a row
	delay     time.Duration
	last      time.Time
	held      int
}

// met counts a take-over of the id.
func (rs *rivals) met(id string, now time.Time) fight {
	if rs.from < 0 {
		return noFight
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.by == nil {
		rs.by, rs.sweep = map[string]*rival{}, sweepRivals
	}
	if len(rs.by) >= rs.sweep {
		rs.forget(now)
	}
	r := rs.by[id]
	if r == nil {
		r = &rival{}
		rs.by[id] = r
	}
	if now.Sub(r.last) > rivalGap+r.delay {
		r.takeovers, r.delay = 0, 0
	}
	r.last = now
	switch r.takeovers++; {
	case r.takeovers < rs.from:
		return noFight
	case r.takeovers == rs.from:
		r.delay = rivalDelay
		return fightBegins
	default:
		r.delay = min(2*r.delay, rivalMaxDelay)
		return fightGoesOn
	}
}

// forget drops ids that were quiet for a while.
func (rs *rivals) forget(now time.Time) {
	for id, r := range rs.by {
		if r.held == 0 && now.Sub(r.last) > rivalGap+r.delay {
			delete(rs.by, id)
		}
	}
	rs.sweep = max(sweepRivals, 2*len(rs.by))
}

// hold has a CONNECT wait whose id has rivals. One whose client leaves meanwhile takes
// nobody's place.
func (rs *rivals) hold(c *conn) *faultError {
	rs.mu.Lock()
	r := rs.by[c.hello.id]
	if r == nil || r.delay == 0 || time.Since(r.last) > rivalGap+r.delay {
		rs.mu.Unlock()
		return nil
	}
	if r.held >= maxHeld {
		rs.mu.Unlock()
		return &faultError{connectionRate, "too many connects with one client id", closeQuota}
	}
	r.held++
	delay := r.delay
	rs.mu.Unlock()
	err := c.stays(delay)
	rs.mu.Lock()
	r.held--
	rs.mu.Unlock()
	if err != nil {
		return leftEarly()
	}
	return nil
}
