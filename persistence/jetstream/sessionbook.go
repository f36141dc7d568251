package jetstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/broker/fields"
)

// The log of sessions is booked in pages, so that a start need not read it from its
// beginning: one session that is away for a year keeps its first message there, and
// with it all that others were done with since. A page is one key of the bucket back:
// the messages of a stretch of the log that somebody waits for, without what they
// say. Another key says up to where there are pages, and where there is none nobody
// waits for anything: from there on the log itself is read.
//
// A page is written once most of what it would hold is settled, and again when half of
// what it holds is. It may name more than is waited for, never less: what is released
// was recorded before (sessionkeep.go), and a start asks those records too.
const (
	logPage   = 1024            // sequences of the log to a page
	pageBytes = 256 << 10       // a page that would be larger says that the log is to be read
	bookEvery = 2 * time.Second // so old is what is booked, at least
)

// Keys in the bucket back, beside those of sessions, which are numbers.
const (
	bookedKey  = "booked"
	pagePrefix = "page "
)

// A page begins with one of these. After pageHolds come the messages: by how much the
// sequence is above the one before, the id, when it was queued and when it expires,
// bytes and payload, and its routes as they stand in the log.
const (
	pageHolds = 1
	pageLog   = 2 // too large: the log says
)

func pageKey(n uint64) string { return pagePrefix + strconv.FormatUint(n, 10) }

// books say what is recorded of the log. Its lock is theirs.
type books struct {
	upTo  uint64 // all before it is in pages
	old   uint64 // the end of the log at the last look: what is younger is not booked
	pages map[uint64]*page
	stale map[uint64]bool // pages that name too much
	due   bool            // they are brought up to date soon
	end   uint64          // where the log was closed
	over  bool            // they are closed; the lock of that is booking
}

// page counts what one holds.
type page struct {
	live    int // messages that are waited for
	written int // so many it names in the bucket; 0 = it is not there
}

// at returns the page of a sequence.
func (b *books) at(seq uint64) *page {
	n := seq / logPage
	p := b.pages[n]
	if p == nil {
		p = &page{}
		b.pages[n] = p
	}
	return p
}

// look notes whether page n has to be written again, and forgets one that is empty. It
// reports whether there is something to do. The lock is held.
func (b *books) look(n uint64) bool {
	p := b.pages[n]
	switch {
	case p == nil:
		return false
	case p.live == 0 && p.written == 0:
		delete(b.pages, n)
		return false
	case 2*p.live > p.written:
		return false
	}
	b.stale[n] = true
	return true
}

// bookSoon has the books brought up to date when that is worth it. The caller holds mu.
func (l *sessionLog) bookSoon() {
	b := &l.books
	if b.due || len(b.stale) == 0 && l.applied < b.upTo+logPage || l.applied == math.MaxUint64 {
		return
	}
	b.due = true
	time.AfterFunc(bookEvery, func() { l.s.spawn(l.bookOld) })
}

// bookOld books what is not young any more.
func (l *sessionLog) bookOld() {
	l.mu.Lock()
	upTo := l.books.old
	l.books.old = l.applied + 1
	l.mu.Unlock()
	err := l.book(l.s.ctx, upTo)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.books.due = false
	l.bookSoon()
	if err != nil && l.s.ctx.Err() == nil {
		l.s.log.Warn().Err(err).Str("stream", l.stream).Msg("what sessions wait for is not booked, and a start would read more of their log; it is tried again")
	}
}

// save books all there is, once the log is closed: the next start reads what came
// after. It is called before the sessions close, which let go of what is not recorded;
// nothing is booked from then on.
func (l *sessionLog) save(ctx context.Context) error {
	if l.s.failed.Load() != nil {
		return nil
	}
	err := insist(ctx, func(ctx context.Context) error { return l.book(ctx, l.books.end) })
	l.booking.Lock()
	defer l.booking.Unlock()
	l.books.over = true
	return err
}

// book writes the pages that are stale, and those that are new before upTo; then, up to
// where there are pages.
func (l *sessionLog) book(ctx context.Context, upTo uint64) error {
	l.booking.Lock()
	defer l.booking.Unlock()
	b := &l.books
	if b.over {
		return nil
	}
	l.mu.Lock()
	from := b.upTo
	for n, p := range b.pages {
		if p.live > 0 && n*logPage < upTo && (n+1)*logPage > from {
			b.stale[n] = true
		}
	}
	maps.DeleteFunc(b.stale, func(n uint64, _ bool) bool { return b.pages[n] == nil })
	due := slices.Collect(maps.Keys(b.stale))
	clear(b.stale)
	l.mu.Unlock()
	err := parallel(due, func(n uint64) error { return l.writePage(ctx, n) })
	if err == nil && upTo > from {
		_, err = l.s.back.set(ctx, bookedKey, binary.AppendUvarint(nil, upTo), 0)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		for _, n := range due {
			b.stale[n] = true
		}
		return err
	}
	b.upTo = max(b.upTo, upTo)
	return nil
}

