package jetstream

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
)

// pullFor is how long one request for messages waits at the servers. It is short
// because a request whose asker has gone cannot be withdrawn.
const (
	pullFor   = 5 * time.Second
	pullGuard = 2 * time.Second // without any answer for that much longer, it is lost
	pullMax   = 1000
	// askFor is how long a Wait that does not wait does so all the same while
	// messages are ready: JetStream hands out what it confirmed a moment later.
	askFor = 250 * time.Millisecond
	// moreFor is how long a Wait that has some of what it asked for waits for the
	// rest while more is ready, for the same reason.
	moreFor = 20 * time.Millisecond
)

// pull is the request for messages that is under way: one for each queue, for
// all its waits together, because a delivery does not say whose it is.
type pull struct {
	open  bool
	left  int // messages that it may still bring
	asked time.Time
	guard *time.Timer
}

// waiter is a Wait in the line of a queue.
type waiter struct {
	w     *broker.Wait
	timer *time.Timer
	bytes int
	got   []taken
	more  bool  // it waits for more, until timer
	part  *part // of one with a filter
	hasty bool  // one with a part that does not wait
}

// taken is a message on its way to a waiter.
type taken struct {
	e *entry
	d broker.Delivery
}

// receive implements target.
func (q *queue) receive(w *broker.Wait) {
	x := &waiter{w: w}
	q.mu.Lock()
	w.Priv = x
	if q.dropped {
		q.mu.Unlock()
		x.finish(q, q.why())
		return
	}
	until := w.Until.Sub(q.s.Now())
	if until <= 0 {
		if q.barren() || q.def.Paused || !q.mayLease() {
			q.mu.Unlock()
			x.finish(q, nil)
			return
		}
		until = askFor
	}
	if w.Filter != "" {
		x.part = q.partFor(w.Filter)
		q.await(x)
	} else {
		x.timer = time.AfterFunc(until, func() { q.over(x) })
	}
	q.waits = append(q.waits, x)
	q.pump()
	q.mu.Unlock()
}

// barren reports whether no message can be ready.
func (q *queue) barren() bool { return q.fresh()+q.count[back]+q.count[unclaimed] <= 0 }

// why is the error of a queue that ended.
func (q *queue) why() error {
	if _, err := q.s.lookup(q.id); err != nil {
		return err
	}
	return broker.ErrClosed
}

// over is called when the time of x has come.
func (q *queue) over(x *waiter) {
	q.mu.Lock()
	if !q.unlist(x) {
		q.mu.Unlock()
		return
	}
	q.mu.Unlock()
	x.finish(q, nil)
}

// unlist takes x out of the line; it reports whether x was there.
func (q *queue) unlist(x *waiter) bool {
	i := slices.Index(q.waits, x)
	if i < 0 {
		return false
	}
	q.waits = slices.Delete(q.waits, i, i+1)
	return true
}

// cancel implements target.
func (q *queue) cancel(w *broker.Wait) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	x, ok := w.Priv.(*waiter)
	if !ok || x.w != w || !q.unlist(x) { // else it is being delivered, with what it has
		return false
	}
	if x.timer != nil {
		x.timer.Stop()
	}
	for _, t := range x.got { // it took nothing
		q.keepUnclaimed(t)
	}
	q.pump()
	return true
}

// pump gives out what is at hand, and asks for more if somebody waits and no request
// is under way.
func (q *queue) pump() {
	if q.attend() {
		q.release(true)
	}
	q.attendParts()
	if q.dropped || q.pull.open || q.passing > 0 || len(q.waits) == 0 || q.def.Paused || !q.begun {
		return
	}
	n := 0
	for _, x := range q.waits {
		if x.part == nil {
			n += max(x.w.Max-len(x.got), 1)
		}
	}
	n = min(n, pullMax, q.s.o.LookAhead+int(q.count[back]-q.count[blocked]))
	if limit := q.def.MaxInFlight; limit > 0 {
		n = min(n, limit-int(q.count[leased]))
	}
	if n <= 0 {
		q.release(false)
		return
	}
	ask := struct {
		Batch   int           `json:"batch"`
		NoWait  bool          `json:"no_wait"`
		Expires time.Duration `json:"expires"`
	}{n, true, pullFor}
	body, _ := json.Marshal(ask)
	if q.s.nc.PublishRequest(q.s.o.api()+"CONSUMER.MSG.NEXT."+q.stream+"."+consumerName, q.inbox, body) != nil {
		q.release(false)
		return // after the cut it is asked again
	}
	q.pull.open, q.pull.left, q.pull.asked = true, n, time.Now()
	if q.pull.guard == nil {
		q.pull.guard = time.AfterFunc(pullFor+pullGuard, q.lost)
	} else {
		q.pull.guard.Reset(pullFor + pullGuard)
	}
}

