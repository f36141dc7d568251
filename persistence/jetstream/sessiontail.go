package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
)

// tailBeat is how often a tail with nothing to bring says that it is there.
const tailBeat = time.Minute

// tail is one reading of the log, from where an earlier one ended. JetStream pushes
// the messages; their numbers tell whether one is missing, and then there is
// another tail.
type tail struct {
	l      *sessionLog
	sub    *nats.Subscription
	prefix string // of the subject that a message would be acknowledged on
	next   uint64 // number of the message that comes next
	upTo   uint64 // the end of the log when it began
	last   time.Time
	torn   bool // it missed something: another one is made
}

// follow reads the log from what was passed on, in place of the tail before.
func (l *sessionLog) follow(ctx context.Context) error {
	at, err := l.s.state(ctx, l.stream)
	if err != nil {
		return err
	}
	name := "tail-" + nats.NewInbox()[len("_INBOX."):]
	t := &tail{l: l, prefix: "$JS.ACK." + l.stream + "." + name + ".", next: 1, upTo: at.Last, last: time.Now()}
	inbox := nats.NewInbox()
	if t.sub, err = l.s.nc.Subscribe(inbox, t.brought); err != nil {
		return err
	}
	if err := t.sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	l.mu.Lock()
	old, from := l.tail, l.applied
	l.tail = t
	l.mu.Unlock()
	if old != nil {
		old.end()
	}
	var answer struct {
		Pending uint64 `json:"num_pending"`
	}
	err = l.s.request(ctx, "CONSUMER.CREATE."+l.stream+"."+name, map[string]any{
		"stream_name": l.stream, "config": map[string]any{
			"name": name, "deliver_subject": inbox, "deliver_policy": "by_start_sequence", "opt_start_seq": from + 1,
			"ack_policy": "none", "replay_policy": "instant", "mem_storage": true, "num_replicas": 1,
			"flow_control": true, "idle_heartbeat": tailBeat, "inactive_threshold": 5 * tailBeat,
		},
	}, &answer)
	if err == nil && answer.Pending == 0 {
		t.drained(from)
	}
	return err
}

// drained is told that there is nothing after a sequence, as the server says that the
// tail is of. It may be one that has not all yet: what the log ended with when the tail
// began is passed once the leader of the log knows of nothing up to it.
func (t *tail) drained(seq uint64) {
	l := t.l
	l.passed(seq)
	if seq >= t.upTo {
		return
	}
	l.s.spawn(func() {
		m, err := l.s.fetch(l.s.ctx, l.stream, getRequest{Seq: seq + 1, Next: l.subject})
		if errors.Is(err, broker.ErrNotFound) || err == nil && m.Seq > t.upTo {
			l.passed(t.upTo)
		} // else it comes, or the tail stalls
	})
}

// followAgain is follow until it works, while the store is open.
func (l *sessionLog) followAgain() {
	l.mu.Lock()
	if l.starting {
		l.mu.Unlock()
		return
	}
	l.starting = true
	l.mu.Unlock()
	l.s.spawn(func() {
		err := again(l.s.ctx, l.follow)
		l.mu.Lock()
		l.starting = false
		torn := err == nil && l.tail != nil && l.tail.torn // meanwhile
		l.mu.Unlock()
		if torn {
			l.followAgain()
		}
		if err != nil && l.s.ctx.Err() == nil {
			l.s.log.Warn().Err(err).Str("stream", l.stream).Msg("the log of sessions cannot be read")
		}
	})
}

// tear has another tail take the place of t, which is of no use any more. It says so once:
// all that t brings after that is of no use either.
func (t *tail) tear(why error) {
	l := t.l
	l.mu.Lock()
	first := l.tail == t && !t.torn
	t.torn = true
	l.mu.Unlock()
	if first {
		l.s.log.Warn().Err(why).Str("stream", l.stream).Msg("the log of sessions is read again")
		l.followAgain()
	}
}

// end stops a tail. JetStream forgets it when nobody listens.
func (t *tail) end() { _ = t.sub.Unsubscribe() }

// brought gets what the tail brings.
func (t *tail) brought(m *nats.Msg) {
	if m.Header.Get("Status") != "" && m.Subject == t.sub.Subject {
		to := m.Reply // how much may be under way
		if to == "" {
			to = m.Header.Get("Nats-Consumer-Stalled")
		}
		if to != "" {
			_ = t.l.s.nc.Publish(to, nil) // a cut ends the tail anyhow
		}
		return
	}
	at, err := t.number(m)
	if err != nil {
		t.tear(err)
		return
	}
	if at.seq == 0 {
		return // of a tail that was replaced, or will be
	}
	t.l.give(&stored{Seq: at.seq, Data: m.Data, Time: at.time, header: m.Header})
	if at.pending == 0 {
		t.drained(at.seq)
	} else {
		t.l.passed(at.seq)
	}
}

// number reads which message m is; its sequence is 0 if another tail brings it, or will.
func (t *tail) number(m *nats.Msg) (reply, error) {
	rest, ok := strings.CutPrefix(m.Reply, t.prefix)
	if !ok {
		return reply{}, fmt.Errorf("a message on %q", m.Reply)
	}
	at, err := parseReply(rest)
	if err != nil {
		return at, err
	}
	t.l.mu.Lock()
	defer t.l.mu.Unlock()
	if t.l.tail != t || t.torn {
		return reply{}, nil
	}
	t.last = time.Now()
	if at.epoch != t.next {
		return at, fmt.Errorf("message %d came in place of %d", at.epoch, t.next)
	}
	t.next++
	return at, nil
}
