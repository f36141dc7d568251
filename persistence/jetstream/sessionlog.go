package jetstream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/tidwall/btree"

	"millrace/broker"
)

// Limits of the log of sessions.
const (
	logCache  = 32 << 20        // bytes of its newest messages that the node keeps
	logSweep  = time.Second     // what nobody waits for any more goes soon after
	logHoles  = 1000            // so many between others may stay, or as many as there are others
	logStall  = 2 * resendAfter // an own message that did not come back by then: the tail is broken
	logRoutes = 8192            // routes in one message of the log

	logForgotten = 1 << 20 // so many holes of before a start are looked for at most
)

// sessionLog holds the messages of all sessions, each once, with whom it is for: a
// publish is one message here, however many sessions it is for. The node reads
// what it wrote from the tail, in the order of the log, which is that of every
// backlog; so it finds everything again when it starts.
type sessionLog struct {
	s       *Store
	stream  string
	subject string
	order   sync.Mutex // held while a message is given to its sessions
	booking sync.Mutex // held while pages are written

	mu       sync.Mutex
	tail     *tail
	starting bool                       // a tail is being made
	applied  uint64                     // all up to it is with its sessions
	behind   []behind                   // who waits for that, by sequence
	stall    *time.Timer                // while somebody does
	own      map[string]*entering       // publishes under way, by the id that JetStream knows them by
	live     btree.Map[uint64, *logged] // what sessions wait for
	cached   []*logged                  // those of them whose message is at hand, oldest first
	bytes    int64                      // of these
	freed    []uint64                   // what nobody waits for any more, and is still in the log
	holes    []uint64                   // of these, what stands behind something that is waited for
	sweeping bool
	books    books
}

// logged is a message of the log.
type logged struct {
	seq     uint64
	id      broker.ID
	queued  int64
	expires int64
	size    size
	to      string                         // its routes, as they stand in the log
	places  atomic.Int32                   // in backlogs
	m       atomic.Pointer[broker.Message] // nil if it has to be read from the log again
}

// behind waits until the tail has brought a message.
type behind struct {
	seq  uint64
	then func()
}

// openLog makes the log if it is not there, and gives what it holds to the
// sessions, which are known.
func (s *Store) openLog(ctx context.Context) error {
	l := &sessionLog{s: s, stream: s.names.logStream(), subject: s.names.logSubject(), own: map[string]*entering{}}
	l.books.pages, l.books.stale = map[uint64]*page{}, map[uint64]bool{}
	s.sessions = l
	err := s.createStream(ctx, jetstream.StreamConfig{
		Name: l.stream, Subjects: []string{l.subject}, Discard: jetstream.DiscardNew, Duplicates: dedupWindow, AllowDirect: true,
	})
	if err != nil {
		return err
	}
	at, err := soon(ctx, func(ctx context.Context) (streamState, error) { return s.state(ctx, l.stream) })
	if err != nil {
		return err
	}
	if err := l.readBooks(ctx, at); err != nil {
		return err
	}
	read := make(chan struct{})
	l.caughtUp(at.Last, func() { close(read) })
	if err := l.follow(ctx); err != nil {
		return err
	}
	select {
	case <-read:
		l.reclaim(at)
		return nil
	case <-ctx.Done():
		return fmt.Errorf("reading stream %s: %w", l.stream, ctx.Err())
	}
}

// close ends the tail: nothing is given to sessions any more.
func (l *sessionLog) close() {
	l.order.Lock()
	l.mu.Lock()
	t := l.tail
	l.tail = nil
	left := l.behind
	if l.applied != math.MaxUint64 {
		l.books.end = l.applied + 1
	}
	l.behind, l.applied = nil, math.MaxUint64
	l.mu.Unlock()
	l.order.Unlock()
	if t != nil {
		t.end()
	}
	for _, b := range left {
		b.then()
	}
}

// caughtUp calls then once all up to a sequence is with its sessions.
func (l *sessionLog) caughtUp(seq uint64, then func()) {
	l.mu.Lock()
	if seq <= l.applied {
		l.mu.Unlock()
		then()
		return
	}
	i := len(l.behind)
	for i > 0 && l.behind[i-1].seq > seq {
		i--
	}
	l.behind = slices.Insert(l.behind, i, behind{seq, then})
	switch {
	case l.stall == nil:
		l.stall = time.AfterFunc(logStall, l.stalled)
	case len(l.behind) == 1:
		l.stall.Reset(logStall)
	}
	l.mu.Unlock()
}

// stalled reads the log anew from where it is if it makes no progress.
func (l *sessionLog) stalled() {
	l.mu.Lock()
	waits := len(l.behind) > 0
	if waits {
		l.stall.Reset(logStall)
	}
	t := l.tail
	quiet := t == nil || time.Since(t.last) >= logStall
	l.mu.Unlock()
	if waits && quiet {
		l.followAgain()
	}
}

// passed notes that all up to a sequence is with its sessions.
func (l *sessionLog) passed(seq uint64) {
	l.mu.Lock()
	l.applied = max(l.applied, seq)
	l.bookSoon()
	n := 0
	for n < len(l.behind) && l.behind[n].seq <= l.applied {
		n++
	}
	done := slices.Clone(l.behind[:n])
	l.behind = slices.Delete(l.behind, 0, n)
	l.mu.Unlock()
	for _, b := range done {
		b.then()
	}
}

