package broker

import (
	"cmp"
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"sync"
	"time"

	"millrace/broker/auth"
)

// MemberIdle is how long a Member that nobody asks for anything stays.
const MemberIdle = 5 * time.Minute

// memberTick is how often leases of members are extended: often enough for
// ConsumerLease.
const memberTick = 20 * time.Second

// maxMembers bounds the members of all subscriptions together.
const maxMembers = 10_000

// Member is a consumer of a subscription that lives longer than a request and
// not as long as the process. It keeps the leases of what it received until
// that is acknowledged, by whoever, or until it leaves or is idle too long;
// then they are given back. Only the principal that made it may use it.
type Member struct {
	b     *Broker
	key   memberKey
	from  Source
	owner string
	Name  string
	Note  []byte // of the door that made it

	gone context.Context //nolint:containedctx // ends its receives when it leaves
	end  context.CancelFunc

	mu   sync.Mutex // protects what follows
	held map[Offset]lease
	busy int // receives under way
	used time.Time
	left bool
}

// lease is a message that a member was given.
type lease struct {
	Ref
	until int64
}

// memberKey is a member's id within its subscription.
type memberKey struct {
	target Target
	id     string
}

// ID names the member.
func (m *Member) ID() string { return m.key.id }

// members are all that there are.
type members struct {
	b    *Broker
	wake chan struct{}
	stop context.CancelFunc
	done sync.WaitGroup

	mu sync.Mutex // protects by
	by map[memberKey]*Member
}

// JoinOptions describe a new Member.
type JoinOptions struct {
	ID   string // of a member that may still be there, and is returned then
	Name string // unique within the subscription; "" = none
	Note []byte
}

// Join makes a member of a subscription, or finds the one that o names. Errors:
// Forbidden, NotFound, Conflict (ConsumerSubject) when another one has the name,
// Full.
func (b *Broker) Join(ctx context.Context, stream, subscription string, o JoinOptions) (*Member, error) {
	from, err := b.FromSubscription(ctx, stream, subscription)
	if err != nil {
		return nil, err
	}
	if b.closed.Load() {
		return nil, errClosed
	}
	owner := auth.From(ctx).String()
	m := &Member{b: b, key: memberKey{from.q.target, rand.Text()}, from: from, owner: owner, Name: o.Name, Note: o.Note}
	m.held, m.used = map[Offset]lease{}, b.Now()
	if old := b.members.find(memberKey{from.q.target, o.ID}, owner); old != nil {
		return old, nil
	}
	ms := &b.members
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if o.Name != "" && ms.named(m.key.target, o.Name) {
		return nil, errorf(Conflict, ConsumerSubject, "subscription %q has a consumer named %q already", subscription, o.Name)
	}
	if len(ms.by) >= maxMembers {
		return nil, errorf(Full, NoSubject, "there are %d consumers, which is the limit; delete some, or wait until idle ones end", maxMembers)
	}
	m.gone, m.end = context.WithCancel(context.Background())
	ms.by[m.key] = m
	select {
	case ms.wake <- struct{}{}:
	default:
	}
	return m, nil
}

// named reports whether a subscription has a member of that name; mu is held.
func (ms *members) named(t Target, name string) bool {
	for k, m := range ms.by {
		if k.target == t && m.Name == name {
			return true
		}
	}
	return false
}

// Member finds a member. Errors: Forbidden, NotFound (also of ConsumerSubject).
func (b *Broker) Member(ctx context.Context, stream, subscription, id string) (*Member, error) {
	from, err := b.FromSubscription(ctx, stream, subscription)
	if err != nil {
		return nil, err
	}
	m := b.members.find(memberKey{from.q.target, id}, auth.From(ctx).String())
	if m == nil {
		return nil, noMember(id)
	}
	return m, nil
}

// find returns the member of an owner, and notes that it is in use.
func (ms *members) find(k memberKey, owner string) *Member {
	ms.mu.Lock()
	m := ms.by[k]
	ms.mu.Unlock()
	if m == nil || m.owner != owner || !m.touch() {
		return nil
	}
	return m
}

func noMember(id string) error {
	return errorf(NotFound, ConsumerSubject, "there is no consumer %q: it left, was idle for %v, or the broker started anew", id, MemberIdle)
}

// touch notes that the member is in use, if it has not left.
func (m *Member) touch() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used = m.b.Now()
	return !m.left
}

// Receive is Source.Receive; the leases last as long as the member, unless the
// subscription says otherwise (MQTTLease). Their receipts are good as ever. Errors
// as there, and NotFound when the member leaves meanwhile.
func (m *Member) Receive(ctx context.Context, o ReceiveOptions) ([]Received, error) {
	if o.Lease = m.from.q.config().MQTTLease; o.Lease == 0 {
		o.Lease = ConsumerLease
	}
	m.mu.Lock()
	m.busy++
	m.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(m.gone, cancel) //nolint:contextcheck // the member's own end, not the caller's
	got, err := m.from.Receive(ctx, o)
	stop()
	cancel()
	m.mu.Lock()
	m.busy--
	m.used = m.b.Now()
	left := m.left
	for i := range got {
		if !left {
			m.held[Offset{got[i].Partition, got[i].Offset}] = lease{got[i].Ref, got[i].Until}
		}
	}
	m.mu.Unlock()
	if left {
		m.b.GiveBack(got) //nolint:contextcheck // it must happen although the caller may have gone
		return nil, noMember(m.key.id)
	}
	return got, err
}

