package auth

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// Readers are those who may be given the messages of one topic. It belongs to
// one goroutine and one message: what it has found out holds for as long as a
// fan-out takes.
//
// What is decided is written on the topic's sheet, which all who ask about the
// topic share: it is found once a message, and then a delivery costs a
// comparison, or a look at two bits, however many rules there are.
type Readers struct {
	a     *Auth
	topic string
	sheet *sheet // nil until somebody has to be asked about
	// from and open are the sheet's, so that most are included without a call.
	from, open uint64
}

// Readers returns those who may read topic now.
func (a *Auth) Readers(topic string) Readers { return Readers{a: a, topic: topic} }

// Include is Allow of Subscribe to the topic for p. The seat is p's, where its
// subscription has it at hand.
func (r *Readers) Include(p *Principal, at *Seat) bool {
	return at.v.Load()-r.from < r.open || r.ask(p, at)
}

// ask is Include for one who is not known to be among the first of the sheet.
func (r *Readers) ask(p *Principal, at *Seat) bool {
	if r.sheet == nil {
		r.sheet = r.a.sheet(r.topic)
		r.from, r.open = r.sheet.from, r.sheet.readers.open.Load()
	}
	if allowed, known := r.sheet.readers.find(at.v.Load() - r.from); known {
		return allowed
	}
	if p == nil || p.Kind == System || p.session != nil { // which ends by itself
		return r.a.Allow(p, Subscribe, TopicResource(r.topic))
	}
	seat := r.sheet.term.seat(p)
	at.v.Store(seat)
	if allowed, known := r.sheet.readers.find(seat - r.from); known { // by another subscription
		return allowed
	}
	allowed := r.a.Allow(p, Subscribe, TopicResource(r.topic))
	r.sheet.readers.keep(r.sheet.term, seat-r.from, allowed)
	return allowed
}

// mayPublish is Decide of Publish to an ordinary topic, where rules or scopes have to
// be looked at: what they say is on the topic's sheet as well.
func (a *Auth) mayPublish(p *Principal, topic string) bool {
	s := a.sheet(topic)
	seat := s.term.seat(p) - s.from
	allowed, known := s.writers.find(seat)
	if !known {
		allowed = a.Decide(p, Publish, TopicResource(topic)).Allowed
		s.writers.keep(s.term, seat, allowed)
	}
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
	id    uint32
	seats atomic.Uint32
	bytes atomic.Int64
	mu    sync.Mutex // held while a sheet is added
	count int
	table atomic.Pointer[[]atomic.Pointer[sheet]] // by the hash of their topics; at most half full
}

// newTerm returns an empty one.
func newTerm() *term {
	t := &term{id: terms.Add(1)}
	t.table.Store(new(make([]atomic.Pointer[sheet], 16)))
	return t
}

// hashing is random: nobody chooses topics that stand in each other's way.
var hashing = maphash.MakeSeed()

// terms numbers the terms of all Auths, so that no principal takes a seat of one
// for that of another.
var terms atomic.Uint32

// sheet says who may read a topic and who may publish to it.
type sheet struct {
	from             uint64 // the term's first seat
	hash             uint64
	topic            string
	term             *term
	readers, writers verdicts
}

// verdicts have two bits for each seat of a term, counted from its first: whether it
// is known what its holder may, and what. Mostly all may: how many of the first may,
// without a gap, is a number beside the bits.
type verdicts struct {
	open  atomic.Uint64                   // so many seats are known, and allowed
	mu    sync.Mutex                      // held while words change
	words atomic.Pointer[[]atomic.Uint64] // of 32 seats each; nil = none
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
		next := newTerm()
		if !now.term.CompareAndSwap(t, next) {
			next = now.term.Load()
		}
		t = next
	}
	hash := maphash.String(hashing, topic)
	if s := lookUp(*t.table.Load(), hash, topic); s != nil {
		return s
	}
	return t.begin(hash, topic)
}

// lookUp returns the sheet of a topic, or nil.
func lookUp(table []atomic.Pointer[sheet], hash uint64, topic string) *sheet {
	last := uint64(len(table) - 1)
	for i := hash; ; i++ {
		if s := table[i&last].Load(); s == nil || s.hash == hash && s.topic == topic {
			return s
		}
	}
}

// begin returns the sheet of a topic that had none a moment ago.
func (t *term) begin(hash uint64, topic string) *sheet {
	t.mu.Lock()
	defer t.mu.Unlock()
	table := *t.table.Load()
	if s := lookUp(table, hash, topic); s != nil {
		return s
	}
	s := &sheet{from: uint64(t.id) << 32, hash: hash, topic: strings.Clone(topic), term: t}
	t.bytes.Add(bytesOfSheet + int64(len(topic)))
	if t.count++; 2*t.count > len(table) {
		more := make([]atomic.Pointer[sheet], 2*len(table))
		for i := range table {
			if old := table[i].Load(); old != nil {
				put(more, old)
			}
		}
		t.table.Store(&more)
		table = more
	}
	put(table, s)
	return s
}

// put takes the first place that is free.
func put(table []atomic.Pointer[sheet], s *sheet) {
	last := uint64(len(table) - 1)
	i := s.hash
	for table[i&last].Load() != nil {
		i++
	}
	table[i&last].Store(s)
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

// find returns what was decided about a seat.
func (v *verdicts) find(seat uint64) (allowed, known bool) {
	if seat < v.open.Load() {
		return true, true
	}
	if words, n := v.all(), seat/seatsInWord; n < uint64(len(words)) {
		bits := words[n].Load() >> (seat % seatsInWord * 2)
		return bits&2 != 0, bits&1 != 0
	}
	return false, false // also for a seat of another term
}

func (v *verdicts) all() []atomic.Uint64 {
	if words := v.words.Load(); words != nil {
		return *words
	}
	return nil
}

// keep writes down what was decided about a seat of t.
func (v *verdicts) keep(t *term, seat uint64, allowed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	words, n := v.all(), int(seat/seatsInWord)
	if n >= len(words) {
		more := make([]atomic.Uint64, max(n+1, 2*len(words)))
		for i := range words {
			more[i].Store(words[i].Load())
		}
		t.bytes.Add(int64(len(more)-len(words)) * 8)
		v.words.Store(&more)
		words = more
	}
	verdict := uint64(1)
	if allowed {
		verdict = 3
	}
	words[n].Or(verdict << (seat % seatsInWord * 2))
	for open := v.open.Load(); ; open++ {
		if n := int(open / seatsInWord); n >= len(words) || words[n].Load()>>(open%seatsInWord*2)&3 != 3 {
			v.open.Store(open)
			return
		}
	}
}