// give gives a message to its sessions, unless they had it before.
func (l *sessionLog) give(m *stored) {
	l.order.Lock()
	defer l.order.Unlock()
	l.mu.Lock()
	known := m.Seq <= l.applied
	own := l.own[m.header.Get(headerID)]
	delete(l.own, m.header.Get(headerID))
	l.mu.Unlock()
	if known {
		return
	}
	l.take(m, own != nil)
}

// take gives a message of the log to its sessions; own says that we wrote it.
func (l *sessionLog) take(m *stored, own bool) {
	routes, body, err := parseRoutes(m.Data)
	msg := new(broker.Message)
	if err == nil {
		err = broker.DecodeMessage(body, msg)
	}
	if err != nil {
		l.s.log.Error().Err(err).Str("stream", l.stream).Uint64("seq", m.Seq).Msg("a message of sessions cannot be read")
		return
	}
	to := string(m.Data[:len(m.Data)-len(body)])
	l.enter(&logged{seq: m.Seq, id: msg.ID, queued: m.Time.UnixMilli(), expires: msg.Expires, size: sizeOf(msg, body), to: to}, routes, msg, own)
}

// enter gives a message to the sessions that it is for; msg is nil if it is not at hand.
func (l *sessionLog) enter(x *logged, routes []broker.Route, msg *broker.Message, own bool) {
	x.places.Store(int32(len(routes)) + 1)
	l.mu.Lock()
	l.live.Set(x.seq, x)
	l.books.at(x.seq).live++
	if msg != nil {
		l.remember(x, msg)
	}
	l.mu.Unlock()
	for _, r := range routes {
		b := l.s.backlogOf(r.Target)
		if b == nil || !b.add(x, r.Tag, own) {
			l.release(x)
		}
	}
	l.release(x)
}

// remember keeps a message at hand, and forgets older ones. The caller holds mu.
func (l *sessionLog) remember(x *logged, m *broker.Message) {
	x.m.Store(m)
	l.cached = append(l.cached, x)
	l.bytes += x.size.bytes
	for l.bytes > logCache && len(l.cached) > 1 {
		l.forget(l.cached[0])
		l.cached[0] = nil
		l.cached = l.cached[1:]
	}
	if len(l.cached) > 2*l.live.Len()+logHoles { // most are settled
		l.cached = slices.DeleteFunc(l.cached, func(x *logged) bool { return x.m.Load() == nil })
	}
}

// forget gives up a message that is at hand. The caller holds mu.
func (l *sessionLog) forget(x *logged) {
	if x.m.Swap(nil) != nil {
		l.bytes -= x.size.bytes
	}
}

// message returns a message of the log.
func (l *sessionLog) message(ctx context.Context, x *logged) (*broker.Message, error) {
	if m := x.m.Load(); m != nil {
		return m, nil
	}
	at, err := l.s.fetch(ctx, l.stream, getRequest{Seq: x.seq})
	if err != nil {
		return nil, err
	}
	_, body, err := parseRoutes(at.Data)
	if err != nil {
		return nil, err
	}
	m := new(broker.Message)
	return m, broker.DecodeMessage(body, m)
}

// release says that one session does not wait for x any more, and that this is
// recorded.
func (l *sessionLog) release(x *logged) {
	if x.places.Add(-1) > 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live.Delete(x.seq)
	l.forget(x)
	l.freed = append(l.freed, x.seq)
	l.sweepSoon()
	l.books.at(x.seq).live--
	if l.books.look(x.seq / logPage) {
		l.bookSoon()
	}
}

// sweepSoon has the sweep run. The caller holds mu.
func (l *sessionLog) sweepSoon() {
	if l.sweeping {
		return
	}
	l.sweeping = true
	d := logSweep
	if l.s.full.Load() > l.s.milli() {
		d = 0 // others wait for the room
	}
	time.AfterFunc(d, func() { l.s.spawn(func() { l.sweep(l.s.ctx) }) })
}

// sweep removes what nobody waits for: all before the first that somebody does at
// once, and what stands between others when it is much.
func (l *sessionLog) sweep(ctx context.Context) {
	l.mu.Lock()
	first := l.applied + 1
	if seq, _, ok := l.live.Min(); ok {
		first = seq
	}
	below := func(seq uint64) bool { return seq < first }
	some := slices.ContainsFunc(l.freed, below) || slices.ContainsFunc(l.holes, below)
	l.holes = slices.DeleteFunc(append(l.holes, l.freed...), below)
	l.freed = nil
	var single []uint64
	if len(l.holes) > max(logHoles, l.live.Len()) {
		n := min(len(l.holes), logHoles)
		single, l.holes = l.holes[:n:n], l.holes[n:]
	}
	l.mu.Unlock()
	var err error
	if some {
		err = l.s.purgeBefore(ctx, l.stream, "", first)
	}
	for _, seq := range single {
		if err == nil {
			_, err = l.s.remove(ctx, l.stream, seq)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweeping = false
	if err != nil { // they are found again after the next start, too
		l.holes = append(single, l.holes...)
		if !errors.Is(err, context.Canceled) {
			l.s.log.Warn().Err(err).Str("stream", l.stream).Msg("what no session waits for stays in the log for now")
		}
	}
	if len(l.freed) > 0 || err == nil && len(single) > 0 {
		l.sweepSoon()
	}
}
