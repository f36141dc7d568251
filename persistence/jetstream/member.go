package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"millrace/broker"
)

// A node holds the prefix by a key that ends unless it is renewed.
const (
	memberKey = "member"
	epochKey  = "epoch"
)

// member is the value of the key.
type member struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since"`
}

// membership is our hold on the prefix. Two nodes on one would both think that
// they know what is leased, so the second is refused.
type membership struct {
	s     *Store
	value []byte
	rev   uint64
	epoch uint64 // revision of the key that each joining node writes
}

// join takes the prefix, waiting for a node that died to be forgotten.
func (s *Store) join(ctx context.Context) (*membership, error) {
	value, err := json.Marshal(member{s.o.Node, time.Now().UTC()})
	if err != nil {
		return nil, err
	}
	m := &membership{s: s, value: value}
	for end := time.Now().Add(s.o.Hold + 2*time.Second); ; {
		m.rev, err = s.node.set(ctx, memberKey, value, broker.RevNone, s.o.Hold)
		if !errors.Is(err, broker.ErrConflict) {
			break
		}
		if time.Now().After(end) {
			return nil, s.taken(ctx)
		}
		select {
		case <-time.After(resendAfter):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("taking the nats prefix %q: %w", s.o.Prefix, err)
	}
	if m.epoch, err = s.node.set(ctx, epochKey, value, 0, 0); err != nil {
		return nil, fmt.Errorf("taking the nats prefix %q: %w", s.o.Prefix, err)
	}
	s.spawn(m.renew)
	return m, nil
}

// taken words that another node is there.
func (s *Store) taken(ctx context.Context) error {
	who := member{Node: "another"}
	if m, err := s.fetch(ctx, s.node.stream, getRequest{Last: s.node.subject + memberKey}); err == nil {
		_ = json.Unmarshal(m.Data, &who) // it only names the other
	}
	return &openError{ErrInUse, fmt.Errorf("millrace node %q uses the nats prefix %q since %s: several nodes on one prefix are not possible yet; stop it, or take another prefix",
		who.Node, s.o.Prefix, who.Since.Format(time.RFC3339))}
}

// renew keeps the key until the store closes.
func (m *membership) renew() {
	tick := time.NewTicker(m.s.o.Hold * 3 / 10)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-m.s.ctx.Done():
			return
		}
		rev, err := m.s.node.set(m.s.ctx, memberKey, m.value, m.rev, m.s.o.Hold)
		if errors.Is(err, broker.ErrConflict) {
			rev, err = m.rejoin()
		}
		if err == nil {
			m.rev = rev
		}
	}
}

// rejoin takes the key again after a cut that was longer than it lasts, if
// nobody else had it meanwhile; else what we know is out of date.
func (m *membership) rejoin() (uint64, error) {
	rev, err := m.s.node.set(m.s.ctx, memberKey, m.value, broker.RevNone, m.s.o.Hold)
	if err != nil && !errors.Is(err, broker.ErrConflict) {
		return 0, err
	}
	epoch, fetched := m.s.fetch(m.s.ctx, m.s.node.stream, getRequest{Last: m.s.node.subject + epochKey})
	if fetched != nil && !errors.Is(fetched, broker.ErrNotFound) {
		return 0, fetched
	}
	if err != nil || fetched != nil || epoch.Seq != m.epoch {
		m.s.fail(fmt.Errorf("another node took the nats prefix %q while this one was cut off: it must start again", m.s.o.Prefix))
		return 0, broker.ErrConflict
	}
	return rev, nil
}

// leave gives the prefix up.
func (m *membership) leave(ctx context.Context) error {
	if m.s.failed.Load() != nil {
		return nil
	}
	_, err := m.s.node.set(ctx, memberKey, nil, 0, 0)
	return err
}
