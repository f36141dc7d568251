package jetstream

import (
	"context"
	"encoding/hex"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tidwall/btree"

	"millrace/broker"
)

// Settings of the consumer of a queue.
const (
	consumerName = "c"
	ackWait      = 30 * time.Second // a lease of this length needs no message of its own
	maxPending   = 120_000
	maxWaiting   = 512
)

// queue is a stream of JetStream with one consumer, and what this node knows
// of its messages: those that it handed out or put aside (entries), those that
// are delayed or dead, which lie in streams of their own, and how many there are.
type queue struct {
	s       *Store
	id      broker.Target
	stream  string
	subject string
	acks    string // where acks go, up to the attempt
	water   *watermark
	inbox   string
	sub     *nats.Subscription

	mu      sync.Mutex
	def     broker.Def
	dropped bool
	begun   bool

	held    holding     // what the stream holds, and what is on its way there
	aside   holding     // the sum of scheduled and dead
	telling holding     // of held, what the broker is told of: it counts in no limit
	flying  int64       // of held, what is on its way
	full    []*entering // publishes that wait for room, in their order
	landed  *sync.Cond
	in      uint64
	out     [broker.Reasons]uint64
	counted uint64 // the start counted the stream up to it: no ledger told
	since   broker.Activity

	entries   map[uint64]*entry
	count     [states]int64
	unknown   int64  // leased before this process started: until they come again, or are settled
	delivered uint64 // no message above it was ever handed out
	before    uint64 // nor by an earlier start
	scheduled map[broker.ID]scheduled
	early     map[broker.ID]bool    // moved while their publish may be unanswered
	dead      map[uint64]*deadEntry // by sequence in the stream of the dead
	gone      recent                // sequences that left just now
	groups    map[string]*group     // keys in flight, of a queue with FIFO groups
	unclaimed btree.Map[uint64, taken]
	letting   bool   // what stays unclaimed is let go soon
	passing   int    // messages that go back, and whose place is not known yet
	parts     *parts // while consumers take parts of the queue
	doubts    doubts
	recount   recount
	last      uint64 // no publish under way stands below it

	waits   []*waiter
	pull    pull
	timer   *time.Timer // of the upkeep: expiries, the retention of the dead
	wake    int64       // when it fires, 0 if it does not
	oldest  int64       // no message that was never handed out was queued before
	expires timeHeap
	keeping bool // the upkeep runs
}

// size is what a message takes.
type size struct{ bytes, payload int64 }

// scheduled is a publish that is delayed.
type scheduled struct {
	size
	until int64
	seq   uint64 // in the stream of the delayed
}

// holding counts messages. Those that an earlier process left may take less than it says.
type holding struct {
	n int64
	size
}

func (h *holding) add(z size, by int64) {
	h.n += by
	h.bytes += by * z.bytes
	h.payload += by * z.payload
	if h.n == 0 {
		h.size = size{}
	}
}

// holding is what a stream says that it holds: no less than the bytes and the payload of
// its messages.
func (at *streamState) holding() holding {
	if at.Msgs == 0 {
		return holding{}
	}
	return holding{at.Msgs, size{at.Bytes, at.Bytes}}
}

// openQueue opens or makes the stream of a queue.
func (s *Store) openQueue(ctx context.Context, id broker.Target, d broker.Def) (*queue, error) {
	q := &queue{
		s: s, id: id, def: d, stream: s.names.queueStream(id), subject: s.names.queueSubject(id),
		inbox: nats.NewInbox(), entries: map[uint64]*entry{}, scheduled: map[broker.ID]scheduled{}, early: map[broker.ID]bool{}, dead: map[uint64]*deadEntry{},
		groups: map[string]*group{},
	}
	q.landed = sync.NewCond(&q.mu)
	q.water = s.marks.own(q.stream, q.subject, &d)
	q.acks = "$JS.ACK." + q.stream + "." + consumerName + "."
	c := jetstream.StreamConfig{
		Name: q.stream, Subjects: []string{q.subject}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
		Duplicates: dedupWindow, AllowDirect: true,
	}
	if d.Volatile {
		c.Storage, c.Replicas = jetstream.MemoryStorage, 1
	}
	if err := s.createStream(ctx, c); err != nil {
		return nil, err
	}
	if d.Volatile { // it keeps nothing when the process ends, and this is a new one
		if _, err := soon(ctx, func(ctx context.Context) (int, error) { return s.purge(ctx, q.stream, "") }); err != nil {
			return nil, err
		}
	}
	if _, err := s.createConsumer(ctx, q.stream, jetstream.ConsumerConfig{
		Durable: consumerName, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1,
		MaxAckPending: maxPending, MaxWaiting: maxWaiting,
	}); err != nil {
		return nil, err
	}
	clean, err := q.restore(ctx)
	if err != nil {
		return nil, err
	}
	at, err := soon(ctx, func(ctx context.Context) (consumerState, error) { return s.consumed(ctx, q.stream) })
	if err != nil {
		return nil, err
	}
	q.delivered, q.unknown = at.Delivered.Stream, max(at.Pending-q.handedOut(), 0)
	q.before, q.last = q.delivered, q.delivered
	if d.KeyedFIFO && !clean {
		if err := q.meet(ctx); err != nil {
			return nil, err
		}
		q.unknown = 0
	}
	if q.sub, err = s.nc.Subscribe(q.inbox, q.arrived); err != nil {
		return nil, err
	}
	return q, q.sub.SetPendingLimits(-1, -1)
}