// Nack gives messages that the member holds back after d, or after the
// subscription's back-off if d is Backoff, and answers which it held.
func (m *Member) Nack(ctx context.Context, d time.Duration, offsets ...Offset) ([]Offset, error) {
	if d != Backoff && (d < 0 || d > maxLease) {
		return nil, fieldError("delay_seconds", "is %v; it must be 0 to %v", d.Seconds(), maxLease.Seconds())
	}
	var known []Offset
	c := newCommit()
	m.mu.Lock()
	for _, o := range offsets {
		l, ok := m.held[o]
		if !ok {
			continue
		}
		delete(m.held, o)
		delay := d
		if d == Backoff {
			delay = m.from.q.config().backoff(l.Attempt)
		}
		known = append(known, o)
		c.Defer(l.Ref, m.b.Now().Add(delay), true)
		c.End()
	}
	m.mu.Unlock()
	if len(known) == 0 {
		c.release()
		return nil, nil
	}
	if err := c.submit(ctx, m.b.store); err != nil {
		return nil, storeError(err)
	}
	defer c.release()
	back := known[:0]
	for i, o := range known {
		switch err := c.Units[i].Result.Err; {
		case err == nil:
			back = append(back, o)
		case !isGone(err) && err != ErrStale: //nolint:errorlint // a store returns it bare
			return nil, storeError(err)
		}
	}
	return back, nil
}

// GiveBack is Broker.GiveBack of what the member received.
func (m *Member) GiveBack(got []Received) {
	m.forget(got)
	m.b.GiveBack(got)
}

// HandBack is Broker.HandBack of what the member received.
func (m *Member) HandBack(got []Received) {
	m.forget(got)
	m.b.HandBack(got)
}

func (m *Member) forget(got []Received) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range got {
		delete(m.held, Offset{got[i].Partition, got[i].Offset})
	}
}

// Leave ends the member: its receives end, and what it holds is given back. It
// returns when others can have it.
func (m *Member) Leave(ctx context.Context) error {
	c := newCommit()
	if !m.leave(&c.Batch) {
		c.release()
		return noMember(m.key.id)
	}
	if len(c.Units) == 0 {
		c.release()
		return nil
	}
	if err := c.submit(ctx, m.b.store); err != nil {
		return storeError(err)
	}
	c.release() // what was settled meanwhile is gone: no matter
	return nil
}

// leave takes the member off the list and adds to b what gives back its
// messages, their attempts counted.
func (m *Member) leave(b *Batch) bool {
	ms := &m.b.members
	ms.mu.Lock()
	delete(ms.by, m.key)
	ms.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		return false
	}
	m.left = true
	m.end()
	for _, l := range m.held {
		b.Defer(l.Ref, m.b.Now(), true)
		b.End()
	}
	clear(m.held)
	return true
}

func (ms *members) start(b *Broker) {
	ctx, stop := context.WithCancel(context.Background())
	ms.b, ms.stop, ms.wake, ms.by = b, stop, make(chan struct{}, 1), map[memberKey]*Member{}
	ms.done.Go(func() { ms.run(ctx) })
}

// close ends the goroutine, and every member: what they hold is ready again.
func (ms *members) close(ctx context.Context) {
	ms.stop()
	ms.done.Wait()
	c := newCommit()
	for _, m := range ms.all() {
		m.leave(&c.Batch)
	}
	if len(c.Units) == 0 || c.submit(ctx, ms.b.store) == nil {
		c.release()
	}
}

func (ms *members) all() []*Member {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	return slices.SortedFunc(maps.Values(ms.by), func(x, y *Member) int { return cmp.Compare(x.key.id, y.key.id) })
}

// run sleeps while there is no member.
func (ms *members) run(ctx context.Context) {
	tick := time.NewTimer(memberTick)
	tick.Stop()
	defer tick.Stop()
	ticking := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ms.wake:
		case <-tick.C:
			ticking = false
			ms.tick(ctx)
		}
		if !ticking && len(ms.all()) > 0 {
			ticking = true
			tick.Reset(memberTick)
		}
	}
}

// tick ends the members that were idle for too long, and those of subscriptions
// that are gone, and extends the leases of the others.
func (ms *members) tick(ctx context.Context) {
	for _, m := range ms.all() {
		c := newCommit()
		at, stay := m.extend(&c.Batch)
		if !stay {
			m.leave(&c.Batch)
		}
		if len(c.Units) == 0 {
			c.release()
			continue
		}
		if c.submit(ctx, ms.b.store) != nil {
			return // the broker closes, and the batch is the store's
		}
		m.settled(at, c)
		c.release()
	}
}

// extend adds to b what extends the leases of m, and returns of which; stay is
// false if m has to leave.
func (m *Member) extend(b *Batch) (at []extended, stay bool) {
	now, fixed := m.b.Now(), m.from.q.config().MQTTLease > 0
	there := m.b.byTarget(m.key.target) != nil
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy == 0 && now.Sub(m.used) >= MemberIdle || !there {
		return nil, false
	}
	for o, l := range m.held {
		if !fixed {
			b.Defer(l.Ref, now.Add(ConsumerLease), false)
			b.End()
			at = append(at, extended{o, l.Ref})
		} else if l.until <= now.UnixMilli() {
			delete(m.held, o)
		}
	}
	return at, true
}

// extended is a message whose lease is to be extended.
type extended struct {
	at  Offset
	ref Ref
}

// settled forgets what somebody acknowledged, or has now.
func (m *Member) settled(at []extended, c *commit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, x := range at {
		err := c.Units[i].Result.Err
		if (isGone(err) || err == ErrStale) && m.held[x.at].Ref == x.ref { //nolint:errorlint // a store returns it bare
			delete(m.held, x.at)
		}
	}
}
