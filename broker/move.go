package broker

import (
	"context"
	"errors"
	"time"

	"millrace/broker/auth"
	"millrace/router"
)

// movePage is how many messages one commit of a move takes.
const movePage = 100

// Move says which messages of a queue go where.
type Move struct {
	States EntryState // Ready, Delayed, Dead or a union; leased messages are never moved
	To     string     // a topic; "" = back to where they came from
	Filter string     // of the topic they were first published to; "" = all
	Limit  int        // 0 = all there are
	Rate   float64    // messages per second; 0 = as fast as it goes
	DryRun bool       // count, and move nothing
}

// Moved says how many messages a Move found, and how many it moved.
type Moved struct{ Matched, Moved int }

// Move takes messages out of a queue and publishes them to a topic, or gives
// them back to where they came from: a dead letter to its origin queue, a
// parked message to its own, as new there, with its attempts forgotten. Each
// message is moved in one commit with its removal. What comes in meanwhile is
// not looked at twice. It ends early, with what it did and an error, when ctx
// ends or a target is full.
//
// Errors: Invalid, Forbidden, NotFound, Full.
func (b *Broker) Move(ctx context.Context, queue string, o Move) (Moved, error) {
	q, err := b.lookup(ctx, auth.Manage, queue)
	if err != nil {
		return Moved{}, err
	}
	if err := b.checkMove(ctx, &o); err != nil {
		return Moved{}, err
	}
	info, err := b.store.Info(ctx, q.target)
	if err != nil {
		return Moved{}, storeError(err)
	}
	m := mover{b: b, q: q, o: o, started: b.Now(), left: o.count(&info)}
	for m.left > 0 {
		if err := m.page(ctx); err != nil {
			return m.Moved, err
		}
	}
	if m.Moved.Moved > 0 {
		b.log.Info().Str("queue", queue).Str("to", o.To).Int("messages", m.Moved.Moved).Msg("messages moved")
	}
	return m.Moved, nil
}

func (b *Broker) checkMove(ctx context.Context, o *Move) error {
	if o.To != "" {
		if err := b.CheckTopic(o.To); err != nil {
			return err
		}
		if err := b.may(ctx, auth.Publish, auth.TopicResource(o.To)); err != nil {
			return err
		}
	}
	if o.Filter != "" {
		if err := b.CheckFilter(o.Filter); err != nil {
			return err
		}
	}
	switch {
	case o.Limit < 0:
		return fieldError("limit", "is %d; it must not be negative", o.Limit)
	case o.Rate < 0:
		return fieldError("rate", "is %v; it must not be negative", o.Rate)
	}
	return nil
}

// mover is a Move under way.
type mover struct {
	Moved
	b       *Broker
	q       *queue
	o       Move
	skip    int   // entries seen and left where they are
	left    int64 // entries to look at: as many as there were at the start
	started time.Time
}

// count is how many messages are in the states that o moves.
func (o *Move) count(i *Info) (n int64) {
	for s, c := range map[EntryState]int64{Ready: i.Ready, Delayed: i.Delayed, Dead: i.Dead} {
		if o.States&s != 0 {
			n += c
		}
	}
	return n
}

// page reads some entries and moves those that match.
func (m *mover) page(ctx context.Context) error {
	ds, err := m.b.store.Read(ctx, m.q.target, Pos{States: m.o.States, Skip: m.skip}, movePage, nil)
	if isGone(err) {
		return noQueue(m.q.config().Name)
	}
	if err != nil {
		return storeError(err)
	}
	if len(ds) == 0 {
		m.left = 0
	}
	c := newCommit()
	var units []int
	for i := range ds {
		if m.left--; m.left < 0 || m.o.Limit > 0 && m.Matched == m.o.Limit {
			m.left = 0
			break
		}
		if m.o.Filter != "" && !router.Match(m.o.Filter, originalTopic(&ds[i].Message)) {
			m.skip++
			continue
		}
		m.Matched++
		if m.o.DryRun || !m.unit(&c.Batch, &ds[i]) {
			m.skip++
			continue
		}
		units = append(units, c.End())
	}
	if len(units) == 0 {
		c.release()
		return nil
	}
	if err := m.pace(ctx, len(units)); err != nil {
		return err
	}
	if err := c.submit(ctx, m.b.store); err != nil {
		return storeError(err)
	}
	defer c.release()
	for _, u := range units {
		switch r := &c.Units[u].Result; {
		case r.Err == nil:
			m.Moved.Moved++
		case errors.Is(r.Err, ErrStale), errors.Is(r.Err, ErrGone): // a consumer was faster
		default:
			return m.b.publishError(&Message{}, r)
		}
	}
	return nil
}

// unit appends the publish and the removal of one message; it reports false
// when there is nowhere to go.
func (m *mover) unit(b *Batch, d *Delivery) bool {
	msg := d.Message
	var routes []Route
	if m.o.To != "" {
		msg.Topic, msg.Origins = m.o.To, nil
		now := m.b.Now()
		msg.ID, msg.Published = m.b.ids.next(now), now.UnixMilli()
		_, _, routes, _ = m.b.match(nil, &msg, clientsToo, nil, nil, nil)
	} else {
		home := m.home(&msg)
		if home == nil {
			return false
		}
		routes = []Route{{Target: home.target}}
	}
	if len(routes) == 0 {
		return false
	}
	msg.NotBefore, msg.DedupKey = 0, ""
	b.Publish(&msg, routes...)
	b.Settle(d.Ref, ReasonMoved)
	return true
}

// home finds the queue that a message came from, and makes msg again what it
// was there.
func (m *mover) home(msg *Message) *queue {
	n := len(msg.Origins)
	if m.o.States&Dead != 0 || n == 0 {
		return m.q
	}
	origin := m.b.queueNamed(msg.Origins[n-1])
	msg.Origins = msg.Origins[:n-1]
	own := len(msg.Properties) - deadProperties // the newest dead-lettering added its own behind
	for _, p := range msg.Properties[own:] {
		if p.Name == PropertyOriginalTopic {
			msg.Topic = p.Value
		}
	}
	msg.Properties = msg.Properties[:own]
	return origin
}

// pace waits until n more messages fit the rate.
func (m *mover) pace(ctx context.Context, n int) error {
	if m.o.Rate == 0 {
		return nil
	}
	due := m.started.Add(time.Duration(float64(m.Moved.Moved+n) / m.o.Rate * float64(time.Second)))
	t := time.NewTimer(due.Sub(m.b.Now()))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return gaveUp(ctx)
	}
}

// originalTopic is where a message was first published.
func originalTopic(m *Message) string {
	for _, p := range m.Properties {
		if p.Name == PropertyOriginalTopic && len(m.Origins) > 0 {
			return p.Value
		}
	}
	return m.Topic
}
