package jetstream

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

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

// Parts of a Hold: how often it is renewed, and how long without that a node that
// shares the prefix goes on writing. Its key lasts for an hour at the usual Hold, which
// servers that are full may take to get room.
const (
	renewEvery = 0.3
	fenceAfter = 0.6
	sharedHold = 720
)

// membership is our hold on the prefix. Two nodes on one would both think that
// they know what is leased, so the second is refused.
type membership struct {
	s       *Store
	value   []byte
	ttl     time.Duration
	rev     uint64
	epoch   uint64 // revision of the key that each joining node writes
	renewed atomic.Pointer[time.Time]
	gone    time.Time       // since when the bucket of the key is seen to be gone
	ctx     context.Context // of the renewal
	stop    context.CancelFunc
	ended   chan struct{} // it has
}

// join takes the prefix, waiting for a node that died to be forgotten, unless nodes
// share it.
func (s *Store) join(ctx context.Context) (*membership, error) {
	value, err := json.Marshal(member{s.o.Node, time.Now().UTC()})
	if err != nil {
		return nil, err
	}
	m := &membership{s: s, value: value, ttl: s.o.Hold, ended: make(chan struct{})}
	m.ctx, m.stop = context.WithCancel(s.ctx)
	over := broker.RevNone
	if s.o.Shared {
		m.ttl *= sharedHold
		over = cmp.Or(s.o.Over, over)
	}
	for end := time.Now().Add(s.o.Hold + 2*time.Second); ; {
		at := time.Now()
		m.rev, err = s.node.hold(ctx, memberKey, value, over, m.ttl)
		m.renewed.Store(&at)
		if !errors.Is(err, broker.ErrConflict) {
			break
		}
		if _, held := s.node.get(memberKey); held && s.o.Shared || time.Now().After(end) {
			return nil, s.taken(ctx)
		}
		select {
		case <-time.After(resendAfter):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := s.node.look(ctx, memberKey); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, fmt.Errorf("taking the nats prefix %q: %w", s.o.Prefix, err)
	}
	if s.o.Shared {
		s.calls.fence(m.fresh)
	}
	if m.epoch, err = s.node.set(ctx, epochKey, value, 0); err != nil {
		return nil, fmt.Errorf("taking the nats prefix %q: %w", s.o.Prefix, err)
	}
	s.spawn(m.renew)
	return m, nil
}

// fresh reports whether the hold was renewed lately: nobody gave this node up.
func (m *membership) fresh() bool {
	return time.Since(*m.renewed.Load()) < time.Duration(float64(m.s.o.Hold)*fenceAfter)
}

// Renewed is when the hold on the prefix was renewed last.
func (s *Store) Renewed() time.Time { return *s.own.renewed.Load() }

// taken words that another node is there.
func (s *Store) taken(ctx context.Context) error {
	who := member{Node: "another"}
	if m, err := s.fetch(ctx, s.node.stream, getRequest{Last: s.node.subject + memberKey}); err == nil {
		_ = json.Unmarshal(m.Data, &who) // it only names the other
	}
	return &openError{ErrInUse, fmt.Errorf("millrace node %q uses the nats prefix %q since %s: stop it, or take another prefix with --nats-prefix",
		who.Node, s.o.Prefix, who.Since.Format(time.RFC3339))}
}

// Dial opens a connection to the servers of o as a Store does, for a node that works
// on a prefix that another one holds. It waits until ctx ends.
func Dial(ctx context.Context, o Options) (*nats.Conn, error) {
	if err := o.complete(); err != nil {
		return nil, &openError{ErrUnfit, err}
	}
	return connect(ctx, &o, o.Creds)
}

// Holder asks which node holds the prefix of o now, and by which revision, which
// changes whenever the node says that it still does; "" = none does.
func Holder(ctx context.Context, nc *nats.Conn, o *Options) (string, uint64, error) {
	n := names{cmp.Or(o.Prefix, defaultPrefix)}
	ask, err := json.Marshal(getRequest{Last: n.bucketSubject("node") + memberKey})
	if err != nil {
		return "", 0, err
	}
	answer, err := nc.RequestWithContext(ctx, o.api()+"STREAM.MSG.GET."+n.bucketStream("node"), ask)
	if err != nil {
		return "", 0, err
	}
	var have struct {
		Message *stored `json:"message"`
	}
	err = parseAPI(answer.Data, &have)
	if e, ok := errors.AsType[*apiError](err); ok && (e.ErrCode == errNoMessage || e.ErrCode == errNoStream) {
		return "", 0, nil
	}
	if err != nil || have.Message == nil {
		return "", 0, fmt.Errorf("who holds the nats prefix %q: %w", n.prefix, cmp.Or(err, broker.ErrUnknown))
	}
	if err := have.Message.parse(n.bucketStream("node")); err != nil {
		return "", 0, err
	}
	if have.Message.header.Get(headerKV) != "" {
		return "", 0, nil
	}
	var who member
	err = json.Unmarshal(have.Message.Data, &who)
	return who.Node, have.Message.Seq, err
}

// Token returns name as one level of a subject.
func Token(name string) string {
	encoded, _ := encodeKey(name)
	return encoded
}

// renew keeps the key until the store closes. Servers that are full refuse that, to
// others as well, so nobody takes the key from a node that hears it: the hold lasts
// while they say so. What was acknowledged can be removed there, which makes room.
func (m *membership) renew() {
	defer close(m.ended)
	tick := time.NewTicker(time.Duration(float64(m.s.o.Hold) * renewEvery))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-m.ctx.Done():
			return
		}
		if m.s.failed.Load() != nil { // another one had it, and may have given it up since
			return
		}
		at := time.Now()
		rev, err := m.s.node.hold(m.ctx, memberKey, m.value, m.rev, m.ttl)
		if errors.Is(err, broker.ErrConflict) {
			rev, err = m.rejoin()
		}
		if err == nil {
			m.rev = rev
		}
		if err == nil || errors.Is(err, broker.ErrFull) {
			m.renewed.Store(&at)
		}
		m.look(err)
	}
}

