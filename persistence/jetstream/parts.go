package jetstream

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/tidwall/btree"

	"millrace/broker"
	"millrace/router"
)

// parts is what a queue knows of the topics of its messages while consumers take
// parts of it (Wait.Filter), and only then. What was there before is read once;
// what comes is told by its publish. It is under the queue's lock.
//
// The consumer of JetStream knows no topics, so the node leases such a message
// itself (entry.picked), and puts it off when JetStream hands it out all the same.
type parts struct {
	of      map[string]*part // by filter
	tree    router.Tree[*part]
	looking bool
	timer   *time.Timer // forgets parts that nobody asks for
}

// part is what a filter selects.
type part struct {
	filter string
	ready  btree.Map[uint64, *entry] // what may be ready, by sequence
	next   uint64                    // what is before was looked at
	whole  bool                      // everything was
	used   bool                      // since parts were forgotten last
}

const (
	// partIdle is how long a part is kept at least that nobody asks for.
	partIdle = 5 * time.Minute
	// lookMax is how long a receive of a part that does not wait may take until
	// what is there was looked through.
	lookMax = 30 * time.Second
)

// partFor returns what a filter selects, from now on if nobody asked before.
func (q *queue) partFor(filter string) *part {
	ps := q.parts
	if ps == nil {
		ps = &parts{of: map[string]*part{}}
		ps.timer = time.AfterFunc(partIdle, q.tidy)
		q.parts = ps
	}
	p := ps.of[filter]
	if p == nil {
		p = &part{filter: strings.Clone(filter)}
		ps.of[p.filter] = p
		ps.tree.Insert(p.filter, p)
		q.look()
	}
	p.used = true
	return p
}

// tidy forgets the parts that nobody asked for since the last time.
func (q *queue) tidy() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.dropped {
		return
	}
	for _, x := range q.waits {
		if x.part != nil {
			x.part.used = true
		}
	}
	for filter, p := range q.parts.of {
		if !p.used {
			delete(q.parts.of, filter)
			q.parts.tree.Remove(filter, p)
		}
		p.used = false
	}
	if len(q.parts.of) > 0 {
		q.parts.timer.Reset(partIdle)
		return
	}
	q.parts = nil
	for _, e := range q.entries {
		e.topic = ""
	}
}

// topicOf notes the topic of e, while it matters.
func (q *queue) topicOf(e *entry, m *broker.Message) {
	if q.parts != nil {
		e.topic = strings.Clone(m.Topic)
	}
}

// offer gives a message that is ready to the parts that it belongs to, and reports
// whether there are any.
func (q *queue) offer(e *entry) bool {
	if q.parts == nil || e.topic == "" {
		return false
	}
	list := q.parts.tree.Match(e.topic, nil)
	for _, p := range list {
		p.ready.Set(e.seq, e)
	}
	return len(list) > 0
}

// withdraw takes a message that leaves out of its parts.
func (q *queue) withdraw(e *entry) {
	if q.parts == nil || e.topic == "" {
		return
	}
	for _, p := range q.parts.tree.Match(e.topic, nil) {
		p.ready.Delete(e.seq)
	}
}

// found has the parts know a message that is in the stream.
func (q *queue) found(seq uint64, d *broker.Delivery, z size) bool {
	if q.parts == nil || !q.parts.tree.HasMatch(d.Topic) {
		return false
	}
	e := q.entries[seq]
	switch {
	case e != nil:
		q.topicOf(e, &d.Message)
		return (e.state == back || e.state == unclaimed) && q.offer(e)
	case q.gone.has(seq), seq <= q.delivered && (seq > q.before || q.unknown == 0):
		return false // it left meanwhile
	}
	e = &entry{seq: seq, id: d.ID, queued: d.Queued, expires: d.Expires, size: z, key: q.keyOf(&d.Message)}
	q.topicOf(e, &d.Message)
	if seq <= q.delivered {
		q.met(e) // JetStream would only say so to somebody who takes the whole queue
	}
	return q.offer(e)
}

// announce tells the parts of a message that came.
func (q *queue) announce(seq uint64, m *broker.Message, z size) {
	if q.parts == nil {
		return
	}
	d := broker.Delivery{Message: *m, Queued: q.s.milli()}
	if q.found(seq, &d, z) {
		q.attendParts()
	}
}

// lookAtAll has the parts look at everything once more: a message may have come
// that nobody told of.
func (q *queue) lookAtAll() {
	if q.parts == nil {
		return
	}
	for _, p := range q.parts.of {
		p.next, p.whole = 0, false
	}
	q.look()
}

// look has what is in the stream looked through for the parts that do not have all
// of it yet, on one goroutine for the queue.
func (q *queue) look() {
	if q.parts.looking {
		return
	}
	q.parts.looking = true
	ps := q.parts
	q.s.spawn(func() {
		for q.lookOn(ps) {
		}
	})
}

// lookOn looks at some more messages, and reports whether there is more to do.
func (q *queue) lookOn(ps *parts) bool {
	q.mu.Lock()
	from, more := uint64(0), false
	for _, p := range ps.of {
		if !p.whole && (!more || p.next < from) {
			from, more = p.next, true
		}
	}
	more = more && q.parts == ps && !q.dropped
	ps.looking = more
	q.mu.Unlock()
	if !more {
		return false
	}
	list, err := q.next(q.s.ctx, max(from, 1))
	if err != nil {
		q.s.log.Warn().Err(err).Str("queue", q.definition().Def.Name).Msg("the topics of what waits cannot be read now; it is tried again")
		select {
		case <-time.After(4 * resendAfter):
		case <-q.s.ctx.Done():
			return false
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	end := from
	for _, m := range list {
		end = m.Seq + 1
		if d, err := q.delivery(m.Data, m.header, m.Time); err == nil { // one that cannot be read has no topic
			q.found(m.Seq, &d, sizeOf(&d.Message, m.Data))
		}
	}
	for _, p := range ps.of {
		if p.whole || p.next < from {
			continue
		}
		p.next = max(p.next, end)
		p.whole = err == nil && len(list) == 0
	}
	q.attendParts()
	return true
}

// next reads messages of the stream from a sequence on; none are there if it is
// empty.
func (q *queue) next(ctx context.Context, from uint64) ([]*stored, error) {
	list, err := q.s.batch(ctx, q.stream, from, readBatch)
	if err != nil || len(list) > 0 {
		return list, err
	}
	m, err := q.s.fetch(ctx, q.stream, getRequest{Seq: from, Next: q.subject}) // a replica may be behind
	if errors.Is(err, broker.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []*stored{m}, nil
}
