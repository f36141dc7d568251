package auth

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// The brake slows down who guesses passwords. It counts wrong passwords only,
// and delays nothing but further passwords of the same pair or address.
const (
	pairTries    = 10 // wrong passwords of one user name from one address
	pairWindow   = 5 * time.Minute
	firstDelay   = time.Second // doubles with each further wrong password
	longestDelay = time.Minute
	addrTries    = 100 // wrong passwords from one address
	addrWindow   = time.Minute
	maxCounters  = 16_384 // of each kind; beyond it the staler of a few goes
	evictFrom    = 16
)

type pair struct{ name, addr string }

// pairCount is what one pair did lately.
type pairCount struct {
	recent []time.Time // wrong ones in the window, while not braked
	last   time.Time
	level  int // how often it was delayed
	until  time.Time
}

func (c *pairCount) stale(now time.Time) bool { return now.Sub(c.last) >= pairWindow }
func (c *pairCount) since() time.Time         { return c.last }

func (c *pairCount) fail(now time.Time) {
	if c.stale(now) {
		*c = pairCount{}
	}
	c.last = now
	if c.level == 0 {
		for len(c.recent) > 0 && now.Sub(c.recent[0]) >= pairWindow {
			c.recent = c.recent[1:]
		}
		c.recent = append(c.recent, now)
		if len(c.recent) < pairTries {
			return
		}
		c.recent = nil
	}
	c.until = now.Add(min(firstDelay<<c.level, longestDelay))
	c.level = min(c.level+1, 6)
}

// addrCount is what one address did in the present window.
type addrCount struct {
	start time.Time
	tries int
}

func (c *addrCount) stale(now time.Time) bool { return now.Sub(c.start) >= addrWindow }
func (c *addrCount) since() time.Time         { return c.start }

type brake struct {
	mu    sync.Mutex
	pairs map[pair]*pairCount
	addrs map[string]*addrCount
}

func newBrake() *brake {
	return &brake{pairs: make(map[pair]*pairCount), addrs: make(map[string]*addrCount)}
}

// wait says how long the next password of name from addr is not looked at.
func (b *brake) wait(name, addr string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	var wait time.Duration
	if c := b.pairs[pair{clip(name), addr}]; c != nil {
		wait = c.until.Sub(now)
	}
	if c := b.addrs[addr]; c != nil && c.tries >= addrTries {
		wait = max(wait, c.start.Add(addrWindow).Sub(now))
	}
	return max(wait, 0)
}

// failed counts a wrong password.
func (b *brake) failed(name, addr string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	counter(b.pairs, pair{clip(name), addr}, now).fail(now)
	c := counter(b.addrs, addr, now)
	if c.stale(now) {
		*c = addrCount{start: now}
	}
	c.tries++
}

// passed forgives the pair, not the address.
func (b *brake) passed(name, addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.pairs, pair{clip(name), addr})
}

// counter returns the counter of k, making room for a new one.
func counter[K comparable, C any, P interface {
	*C
	stale(time.Time) bool
	since() time.Time
}](all map[K]P, k K, now time.Time) P {
	if c := all[k]; c != nil {
		return c
	}
	if len(all) >= maxCounters {
		var oldest K
		var at time.Time
		looked := 0
		for other, c := range all { // in random order
			if looked == 0 || c.since().Before(at) {
				oldest, at = other, c.since()
			}
			if looked++; looked == evictFrom || c.stale(now) {
				break
			}
		}
		delete(all, oldest)
	}
	c := P(new(C))
	all[k] = c
	return c
}

// clip bounds what a name costs to count; no user has a longer one.
func clip(name string) string {
	return name[:min(len(name), maxNameBytes+1)]
}

// address is what counts as one place: an IPv4 address, a /64 of IPv6, or
// whatever else the listener calls its peer.
func address(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host[:min(len(host), maxNameBytes)]
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	prefix, _ := ip.Prefix(64) // cannot fail for IPv6
	return prefix.String()
}