// look ends the store if its hold was not renewed, as err says, because the bucket of it is
// gone: nobody could take it, and this node can do nothing without.
func (m *membership) look(err error) {
	if err == nil || m.fresh() {
		m.gone = time.Time{}
		return
	}
	marks := m.s.marks
	at, err := marks.ask(m.ctx, m.s.node.water)
	switch {
	case err != nil || !at.Made.IsZero():
		m.gone = time.Time{}
	case m.gone.IsZero() && marks.patience() > 0:
		m.gone = time.Now()
	case time.Since(m.gone) >= marks.patience():
		m.s.fail(&lossError{&broker.Loss{Place: m.s.node.stream}})
	}
}

// rejoin takes the key again after a cut that was longer than it lasts, if nobody
// else had it meanwhile; else what we know is out of date, and others must not find the
// key in our hands. Who takes the key between our look at the epoch and our own try is
// there, or leaves its mark. It may be that only the answer to the last renewal was lost.
func (m *membership) rejoin() (uint64, error) {
	if err := m.s.node.look(m.ctx, memberKey); err != nil {
		return 0, err
	}
	if e, ok := m.s.node.get(memberKey); ok && bytes.Equal(e.Value, m.value) {
		return e.Rev, nil
	}
	epoch, err := m.s.fetch(m.ctx, m.s.node.stream, getRequest{Last: m.s.node.subject + epochKey})
	if err != nil && !errors.Is(err, broker.ErrNotFound) {
		return 0, err
	}
	rev, ours := uint64(0), err == nil && epoch.Seq == m.epoch
	if ours {
		rev, err = m.s.node.hold(m.ctx, memberKey, m.value, broker.RevNone, m.ttl)
		if ours = !errors.Is(err, broker.ErrConflict); ours {
			return rev, err
		}
	}
	m.s.fail(fmt.Errorf("another node took the nats prefix %q while this one was cut off: it must start again", m.s.o.Prefix))
	return 0, broker.ErrConflict
}

// leave gives the prefix up, if it is still ours.
func (m *membership) leave(ctx context.Context) error {
	m.stop()
	<-m.ended
	if m.s.failed.Load() != nil {
		return nil
	}
	if err := m.s.node.look(ctx, memberKey); err != nil {
		return err
	}
	e, held := m.s.node.get(memberKey)
	if !held || !bytes.Equal(e.Value, m.value) {
		return nil
	}
	_, err := m.s.node.set(ctx, memberKey, nil, e.Rev)
	if errors.Is(err, broker.ErrConflict) { // the last renewal was still on its way
		return fmt.Errorf("%w: %w", broker.ErrUnknown, err)
	}
	return err
}