func (q *queue) definition() broker.Definition {
	q.mu.Lock()
	defer q.mu.Unlock()
	return broker.Definition{Target: q.id, Def: q.def}
}

// alter implements target.
func (q *queue) alter(_ context.Context, d broker.Def) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.def = d
	for _, e := range q.entries {
		if end := q.endOfEntry(e); e.state.waits() && end != 0 {
			q.expires.push(end, e.seq)
		}
	}
	q.oldest = 0
	q.plan(q.s.milli())
	q.pump()
	return nil
}

// begin implements target.
func (q *queue) begin() {
	q.mu.Lock()
	q.begun = true
	now := q.s.milli()
	var held []uint64
	for _, e := range q.entries {
		switch e.state {
		case leased, delayed:
			e.arm(q)
		case heldBack:
			held = append(held, e.seq)
			e.arm(q)
		default: // JetStream hands it out
		}
	}
	q.plan(now)
	q.pump()
	q.mu.Unlock()
	for _, seq := range held {
		q.s.spawn(func() { q.retell(seq) })
	}
}

// drop implements target.
func (q *queue) drop(ctx context.Context) error {
	q.end(broker.ErrGone)
	_, dead := q.s.purge(ctx, q.s.names.deadStream(), q.s.names.deadOf(q.id))
	if dead != nil {
		return dead
	}
	if _, err := q.s.purge(ctx, q.s.names.delayStream(), q.s.names.scheduledOf(q.id)); err != nil {
		return err
	}
	if err := q.forget(ctx); err != nil {
		return err
	}
	return q.water.drop(ctx)
}

// end stops timers and ends the waits.
func (q *queue) end(why error) {
	q.mu.Lock()
	q.dropped = true
	waits := q.waits
	q.waits = nil
	q.landed.Broadcast()
	if q.timer != nil {
		q.timer.Stop()
	}
	if q.parts != nil {
		q.parts.timer.Stop()
	}
	for _, e := range q.entries {
		e.disarm()
	}
	q.letGo()
	q.mu.Unlock()
	_ = q.sub.Unsubscribe()
	for _, w := range waits {
		w.finish(q, why)
	}
}

// close implements target.
func (q *queue) close(ctx context.Context) error {
	q.end(broker.ErrClosed)
	return insist(ctx, q.save)
}

// msgID is what JetStream knows a message by.
func msgID(id broker.ID) string { return hex.EncodeToString(id[:]) }

// sizeOf returns what m takes.
func sizeOf(m *broker.Message, body []byte) size {
	return size{bytes: int64(len(body)), payload: int64(len(m.Payload))}
}

// end of the time of a message, 0 for never.
func (q *queue) endOf(m *broker.Message, queued int64) int64 {
	end := m.Expires
	if q.def.TTL > 0 {
		if t := queued + q.def.TTL.Milliseconds(); end == 0 || t < end {
			end = t
		}
	}
	return end
}

// leave books n messages of a size as gone for a reason.
func (q *queue) leave(why broker.Reason, n uint64) { q.out[why] += n }

// total is what counts in the limits of the queue.
func (q *queue) total() holding {
	h, a := q.held, q.aside
	return holding{h.n + a.n, size{h.bytes + a.bytes, h.payload + a.payload}}
}

// roomFor reports whether z fits.
func (q *queue) roomFor(z size) bool {
	t, not, d := q.total(), q.telling, &q.def
	over := func(limit, have, held, more int64) bool { return limit > 0 && have-held+more > limit }
	return !over(d.MaxMessages, t.n, not.n, 1) && !over(d.MaxBytes, t.bytes, not.bytes, z.bytes) && !over(d.MaxPayload, t.payload, not.payload, z.payload)
}

// couldFit reports whether z would fit if everything went that may be dropped.
func (q *queue) couldFit(z size) bool {
	var stay holding
	for _, e := range q.entries {
		if !e.state.waits() && e.state != heldBack {
			stay.add(e.size, 1)
		}
	}
	d := &q.def
	over := func(limit, have, more int64) bool { return limit > 0 && have+more > limit }
	return !over(d.MaxMessages, stay.n, 1) && !over(d.MaxBytes, stay.bytes, z.bytes) && !over(d.MaxPayload, stay.payload, z.payload)
}
