package broker

import (
	"bytes"
	"context"
	"errors"

	"millrace/router"
)

// sharedGroup is a shared subscription of which a durable session is a member,
// MQTT 5 section 4.8.2: what it matches in QoS 1 and 2 waits in a backlog of its
// own, also while all members are away, and the edge gives each message to one
// that is there. It ends with the last subscription to it of a durable session.
type sharedGroup struct {
	filter  string // with $share/GROUP/
	rest    string // without
	target  Target
	from    ID  // messages from here on are in the backlog
	members int // subscriptions of durable sessions
}

func (*sharedGroup) destination() {}

// groupTarget names the backlog of a shared subscription: no client id has a NUL.
func groupTarget(filter string) string { return "\x00" + filter }

// joinGroup counts one more durable member. The caller holds defining. Where other
// nodes are, members are not counted: a group is there as long as its backlog,
// which the leader removes some time after the last member.
func (b *Broker) joinGroup(ctx context.Context, filter string) error {
	if b.cluster != nil {
		_, err := b.store.Define(ctx, b.sessionDef(groupTarget(filter))) // told to all nodes, also when it was there
		return storeError(err)
	}
	if g := b.groupNamed(filter); g != nil {
		g.members++
		return nil
	}
	t, err := b.store.Define(ctx, b.sessionDef(groupTarget(filter)))
	if err != nil {
		return storeError(err)
	}
	b.bindGroup(filter, t, 1)
	return nil
}

// bindGroup lets the filter of a group feed its backlog.
func (b *Broker) bindGroup(filter string, t Target, members int) {
	_, rest, _, _ := router.Shared(filter)
	g := &sharedGroup{filter: filter, rest: rest, target: t, from: b.ids.next(b.Now()), members: members}
	b.tree.Insert(rest, g)
	b.mu.Lock()
	b.groups[filter] = g
	b.mu.Unlock()
}

// unbindGroup is the reverse.
func (b *Broker) unbindGroup(filter string) {
	g := b.groupNamed(filter)
	if g == nil {
		return
	}
	b.tree.Remove(g.rest, g)
	b.mu.Lock()
	delete(b.groups, filter)
	b.mu.Unlock()
}

// keepGroups makes the backlogs of shared subscriptions again that were removed
// while these were recorded.
func (b *Broker) keepGroups(ctx context.Context, changes []sessionPut) error {
	if b.cluster == nil {
		return nil
	}
	for _, c := range changes {
		_, _, filter := splitSessionKey(c.key)
		if c.value == nil || router.SpaceOf(filter) != router.SpaceShare || b.groupNamed(filter) != nil {
			continue
		}
		if err := b.joinGroup(ctx, filter); err != nil {
			return err
		}
	}
	return nil
}

// leaveGroup counts one less; the last one ends the group.
func (b *Broker) leaveGroup(ctx context.Context, filter string) error {
	if b.cluster != nil {
		b.sessions.suspect(groupTarget(filter))
		return nil
	}
	b.defining.Lock()
	defer b.defining.Unlock()
	g := b.groupNamed(filter)
	if g == nil {
		return nil
	}
	if g.members--; g.members > 0 {
		return nil
	}
	b.unbindGroup(filter)
	return storeError(b.store.Drop(ctx, g.target))
}

func (b *Broker) groupNamed(filter string) *sharedGroup {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.groups[filter]
}

// restoreGroup brings a group back whose members were read: what an earlier
// process had given to them is ready again.
func (b *Broker) restoreGroup(ctx context.Context, filter string, members int, d Definition) error {
	for {
		ds, err := b.store.Read(ctx, d.Target, Pos{States: Leased}, 256, nil)
		if err != nil || len(ds) == 0 {
			b.bindGroup(filter, d.Target, members)
			return errors.Join(err, b.adjustSession(ctx, d))
		}
		c := newCommit()
		for i := range ds {
			c.Defer(ds[i].Ref, b.Now(), true)
		}
		if err := c.store(ctx, b.store, Lazy); err != nil {
			return err
		}
	}
}

// SharedConsumer opens a consumer of what waits for the members of a shared
// subscription; nil if it is of clean sessions only. A message that inBacklog
// says is there must not be given to a member because of a live subscription.
func (b *Broker) SharedConsumer(filter string, sink ConsumerSink) (c *Consumer, inBacklog func(*Message) bool) {
	g := b.groupNamed(filter)
	if g == nil {
		return nil, nil
	}
	c = b.newConsumer(g.target, nil, sink)
	c.shared = b.cluster != nil
	return c, func(m *Message) bool {
		return m.QoS > 0 && bytes.Compare(m.ID[:], g.from[:]) >= 0
	}
}

// Share adds a shared subscription to the session, and is recorded by Commit.
func (s *Session) Share(ctx context.Context, filter string, o SubscriptionOptions) error {
	s.mu.Lock()
	_, known := s.find(filter)
	s.mu.Unlock()
	if !known {
		s.b.defining.Lock()
		err := s.b.joinGroup(ctx, filter)
		s.b.defining.Unlock()
		if err != nil {
			return err
		}
	}
	s.Remember(filter, o)
	return nil
}
