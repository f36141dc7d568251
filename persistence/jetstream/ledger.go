package jetstream

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"millrace/broker"
)

// A queue's ledger is what JetStream does not know of it: why messages left, and
// who was given back without an attempt. It is written when the store closes. After
// a crash an older one is found: what came since is what the stream numbered, and what is
// not there left, which is booked as acked; what was leased counts as leased until
// JetStream hands it out again.
const (
	ledgerSettle = time.Second
	ledgerPart   = 2000 // entries in one key
)

// ledger is the value of a key.
type ledger struct {
	Clean   bool                   `json:"clean"` // entries were written too
	In      uint64                 `json:"in"`
	Out     [broker.Reasons]uint64 `json:"out"`
	Held    int64                  `json:"held"`
	Delayed uint64                 `json:"delayed"` // of In, what was not in the stream yet
	Last    uint64                 `json:"last"`    // of the stream; what it holds behind that came since
	Bytes   int64                  `json:"bytes"`
	Payload int64                  `json:"payload"`
	Parts   int                    `json:"parts"`
}

// line of a ledger: one entry.
type ledgerEntry struct {
	Seq      uint64        `json:"s"`
	Epoch    uint64        `json:"e,omitempty"`
	Tries    uint32        `json:"n,omitempty"`
	Returned uint32        `json:"r,omitempty"`
	ID       broker.ID     `json:"i"`
	State    state         `json:"t"`
	Until    int64         `json:"u,omitempty"`
	Queued   int64         `json:"q,omitempty"`
	Expires  int64         `json:"x,omitempty"`
	Why      broker.Reason `json:"w,omitempty"`
	Bytes    int64         `json:"b"`
	Payload  int64         `json:"p"`
	Picked   uint32        `json:"d,omitempty"`
	Key      string        `json:"k,omitempty"`
	Owner    bool          `json:"o,omitempty"` // of its key
}

func (q *queue) ledgerKey() string          { return fmt.Sprintf("queue %d", q.id) }
func (q *queue) ledgerPartKey(i int) string { return fmt.Sprintf("queue %d %d", q.id, i) }

// save writes the ledger.
func (q *queue) save(ctx context.Context) error {
	if q.s.failed.Load() != nil {
		return nil
	}
	q.mu.Lock()
	l := ledger{Clean: true, In: q.in, Out: q.out, Held: q.held.n, Delayed: uint64(len(q.scheduled)), Bytes: q.held.bytes, Payload: q.held.payload}
	var parts [][]ledgerEntry
	for _, e := range q.entries {
		if n := len(parts); n == 0 || len(parts[n-1]) == ledgerPart {
			parts = append(parts, nil)
		}
		n := len(parts) - 1
		parts[n] = append(parts[n], ledgerEntry{
			e.seq, e.epoch, e.tries, e.returned, e.id, e.state, e.until, e.queued, e.expires, e.why, e.size.bytes, e.size.payload,
			e.picked, e.key, e.key != "" && q.groups[e.key] != nil && q.groups[e.key].owner == e.seq,
		})
	}
	q.mu.Unlock()
	l.Parts = len(parts)
	for i, p := range parts {
		value, err := json.Marshal(p)
		if err != nil {
			return err
		}
		if _, err := q.s.node.set(ctx, q.ledgerPartKey(i), value, 0); err != nil {
			return err
		}
	}
	if err := q.write(ctx, l); err != nil {
		return err
	}
	return q.cutParts(ctx, l.Parts)
}

// cutParts removes what earlier ledgers left of parts from a number on.
func (q *queue) cutParts(ctx context.Context, from int) error {
	for i := from; ; i++ {
		key := q.ledgerPartKey(i)
		if _, there := q.s.node.get(key); !there {
			return nil
		}
		if _, err := q.s.node.set(ctx, key, nil, 0); err != nil {
			return err
		}
	}
}

func (q *queue) write(ctx context.Context, l ledger) error {
	value, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = q.s.node.set(ctx, q.ledgerKey(), value, 0)
	return err
}

// restore reads the ledger and compares it with the stream. It reports whether
// single messages were in it.
func (q *queue) restore(ctx context.Context) (clean bool, err error) {
	at, err := soon(ctx, func(ctx context.Context) (streamState, error) { return q.s.state(ctx, q.stream) })
	if err != nil {
		return false, err
	}
	var l ledger
	if e, ok := q.s.node.get(q.ledgerKey()); ok {
		if err := json.Unmarshal(e.Value, &l); err != nil {
			return false, fmt.Errorf("the ledger of queue %q: %w", q.def.Name, err)
		}
	}
	if q.def.Volatile {
		l = ledger{Last: at.Last}
	}
	q.in, q.out = l.In-l.Delayed, l.Out // balance adds those that are delayed now
	if l.Clean && q.water.fell {
		l.Clean, l.Parts, l.Last = false, 0, at.Last
	}
	if !l.Clean {
		q.held = at.holding()
		q.in += max(at.Last, l.Last) - l.Last
		q.counted = at.Last
		q.recount.until, q.recount.done = q.s.Now().Add(recountFor), !q.s.o.Shared || at.Last == 0
		return false, nil
	}
	q.recount.done = true
	q.held = holding{l.Held, size{l.Bytes, l.Payload}} // the stream follows acknowledgements a moment later
	for i := range l.Parts {
		if err := q.restorePart(i); err != nil {
			return false, err
		}
	}
	l.Clean, l.Parts, l.Last = false, 0, at.Last
	q.regroup()
	return true, q.write(ctx, l) // what follows is not in it
}

// balance ends a restore, once the delayed and the dead are known: what is not there any
// more left, and was acked as far as anybody knows. A crash may have left something in
// two places, and then it counts as two until one of them goes.
func (q *queue) balance() {
	q.in += uint64(len(q.scheduled))
	gone := int64(q.in) - q.total().n
	for _, n := range q.out {
		gone -= int64(n)
	}
	if gone < 0 {
		q.in += uint64(-gone)
	} else {
		q.leave(broker.ReasonAcked, uint64(gone))
	}
}

// regroup has those that were put off stand in line for their keys again.
func (q *queue) regroup() {
	for _, e := range q.entries {
		if g := q.groups[e.key]; e.state == blocked && g != nil {
			g.line.Insert(e.seq)
		} else if e.state == blocked {
			e.set(q, back) // nobody has its key
		}
	}
}

func (q *queue) restorePart(i int) error {
	e, ok := q.s.node.get(q.ledgerPartKey(i))
	if !ok {
		return fmt.Errorf("the ledger of queue %q has no part %d", q.def.Name, i)
	}
	var list []ledgerEntry
	if err := json.Unmarshal(e.Value, &list); err != nil {
		return fmt.Errorf("the ledger of queue %q: %w", q.def.Name, err)
	}
	for _, x := range list {
		if x.State == leaving {
			x.State = leased
		}
		e := &entry{
			seq: x.Seq, epoch: x.Epoch, tries: x.Tries, returned: x.Returned, picked: x.Picked, key: x.Key, id: x.ID, state: x.State,
			until: x.Until, queued: x.Queued, expires: x.Expires, why: x.Why, size: size{x.Bytes, x.Payload},
		}
		e.told = e.state == heldBack
		q.keep(e)
		if x.Owner {
			q.own(e)
		}
	}
	return nil
}

// forget removes the ledger of a queue that is dropped.
func (q *queue) forget(ctx context.Context) error {
	if _, err := q.s.node.set(ctx, q.ledgerKey(), nil, 0); err != nil {
		return err
	}
	return q.cutParts(ctx, 0)
}