// release ends the waits that have something, and those that do not wait when
// nothing more is ready. When more is, and the next request may bring it, those
// that have something wait for it once, for a moment.
func (q *queue) release(asks bool) {
	none := q.barren()
	q.waits = slices.DeleteFunc(q.waits, func(x *waiter) bool {
		switch {
		case len(x.got) == 0:
			if !none || q.s.Now().Before(x.w.Until) {
				return false
			}
		case asks && !none && !x.more:
			x.more = true
			x.timer.Reset(moreFor)
			return false
		}
		q.hand(x)
		return true
	})
}

// lost is called when a request had no answer for too long.
func (q *queue) lost() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pull.open && time.Since(q.pull.asked) >= pullFor+pullGuard {
		q.pull.open = false
		q.release(true)
		q.pump()
	}
}

// reconnected implements target.
func (q *queue) reconnected() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pull.open = false
	q.pump()
}

// arrived gets everything that a request brings.
func (q *queue) arrived(m *nats.Msg) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if status := m.Header.Get("Status"); status != "" && m.Subject == q.inbox {
		q.answered(status)
		return
	}
	if q.pull.left--; q.pull.left <= 0 {
		q.pull.open = false
	}
	if t, ok := q.accept(m); ok && !q.serve(t) {
		q.keepUnclaimed(t)
	}
	if !q.pull.open {
		q.release(true)
		q.pump()
	}
}

// answered is the end of a request: nothing more is there now.
func (q *queue) answered(status string) {
	q.pull.open = false
	q.release(true)
	switch status {
	case "404", "408":
		q.pump()
	default: // no leader just now, or it changes
		if len(q.waits) > 0 {
			time.AfterFunc(resendAfter, func() {
				q.mu.Lock()
				defer q.mu.Unlock()
				q.pump()
			})
		}
	}
}

// accept notes a delivery, and reports whether it may be handed out.
func (q *queue) accept(m *nats.Msg) (taken, bool) {
	at, err := parseReply(m.Reply[len(q.acks):])
	if err != nil {
		q.s.log.Error().Err(err).Str("stream", q.stream).Msg("a delivery of jetstream")
		return taken{}, false
	}
	d, err := q.delivery(m.Data, m.Header, at.time)
	if err != nil {
		q.s.log.Error().Err(err).Uint64("seq", at.seq).Msg("a delivery of jetstream")
		return taken{}, false
	}
	e := q.entries[at.seq]
	if e == nil {
		if q.gone.has(at.seq) { // removed while it was on its way
			_ = q.s.nc.Publish(m.Reply, []byte("+ACK"))
			return taken{}, false
		}
		e = &entry{
			seq: at.seq, state: back, id: d.ID, queued: d.Queued, expires: d.Expires, size: sizeOf(&d.Message, m.Data), key: q.keyOf(&d.Message),
		}
		q.topicOf(e, &d.Message)
		if at.tries > 1 {
			q.met(e)
		} else {
			q.keep(e)
		}
	}
	e.tries, e.epoch = at.tries, at.epoch
	if e.met {
		e.met, e.returned = false, at.tries-1
	}
	q.delivered = max(q.delivered, at.seq)
	now := q.s.milli()
	if (e.state == leased || e.state == delayed) && e.until > now+resolution.Milliseconds() { // it was picked
		e.returned++
		q.putOffFor(e, time.Duration(e.until-now)*time.Millisecond)
		return taken{}, false
	}
	e.disarm()
	switch {
	case e.state == heldBack || e.state == leaving:
		e.returned++
		e.putOff(q, holdFor, nil)
		e.arm(q)
		return taken{}, false
	case !q.free(e):
		e.returned++
		q.block(e)
		return taken{}, false
	case q.def.LapseAt > 0 && e.attempt() > q.def.LapseAt: // its node died with it
		e.returned++
		q.hold(e, broker.ReasonAttempts)()
		return taken{}, false
	case q.endOfEntry(e) != 0 && q.endOfEntry(e) <= now:
		e.returned++
		if after := q.expire(e); after != nil {
			after()
		}
		return taken{}, false
	}
	q.own(e)
	return taken{e, d}, true
}

// reply is what JetStream says of a delivery, in the subject of its answer.
type reply struct {
	tries   uint32
	seq     uint64
	epoch   uint64
	time    time.Time
	pending uint64
}

// parseReply reads tries.seq.epoch.time.pending.
func parseReply(s string) (r reply, err error) {
	var n [5]uint64
	for i := range n {
		part, rest, _ := strings.Cut(s, ".")
		if n[i], err = strconv.ParseUint(part, 10, 64); err != nil {
			return r, err
		}
		s = rest
	}
	return reply{uint32(n[0]), n[1], n[2], time.Unix(0, int64(n[3])), n[4]}, nil
}