// writePage records what is waited for in page n.
func (l *sessionLog) writePage(ctx context.Context, n uint64) error {
	l.mu.Lock()
	value, count := l.encodePage(n)
	l.mu.Unlock()
	if _, err := l.s.back.set(ctx, pageKey(n), value, 0); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.books.at(n * logPage).written = count
	l.books.look(n)
	return nil
}

// encodePage returns page n, nil if nobody waits for anything there, and how many
// messages that are. The caller holds mu.
func (l *sessionLog) encodePage(n uint64) (v []byte, count int) {
	before := n * logPage
	l.live.Ascend(before, func(seq uint64, x *logged) bool {
		if seq/logPage != n {
			return false
		}
		if v == nil {
			v = []byte{pageHolds}
		}
		count++
		if v[0] == pageLog {
			return true
		}
		v = append(binary.AppendUvarint(v, seq-before), x.id[:]...)
		v = fields.AppendUints(v, uint64(x.queued), uint64(x.expires), uint64(x.size.bytes), uint64(x.size.payload))
		v = fields.AppendText(v, x.to)
		before = seq
		if len(v) > pageBytes {
			v = []byte{pageLog}
		}
		return true
	})
	return v, count
}

// readBooks gives to the sessions what is booked of the log, which is as it says. All
// before applied is with them then.
func (l *sessionLog) readBooks(ctx context.Context, log streamState) error {
	upTo := uint64(0)
	if e, ok := l.s.back.get(bookedKey); ok {
		f := fields.Reader{Rest: e.Value}
		if upTo = f.Uint(); f.Bad {
			return errors.New("up to where the log of sessions is booked is malformed")
		}
	}
	if upTo > log.Last+1 { // it was made anew: no page is of this one
		l.s.log.Warn().Uint64("booked", upTo).Uint64("last", log.Last).Str("stream", l.stream).Msg("the log of sessions ends before what is booked of it: it is read from its beginning")
		upTo = 0
	}
	var list []uint64
	for _, e := range l.s.back.list(pagePrefix) {
		n, err := strconv.ParseUint(strings.TrimPrefix(e.Key, pagePrefix), 10, 64)
		if err != nil {
			return fmt.Errorf("key %q of bucket %s: %w", e.Key, l.s.back.stream, err)
		}
		list = append(list, n)
	}
	slices.Sort(list)
	for _, n := range list {
		if err := l.readPage(ctx, n, log.First, upTo); err != nil {
			return fmt.Errorf("what is booked of stream %s: %w", l.stream, err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.books.upTo = upTo
	l.applied = max(upTo, 1) - 1
	return nil
}

// readPage gives to the sessions what page n names, from a sequence of the log on and
// before another.
func (l *sessionLog) readPage(ctx context.Context, n, from, upTo uint64) error {
	e, _ := l.s.back.get(pageKey(n))
	f := fields.Reader{Rest: e.Value}
	count := 0
	switch format := f.Byte(); format {
	case pageHolds:
		for seq := n * logPage; len(f.Rest) > 0; count++ {
			seq += f.Uint()
			x := &logged{seq: seq}
			copy(x.id[:], f.Take(len(x.id)))
			x.queued, x.expires = int64(f.Uint()), int64(f.Uint())
			x.size = size{int64(f.Uint()), int64(f.Uint())}
			x.to = f.Text()
			routes, _, err := parseRoutes([]byte(x.to))
			if f.Bad || err != nil {
				return fmt.Errorf("page %d is malformed", n)
			}
			if seq >= from && seq < upTo {
				l.enter(x, routes, nil, false)
			}
		}
	case pageLog:
		count = math.MaxInt / 2 // it is written again once it fits
		err := l.s.scan(ctx, l.stream, l.subject, span{max(n*logPage, from), min((n+1)*logPage, upTo)}, func(m *stored) error {
			l.take(m, false)
			return nil
		})
		if err != nil {
			return err
		}
	default:
		return &openError{ErrUnfit, fmt.Errorf("page %d is of format %d, and this program knows %d: it was written by a newer one", n, format, pageLog)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.books.at(n * logPage).written = max(count, 1)
	if l.books.look(n) {
		l.bookSoon()
	}
	return nil
}

// reclaim has what no session waits for taken out of the log, whose first message and
// number of messages are those of a start.
func (l *sessionLog) reclaim(log streamState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.applied + 1
	if seq, _, ok := l.live.Min(); ok {
		first = seq
	}
	if log.Msgs > 0 && log.First < first {
		l.freed = append(l.freed, log.First)
	}
	if n := int64(l.live.Len()); log.Msgs > n+max(n, logHoles) { // some may be gone, which costs an answer
		for seq := first; seq < l.books.upTo && len(l.holes) < logForgotten; seq++ {
			if _, ok := l.live.Get(seq); !ok {
				l.holes = append(l.holes, seq)
			}
		}
	}
	if len(l.freed)+len(l.holes) > 0 {
		l.sweepSoon()
	}
}
