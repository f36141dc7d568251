package broker

import (
	"context"
	"errors"
	"time"

	"millrace/broker/auth"
)

// Will is the message that a client leaves behind when its connection ends
// without a word, MQTT 5 section 3.1.2.5.
type Will struct {
	// Message is what is published, with topic, payload, QoS, retain flag and
	// properties; its times and its publisher are set then.
	Message Message
	Delay   time.Duration // whole seconds
	// Expiry is the message's in seconds, from its publication, if Expires.
	Expiry  uint32
	Expires bool
}

// expires is the expiry as it is stored: 0 for none.
func (w *Will) expires() uint64 {
	if !w.Expires {
		return 0
	}
	return uint64(w.Expiry) + 1
}

// publishWill publishes the will of s as the client it is of: the right to do
// so is that of now. The will is taken from the session in the same commit, so
// that a crash neither loses nor repeats it.
func (s *Session) publishWill(ctx context.Context) {
	s.lock()
	w, stored, rev := s.will, s.willStored, s.willRevision()
	s.will, s.willStored, s.willDue = nil, false, 0
	s.mu.Unlock()
	if w == nil {
		return
	}
	m := w.Message
	m.Publisher = s.id
	if w.Expires {
		m.Expires = s.b.Now().UnixMilli() + int64(w.Expiry)*1000
	}
	ctx = auth.Unmetered(auth.WithPrincipal(ctx, s.principal()))
	_, err := s.b.commitAll(ctx, []*Message{&m}, func(c *pending, p *auth.Principal, m *Message, tag uint64) error {
		err := c.add(p, m, tag)
		if err == nil && stored {
			c.batch.Put(SpaceSessions, willKey(s.id), nil, rev)
		}
		return err
	})
	ss := &s.b.sessions
	if err == nil {
		ss.wills.Add(1)
		return
	}
	if errors.Is(err, ErrConflict) && s.tenure != nil {
		return // the client is back, on another node
	}
	ss.lostWills.Add(1)
	s.b.log.Warn().Str("client", s.id).Str("topic", m.Topic).Err(err).Msg("will was not published")
	if k := KindOf(err); stored && k != Unknown && k != Unavailable {
		c := newCommit()
		c.Put(SpaceSessions, willKey(s.id), nil, rev)
		s.report("will was not removed", c.store(ctx, s.b.store, Lazy))
	}
}

// LostWills is how many wills could not be published since the start: their
// topic was not allowed any more, or a queue refused them.
func (b *Broker) LostWills() int64 { return b.sessions.lostWills.Load() }
