package broker

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"millrace/broker/fields"
	"millrace/router"
)

// What nodes ask and tell each other about interest.
const (
	kindInterest = "interest" // asked: changes, or a part of a copy
	kindDigest   = "digest"   // told: what should be there, or that it is not
)

const (
	interestTimeout = time.Second     // that SUBACK waits at most for other nodes
	interestAsk     = 2 * time.Second // for one answer of a peer
	interestBackOff = 20 * time.Millisecond
	digestInterval  = time.Second
	interestBytes   = 256 << 10 // of filters in one message
	interestLog     = 4096      // changes kept at least for who is behind
)

// wish is a filter of which this node wants live messages.
type wish struct {
	filter string // with $share/GROUP/
	zero   bool   // only those given out in QoS 0
}

// wanted is a wish and its subscriptions.
type wanted struct {
	count   int
	version uint64 // with which it came
}

// change is one step of the interest.
type change struct {
	wish
	count int // of subscriptions; 0 = none is left
}

// interest is what the live subscriptions of this node want. Each change makes a
// version, and every peer is asked to take the versions that it does not have,
// one message at a time: while it answers, the next changes gather. A peer that
// is new, or has lost its way, is given a copy of all.
type interest struct {
	ps *peers

	mu      sync.Mutex // protects what follows
	wishes  map[wish]*wanted
	version uint64
	log     []change // the last of it made version
	sum     uint64   // of hashes of the wishes
	copies  uint64   // made
	peers   []*peer
	waiters []waiter
}

// waiter waits until all peers have a version.
type waiter struct {
	version uint64
	reached chan struct{}
}

func (i *interest) init(ps *peers) {
	i.ps, i.wishes, i.version = ps, make(map[wish]*wanted), 1 // a peer that has nothing has 0
}

// wishOf is what a subscription with this filter wants; false where messages of
// other nodes do not come.
func wishOf(filter string, zero bool) (wish, bool) {
	rest, w := filter, wish{filter: filter, zero: zero}
	if _, r, shared, err := router.Shared(filter); shared && err == nil {
		rest, w.zero = r, false
	}
	space := router.SpaceOf(rest)
	return w, space == router.SpaceOpen || space == router.SpaceEvents
}

// counted is how many of n subscriptions with a wish others are told of: of shared ones
// all, for each is to have its part, else whether there is any.
func (w wish) counted(n int) int {
	if router.SpaceOf(w.filter) == router.SpaceShare {
		return n
	}
	return min(n, 1)
}

// add counts one subscription more, and returns the version that has its wish.
func (i *interest) add(w wish) uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	x := i.wishes[w]
	if x == nil {
		x = &wanted{version: i.version + 1}
		i.wishes[w] = x
	}
	x.count++
	i.change(w, x.count-1, x.count)
	return x.version
}

// drop counts one less.
func (i *interest) drop(w wish) {
	i.mu.Lock()
	defer i.mu.Unlock()
	x := i.wishes[w]
	if x.count--; x.count == 0 {
		delete(i.wishes, w)
	}
	i.change(w, x.count+1, x.count)
}

// change makes a version, if others are told of it. The caller holds mu.
func (i *interest) change(w wish, before, now int) {
	if before, now = w.counted(before), w.counted(now); before == now {
		return
	}
	i.version++
	i.sum ^= w.hash(before) ^ w.hash(now)
	if len(i.peers) == 0 {
		i.log = i.log[:0]
		return
	}
	if len(i.log) >= max(interestLog, len(i.wishes)) {
		i.trim()
	}
	i.log = append(i.log, change{w, now})
	for _, p := range i.peers {
		signal(p.news)
	}
}

// trim forgets the changes that all peers have, or else all of them: who is that
// far behind is better off with a copy. The caller holds mu.
func (i *interest) trim() {
	first := i.version - uint64(len(i.log)) // who has this one finds in the log what it lacks
	n := 0
	if least := i.least(); least > first {
		n = int(least - first)
	}
	if n < len(i.log)/2 {
		n = len(i.log)
	}
	i.log = slices.Delete(i.log, 0, n)
}

// least is the version that all peers have. The caller holds mu.
func (i *interest) least() uint64 {
	least := i.version
	for _, p := range i.peers {
		least = min(least, p.acked)
	}
	return least
}

// await returns when all peers have a version: what is published there from then
// on comes here. It gives up after a second, and says so.
func (i *interest) await(version uint64) {
	i.mu.Lock()
	if i.least() >= version {
		i.mu.Unlock()
		return
	}
	w := waiter{version, make(chan struct{})}
	i.waiters = append(i.waiters, w)
	i.mu.Unlock()
	timer := time.NewTimer(interestTimeout)
	defer timer.Stop()
	select {
	case <-w.reached:
	case <-timer.C:
		i.mu.Lock()
		defer i.mu.Unlock()
		i.waiters = slices.DeleteFunc(i.waiters, func(x waiter) bool { return x == w })
		for _, p := range i.peers {
			if p.acked < version && time.Since(p.warned) >= interestTimeout {
				p.warned = time.Now()
				i.ps.b.log.Warn().Str("node", p.node.Name).Dur("waited", interestTimeout).
					Msg("node has not taken a new subscription; what is published there is not delivered here until it does")
			}
		}
	}
}

