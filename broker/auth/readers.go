package auth

import (
	"strings"
	"sync"
	"sync/atomic"
)

// Readers are those who may be given the messages of one topic. It belongs to
// one goroutine and one message: what it has found out holds for as long as a
// fan-out takes.
//
// What is decided is written on the topic's sheet, which all who ask about the
// topic share: it is found once a message, and then a delivery costs a look at
// two bits, however many rules there are.
type Readers struct {
	a     *Auth
	topic string
	sheet *sheet // nil until somebody has to be asked about
}

// Readers returns those who may read topic now.
func (a *Auth) Readers(topic string) Readers { return Readers{a: a, topic: topic} }

// Include is Allow of Subscribe to the topic for p. The seat is p's, where its
// subscription has it at hand.
func (r *Readers) Include(p *Principal, at *Seat) bool {
	if r.sheet == nil {
		r.sheet = r.a.sheet(r.topic)
	}
	if allowed, known := r.sheet.find(at.v.Load()); known {
		return allowed
	}
	return r.ask(p, at)
}

// ask is Include for one who had no seat, or about whom nothing is known yet.
func (r *Readers) ask(p *Principal, at *Seat) bool {
	if p == nil || p.Kind == System || p.session != nil { // which ends by itself
		return r.a.Allow(p, Subscribe, TopicResource(r.topic))
	}
	seat := r.sheet.term.seat(p)
	at.v.Store(seat)
	if allowed, known := r.sheet.find(seat); known { // by another subscription
		return allowed
	}
	allowed := r.a.Allow(p, Subscribe, TopicResource(r.topic))
	r.sheet.keep(uint32(seat), allowed)
	return allowed
}

// Seat is the place of a principal on all sheets of a term: the id of the term,
// and behind it a number. The zero value is none.
type Seat struct{ v atomic.Uint64 }

// maxSheets is what the sheets of a term take at most, in bytes, about.
const maxSheets = 16 << 20

// term is the time for which sheets are good: that of one policy, or less where
// they grow too large. It gives each principal a seat, which is its place on
// all of them. Nobody leaves a seat: those who have gone are forgotten with the term.
type term struct {
	id     uint32
	seats  atomic.Uint32
	bytes  atomic.Int64
	sheets sync.Map // topic -> *sheet
}

// terms numbers the terms of all Auths, so that no principal takes a seat of one
// for that of another.
var terms atomic.Uint32

// sheet has two bits for each seat of a term: whether it is known what its
// holder may, and what.
type sheet struct {
	term  *term
	mu    sync.Mutex // held while words change
	words atomic.Pointer[[]atomic.Uint64]
}

const (
	seatsInWord  = 32
	bytesOfSheet = 256 // with its place in the term, about
)

// sheet returns that of a topic, of the present term. The policy is read before
// anything is decided, so that no sheet has a decision of one before its own.
func (a *Auth) sheet(topic string) *sheet {
	now := a.policy.Load()
	t := now.term.Load()
	if t == nil || t.bytes.Load() >= a.maxSheets {
		next := &term{id: terms.Add(1)}
		if !now.term.CompareAndSwap(t, next) {
			next = now.term.Load()
		}
		t = next
	}
	if s, ok := t.sheets.Load(topic); ok {
		return s.(*sheet)
	}
	s := &sheet{term: t}
	s.words.Store(new([]atomic.Uint64))
	at, there := t.sheets.LoadOrStore(strings.Clone(topic), s)
	if !there {
		t.bytes.Add(bytesOfSheet + int64(len(topic)))
	}
	return at.(*sheet)
}

// seat gives p a seat if it has none in this term. A principal has its latest
// seat only.
func (t *term) seat(p *Principal) uint64 {
	for {
		at := p.seat.v.Load()
		if uint32(at>>32) == t.id {
			return at
		}
		if seat := uint64(t.id)<<32 | uint64(t.seats.Add(1)-1); p.seat.v.CompareAndSwap(at, seat) {
			return seat
		}
	}
}

// find returns what was decided about who has a seat.
func (s *sheet) find(at uint64) (allowed, known bool) {
	if uint32(at>>32) != s.term.id {
		return false, false
	}
	words, seat := *s.words.Load(), uint32(at)
	if n := int(seat / seatsInWord); n < len(words) {
		bits := words[n].Load() >> (seat % seatsInWord * 2)
		return bits&2 != 0, bits&1 != 0
	}
	return false, false
}

// keep writes down what was decided about a seat.
func (s *sheet) keep(seat uint32, allowed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	words, n := *s.words.Load(), int(seat/seatsInWord)
	if n >= len(words) {
		more := make([]atomic.Uint64, max(n+1, 2*len(words)))
		for i := range words {
			more[i].Store(words[i].Load())
		}
		s.term.bytes.Add(int64(len(more)-len(words)) * 8)
		s.words.Store(&more)
		words = more
	}
	verdict := uint64(1)
	if allowed {
		verdict = 3
	}
	words[n].Or(verdict << (seat % seatsInWord * 2))
}
