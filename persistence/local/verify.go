package local

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/persistence/journal"
)

// Verdict is what Verify found in a data directory.
type Verdict struct {
	Dir       string `json:"dir"`
	Sound     bool   `json:"sound"`
	LogEnd    string `json:"log_end"`   // segment and offset
	Watermark string `json:"watermark"` // up to where the log is known to have been; 00000000:0 = it says nothing

	Segments       int    `json:"segments"`
	JournalBytes   int64  `json:"journal_bytes"`
	Queues         int    `json:"queues"`
	Sessions       int    `json:"sessions"`
	Messages       int64  `json:"messages"` // that wait in queues and sessions, in any state
	Streams        int    `json:"streams"`
	Subscriptions  int    `json:"subscriptions"`
	StreamMessages uint64 `json:"stream_messages"`
	StreamFiles    int    `json:"stream_files"`
	StreamBytes    int64  `json:"stream_bytes"`

	Damage  []Damage  `json:"damage"`
	Missing []Missing `json:"missing"`
}

// Verify examines the data directory dir and changes nothing in it. It opens
// the store as a start does, over a view of the directory whose changes stay in
// memory, and then reads everything in it once: a directory that it calls sound
// opens, and shows all that it holds. Damage is named, all of it and not just
// the first. A directory that is in use is a *journal.LockedError, one that is
// not Millrace's, or is newer, a *FormatError or *journal.VersionError.
func Verify(ctx context.Context, fsys journal.FS, dir string) (*Verdict, error) {
	view := journal.View(fsys)
	version, err := readFormat(view, dir)
	if err != nil {
		return nil, err
	}
	if version == 0 {
		return nil, &FormatError{Dir: dir, Reason: "it has no FORMAT file, so it is not a data directory"}
	}
	s, err := Open(Options{Dir: dir, FS: view, AcceptLoss: true, FirstSegmentSize: 8 << 10, Log: zerolog.Nop()}) //nolint:contextcheck // it ends with its Close
	v := &Verdict{Dir: dir, Damage: []Damage{}, Missing: []Missing{}}
	if d, ok := errors.AsType[*journal.DamageError](err); ok { // so bad that it does not open at all
		v.found(dir, d)
		return v, nil
	}
	if err != nil {
		return nil, err
	}
	v.Damage, v.Missing = s.losses.all.Damage, s.losses.all.Missing
	v.verify(ctx, s)
	v.Sound = len(v.Damage) == 0
	return v, errors.Join(ctx.Err(), s.Close(context.WithoutCancel(ctx)))
}

// verify reads all that the store holds, and counts it.
func (v *Verdict) verify(ctx context.Context, s *Store) {
	if err := s.Check(); err != nil {
		v.found(v.Dir, err)
	}
	st := s.journal.State()
	v.LogEnd, v.Watermark = st.Recovered.String(), st.Marked.String()
	for _, seg := range s.journal.Segments() {
		if seg.Number <= st.Recovered.Segment() { // not the one that the view began
			v.Segments++
			v.JournalBytes += seg.Size
		}
	}
	for _, t := range s.all() {
		if ctx.Err() != nil {
			return
		}
		switch {
		case t.q != nil:
			switch t.q.def.Kind {
			case broker.SessionTarget:
				v.Sessions++
			case broker.SubscriptionTarget:
				v.Subscriptions++ // its messages are the stream's
			default:
				v.Queues++
			}
			if !t.q.volatile {
				v.queue(ctx, t.q)
			}
		case !t.st.volatile:
			v.Streams++
			for _, p := range t.st.partitions() {
				v.partition(ctx, p)
			}
		default:
			v.Streams++
		}
	}
}

// found notes damage that shows when something is read.
func (v *Verdict) found(where string, err error) {
	d := Damage{File: where, Reason: err.Error()}
	if x, ok := errors.AsType[*journal.DamageError](err); ok {
		d = Damage{File: x.File, Offset: x.Offset, Reason: x.Reason, From: x.Offset}
	}
	if !slices.Contains(v.Damage, d) {
		v.Damage = append(v.Damage, d)
	}
}

// queue reads every message of a queue.
func (v *Verdict) queue(ctx context.Context, q *queue) {
	var l loader
	var d broker.Delivery
	for _, c := range q.chunks.list {
		var picks []pick
		for i := range c.entries {
			if c.entries[i].state() != gone {
				p, _ := q.look(c, i)
				picks = append(picks, p)
			}
		}
		v.Messages += int64(len(picks))
		for ; len(picks) > 0 && ctx.Err() == nil; picks = picks[min(len(picks), loadMax):] {
			some := picks[:min(len(picks), loadMax)]
			l.begin(q, some, 0)
			for i := range some {
				if err := l.message(some, i, &d); err != nil {
					v.found(fmt.Sprintf("message %d of %s %q", some[i].seq, kindName(q.def.Kind), q.name), err)
					v.Missing = append(v.Missing, Missing{Kind: kindName(q.def.Kind), Name: q.name, First: some[i].seq, Messages: 1})
				}
			}
		}
	}
}

// partition reads every message of a partition, and passes over what cannot be
// read.
func (v *Verdict) partition(ctx context.Context, p *partition) {
	for _, f := range p.files {
		v.StreamFiles++
		v.StreamBytes += f.length()
	}
	var list []broker.Delivery
	var mem broker.Buffer
	at, end := p.first, p.shown
	for at < end && ctx.Err() == nil {
		var err error
		var next uint64
		mem.Reset()
		list, next, err = p.read(at, want{readAtOnce, 1 << 20, &mem}, list[:0])
		v.StreamMessages += uint64(len(list))
		if err == nil && next > at {
			at = next
			continue
		}
		if n := len(list); n > 0 {
			at = list[n-1].Seq + 1
		}
		if err != nil {
			v.found(fmt.Sprintf("stream %q, partition %d, offset %d", p.st.def.Name, p.number, at), err)
		}
		skip := p.behind(at)
		v.Missing = append(v.Missing, Missing{Kind: "stream", Name: p.st.def.Name, Partition: p.number, First: at, Messages: skip - at})
		at = skip
	}
}

// behind is where reading may go on behind a place that cannot be read: at the
// next file, or at the next message of the journal.
func (p *partition) behind(o uint64) uint64 {
	for _, f := range p.files {
		if f.base > o {
			return f.base
		}
	}
	if o < p.copied {
		return p.copied
	}
	return o + 1
}