// moved lets those go whose version has been reached. The caller holds mu.
func (i *interest) moved() {
	least := i.least()
	i.waiters = slices.DeleteFunc(i.waiters, func(w waiter) bool {
		if w.version <= least {
			close(w.reached)
		}
		return w.version <= least
	})
}

func (i *interest) enter(p *peer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.peers = append(i.peers, p)
	signal(p.news)
}

func (i *interest) leave(p *peer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.peers = slices.DeleteFunc(i.peers, func(x *peer) bool { return x == p })
	i.moved()
}

// has notes which version p has.
func (i *interest) has(p *peer, version uint64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	p.acked = version
	i.moved()
}

// signal sends on a channel of one, if it is empty.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// hash is the part of a wish in the sum of all, with how many want that; 0 where nobody
// does.
func (w wish) hash(count int) uint64 {
	if count == 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write(appendChange(nil, w, count)) // never fails
	return h.Sum64()
}

// Flags of a wish in a message.
const (
	wishZero = 1 << iota
	wishGone
	wishCount // how many want it follows; else it is one
)

func (w wish) flags(count int) (f byte) {
	if w.zero {
		f |= wishZero
	}
	switch {
	case count == 0:
		f |= wishGone
	case count > 1:
		f |= wishCount
	}
	return f
}

// Messages of kindInterest begin with interestFormat, the start of the sender,
// and one of these.
const (
	interestFormat  = 1
	interestChanges = 1 // then the version before, that behind, and changes
	interestCopy    = 2 // then the number of the copy, of the part, how many there are, the version, and wishes
)

func (i *interest) header(what byte) []byte {
	return append(binary.LittleEndian.AppendUint64([]byte{interestFormat}, i.ps.self.Start), what)
}

func appendChange(b []byte, w wish, count int) []byte {
	b = fields.AppendText(append(b, w.flags(count)), w.filter)
	if count > 1 {
		b = fields.AppendUints(b, uint64(count))
	}
	return b
}

// step is the next message for p, and the version that it has then; nil when it
// has all, or needs a copy.
func (i *interest) step(p *peer) (body []byte, to uint64, behind bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	first := i.version - uint64(len(i.log))
	switch {
	case p.acked == i.version:
		return nil, 0, false
	case p.acked == 0 || p.acked < first || p.acked > i.version:
		return nil, 0, true
	}
	var changes []byte
	to = p.acked
	for _, c := range i.log[p.acked-first:] {
		if to++; len(changes) > interestBytes {
			to--
			break
		}
		changes = appendChange(changes, c.wish, c.count)
	}
	body = fields.AppendUints(i.header(interestChanges), p.acked, to)
	return append(body, changes...), to, true
}

// copy is the whole interest in parts.
func (i *interest) copy() (parts [][]byte, version uint64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.copies++
	bodies := [][]byte{nil}
	for w, x := range i.wishes {
		last := &bodies[len(bodies)-1]
		if *last = appendChange(*last, w, w.counted(x.count)); len(*last) > interestBytes {
			bodies = append(bodies, nil)
		}
	}
	for n, b := range bodies {
		head := fields.AppendUints(i.header(interestCopy), i.copies, uint64(n), uint64(len(bodies)), i.version)
		parts = append(parts, append(head, b...))
	}
	return parts, i.version
}

// tellInterest keeps p told until it is gone.
func (p *peer) tellInterest(ctx context.Context) {
	// It may have known us before, when we parted from it and it did not notice.
	p.ps.cluster.Tell(p.node.Name, kindDigest, p.ps.interest.header(digestLost))
	tick := time.NewTicker(digestInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.news:
		case <-tick.C:
			p.ps.interest.tellDigest(p)
		}
		for wait := interestBackOff; !p.catchUp(ctx); wait = min(2*wait, digestInterval) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
	}
}

// catchUp tells p what it lacks. It is false when p did not take it.
func (p *peer) catchUp(ctx context.Context) bool {
	i := &p.ps.interest
	for {
		body, to, behind := i.step(p)
		switch {
		case !behind:
			return true
		case body == nil:
			if !p.giveCopy(ctx) {
				return false
			}
		default:
			has, err := p.ask(ctx, body)
			if err != nil {
				return false
			}
			if has > to { // it means another start, or another copy
				has = 0
			}
			i.has(p, has)
		}
	}
}

// giveCopy tells p all. It is false when p did not take it.
func (p *peer) giveCopy(ctx context.Context) bool {
	parts, version := p.ps.interest.copy()
	for n, body := range parts {
		if got, err := p.ask(ctx, body); err != nil || got != uint64(n+1) {
			return false
		}
	}
	p.ps.interest.has(p, version)
	return true
}

// ask asks p about interest; the answer is a number.
func (p *peer) ask(ctx context.Context, body []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, interestAsk)
	defer cancel()
	answer, err := p.ps.cluster.Ask(ctx, p.node.Name, kindInterest, body)
	if err != nil {
		return 0, err
	}
	r := fields.Reader{Rest: answer}
	n := r.Uint()
	if r.Bad {
		return 0, errCodec
	}
	return n, nil
}
