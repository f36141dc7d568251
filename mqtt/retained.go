package mqtt

import (
	"context"
	"iter"
	"slices"

	"millrace/broker"
)

// replay is the retained messages that new subscriptions are still owed, MQTT
// 5 section 3.3.1.3. They are read one by one as the client takes them, so
// that a filter which matches a million costs no memory. Guarded by
// session.mu.
type replay struct {
	owed []owedRetained
	busy bool // somebody is in replayRetained

	// Of owed[0]: where it is, and a message read that has no room yet.
	next func() (*broker.Message, bool)
	stop func()
	held *broker.Message
	// While a message is being read, live is the topics whose retained message
	// changed: the client has the newer one, and must not get the old one after it.
	reading bool
	live    map[string]struct{}
}

// owedRetained is one subscription, and what was the present when it was made.
type owedRetained struct {
	filter string
	by     *member
	mark   uint64
}

// add owes a subscription its retained messages. One that it replaces is owed
// nothing more.
func (r *replay) add(filter string, by *member, mark uint64) {
	r.owed = append(r.owed, owedRetained{filter, by, mark})
}

// waits reports whether something is owed, and nobody at work on it.
func (r *replay) waits() bool { return len(r.owed) > 0 && !r.busy }

// overtake notes a message that goes out live.
func (r *replay) overtake(m *broker.Message) {
	if r.reading && m.Retain {
		if r.live == nil {
			r.live = map[string]struct{}{}
		}
		r.live[m.Topic] = struct{}{}
	}
}

// end forgets what is owed, and returns what the caller must call once it
// holds no lock. One who is in replayRetained ends by himself.
func (r *replay) end() (stop func()) {
	if stop = r.stop; r.busy || stop == nil {
		stop = func() {}
	} else {
		r.next, r.stop = nil, nil
	}
	r.owed, r.held = nil, nil
	return stop
}

// done goes on to the next subscription, and returns as end does.
func (r *replay) done() (stop func()) {
	if stop = r.stop; stop == nil {
		stop = func() {}
	}
	r.next, r.stop, r.held = nil, nil, nil
	if len(r.owed) > 0 {
		r.owed = r.owed[1:]
	}
	return stop
}

// replayRetained sends retained messages as far as window and output allow.
// What makes room calls it again, through pump.
func (s *session) replayRetained() {
	r := &s.replay
	s.mu.Lock()
	defer s.mu.Unlock()
	if !r.waits() {
		return
	}
	r.busy = true
	for s.replayStep() {
	}
	r.busy = false
}

// replayStep sends one message, or ends a subscription. The caller holds mu,
// which is free while the broker is asked. It answers false when there is
// nothing to do, or no room.
func (s *session) replayStep() bool {
	r := &s.replay
	if s.closed || len(r.owed) == 0 {
		s.unlocked(r.done())
		return false
	}
	at := r.owed[0]
	if sub := s.subs[at.filter]; sub == nil || sub.Member != any(at.by) {
		s.unlocked(r.done()) // it has ended, or another has taken its place
		return true
	}
	if r.held != nil {
		if !s.sendRetained(r.held, at.by) {
			return false
		}
		r.held = nil
	}
	if r.next == nil {
		r.next, r.stop = iter.Pull(s.readRetained(at))
	}
	var m *broker.Message
	var ok bool
	next := r.next
	r.reading = true
	s.unlocked(func() { m, ok = next() })
	r.reading = false
	if !ok {
		s.unlocked(r.done())
		return true
	}
	if _, newer := r.live[m.Topic]; !newer {
		r.held = m
	}
	clear(r.live)
	return true
}

// unlocked calls f without mu.
func (s *session) unlocked(f func()) {
	s.mu.Unlock()
	defer s.mu.Lock()
	f()
}

// readRetained reads what a subscription is owed.
func (s *session) readRetained(at owedRetained) iter.Seq[*broker.Message] {
	return func(yield func(*broker.Message) bool) {
		srv := s.c.srv
		if s.durable() && at.by.qos > 0 { // the rest went to the backlog
			all := yield
			yield = func(m *broker.Message) bool { return m.QoS > 0 || all(m) }
		}
		if err := srv.o.Broker.RetainedAt(context.Background(), s.who, at.filter, at.mark, yield); err != nil {
			srv.log.Error().Str("client", clip(s.id)).Str("filter", clip(at.filter)).Err(err).Msg("retained messages cannot be read")
		}
	}
}

// sendRetained writes m with the retain flag, behind what waits already. The
// caller holds mu.
func (s *session) sendRetained(m *broker.Message, by *member) bool {
	p := pending{m: m, qos: min(by.qos, m.QoS), retain: true}
	if by.id != 0 {
		p.ids = []uint32{by.id}
	}
	if p.qos > 0 && (s.backlog.len() > 0 || s.window.full()) {
		return false
	}
	e := newEncoder(s.c.srv.o.Broker, m)
	defer e.free()
	return s.write(e, &p, false) != noRoom
}

// replayPage is how many retained messages share a commit.
const replayPage = 128

// replayKept puts what new subscriptions are owed in QoS 1 and 2 into the
// backlog of a session that is kept.
func (s *session) replayKept() {
	if !s.durable() {
		return
	}
	s.mu.Lock()
	owed := slices.Clone(s.replay.owed)
	s.mu.Unlock()
	for _, at := range owed {
		if at.by.qos == 0 {
			continue
		}
		var page []*broker.Message
		put := func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
			defer cancel()
			err := s.kept.Replay(ctx, at.filter, page)
			page = page[:0]
			if err != nil {
				s.c.end(&faultError{answerOf(err).code, "retained messages were not stored for the session", closeQuota})
			}
			return err == nil
		}
		err := s.c.srv.o.Broker.RetainedAt(context.Background(), s.who, at.filter, at.mark, func(m *broker.Message) bool {
			if m.QoS > 0 {
				page = append(page, m)
			}
			return len(page) < replayPage || put()
		})
		if err != nil || !put() {
			return
		}
	}
}
