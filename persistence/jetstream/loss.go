package jetstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
)

// A stream that lost something is dealt with when the store is opened. If one target has
// it, the target takes no messages, and gives out what it has, until somebody has seen it
// and starts the store with AcceptLoss; a stream that all share ends the start. Where
// answers are relaxed nobody was promised more, and it is accepted at once. No sequence is
// used twice: receipts, offsets and books name messages by them.
const (
	lossKey      = "losses"
	headerFiller = "Mr-Filler"           // of a message that stands where one was lost
	madeAgain    = "millrace-made-again" // metadata of a stream in place of one that was gone
)

// loss is one, as it is kept until it is accepted or its target is dropped.
type loss struct {
	broker.Loss
	Made   time.Time // the stream, as it was seen; zero if it was gone
	Mixed  bool      // something was added that was not acknowledged: how far it goes says nothing
	Filled bool      // the stream goes as far as it did
}

// stands reports whether the loss is that of the stream as it is now, and not of one in
// whose place somebody has put another since.
func (x *loss) stands(at streamState) bool {
	switch {
	case at.Made.IsZero(), at.Again: // it is gone, or in place of one that was
		return true
	case !at.Made.Equal(x.Made):
		return false
	}
	return x.Mixed || x.Filled || at.Last < x.Acked
}

// filler says how a stream is filled where it lost messages.
type filler struct {
	subject string
	key     bool // of a bucket: it is a deleted key
	stays   bool // readers pass it; elsewhere it is removed
}

// fillerKey is no key: an encoded one has two digits behind each =.
const fillerKey = "=filler"

// lossError says what is missing.
type lossError struct{ *broker.Loss }

func (e *lossError) Error() string {
	what := fmt.Sprintf("stream %s of the nats servers ends at message %d, and they had acknowledged %d", e.Place, e.Found, e.Acked)
	switch {
	case e.Acked == 0:
		what = fmt.Sprintf("stream %s is not there at the nats servers, although others of ours are, and it says how far they went", e.Place)
	case e.Found == 0:
		what = fmt.Sprintf("stream %s is not there at the nats servers, or empty, and they had acknowledged %d messages", e.Place, e.Acked)
	}
	if e.Kind == 0 {
		return what + ": restore it from a backup of the servers, or start with --accept-loss to give up what is missing"
	}
	kind := "queue"
	if e.Kind == broker.StreamTarget {
		kind = "stream"
	}
	return fmt.Sprintf("%s %q takes no messages, because acknowledged ones are missing: %s; nothing was stored: stop the nodes, and restore it from a backup "+
		"of the servers, or start with --accept-loss to give up what is missing", kind, e.Name, what)
}

// Is says which error of the contract e is.
func (e *lossError) Is(target error) bool { return target == broker.ErrDamaged }

// fall notes that the stream ends at a sequence below its watermark. It is mixed where a
// publish has shown that.
func (w *watermark) fall(at uint64, mixed bool) {
	if w.short.Swap(true) {
		return
	}
	x := loss{Loss: broker.Loss{Kind: w.kind, Name: w.name, Place: w.stream, Acked: w.level(), Found: at}, Mixed: mixed}
	w.lost.Store(&x.Loss)
	w.s.spawn(func() {
		now, err := w.s.marks.ask(w.s.ctx, w)
		x.Made = now.Made
		err = cmp.Or(err, insist(w.s.ctx, func(ctx context.Context) error { return w.s.marks.note(ctx, x) }))
		w.s.log.Error().Err(err).Msg((&lossError{&x.Loss}).Error())
		if w.kind == 0 {
			w.s.fail(&lossError{&x.Loss})
		}
	})
}

// note records a loss, and shows it.
func (m *watermarks) note(ctx context.Context, x loss) error {
	m.mu.Lock()
	m.losses = append(slices.DeleteFunc(m.losses, func(old loss) bool { return old.Place == x.Place }), x)
	m.mu.Unlock()
	return m.record(ctx)
}

// settle forgets the losses of streams that nobody has any more.
func (m *watermarks) settle(ctx context.Context) error {
	return m.without(ctx, func(x *loss) bool { return m.of[x.Place] == nil })
}

// forgive forgets the loss of a stream that was restored.
func (m *watermarks) forgive(ctx context.Context, stream string) error {
	return m.without(ctx, func(x *loss) bool { return x.Place == stream })
}

// without forgets some losses.
func (m *watermarks) without(ctx context.Context, which func(*loss) bool) error {
	m.mu.Lock()
	was := len(m.losses)
	m.losses = slices.DeleteFunc(m.losses, func(x loss) bool { return which(&x) })
	same := len(m.losses) == was
	m.mu.Unlock()
	if same {
		return nil
	}
	return m.record(ctx)
}

// record writes the losses down that are not accepted, and has State show all.
func (m *watermarks) record(ctx context.Context) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer func() { <-m.turn }()
	m.mu.Lock()
	all := make([]broker.Loss, len(m.losses))
	var open []loss
	for i, x := range m.losses {
		all[i] = x.Loss
		if !x.Accepted || !x.Filled {
			open = append(open, x)
		}
	}
	m.mu.Unlock()
	if m.blind != nil {
		all = append(all, *m.blind)
	}
	m.told.Store(&all)
	value, err := json.Marshal(open)
	if err == nil {
		_, err = m.s.node.set(ctx, lossKey, value, 0)
	}
	return err
}

// missed looks whether the bucket is gone that says how far streams went, before it is made
// again: then nobody knows what they have lost.
func (m *watermarks) missed(ctx context.Context) error {
	for begun := time.Now(); ; {
		at, err := m.ask(ctx, m.s.node.water)
		if err != nil || !at.Made.IsZero() {
			return err
		}
		defs, err := m.ask(ctx, &watermark{s: m.s, stream: m.s.names.bucketStream("defs")})
		if err != nil || defs.Made.IsZero() { // it is a new prefix
			return err
		}
		if time.Since(begun) >= m.patience() {
			break
		}
		select {
		case <-time.After(markEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.blind = &broker.Loss{Place: m.s.node.stream, Accepted: m.accepts()}
	if !m.blind.Accepted {
		return &openError{ErrUnfit, &lossError{m.blind}}
	}
	m.s.log.Warn().Str("stream", m.s.node.stream).Msg("how far the streams went is not known, and what they have lost is not noticed")
	return nil
}

// accepts reports whether what is lost is given up.
func (m *watermarks) accepts() bool {
	return m.s.o.AcceptLoss || m.s.o.durability() != broker.DurabilityDisk
}

// read reads what an earlier leader wrote down.
func (m *watermarks) read(ctx context.Context) error {
	for key, v := range map[string]any{watermarkKey: &m.written, lossKey: &m.losses} {
		if err := m.s.node.look(ctx, key); err != nil {
			return err
		}
		if e, ok := m.s.node.get(key); ok {
			if err := json.Unmarshal(e.Value, v); err != nil {
				return fmt.Errorf("key %q of bucket %s: %w", key, m.s.names.bucket("node"), err)
			}
		}
	}
	return nil
}

// verify compares streams with their watermarks before anything is read from them, and
// deals with those that are short.
func (m *watermarks) verify(ctx context.Context, list []*watermark) error {
	short := make([]*loss, len(list))
	places := make([]int, len(list))
	for i := range places {
		places[i] = i
	}
	if err := parallel(places, func(i int) (err error) { short[i], err = m.compare(ctx, list[i]); return err }); err != nil {
		return err
	}
	for i, x := range short {
		var err error
		switch {
		case x != nil:
			err = m.note(ctx, *x)
		case list[i].fell:
			m.s.log.Warn().Str("stream", list[i].stream).Msg("what the nats servers had lost is there again")
			err = m.forgive(ctx, list[i].stream)
		}
		if err != nil {
			return err
		}
	}
	for i := range list {
		if err := m.mend(ctx, list[i]); err != nil {
			return err
		}
	}
	return nil
}

// compare looks whether a stream goes as far as its watermark. A loss that is known stays
// one unless the stream is another since.
func (m *watermarks) compare(ctx context.Context, w *watermark) (*loss, error) {
	m.mu.Lock()
	level := m.written[w.stream]
	i := slices.IndexFunc(m.losses, func(x loss) bool { return x.Place == w.stream })
	var known *loss
	if i >= 0 {
		known = new(m.losses[i])
	}
	m.mu.Unlock()
	for begun := time.Now(); ; {
		at, err := m.ask(ctx, w)
		if err != nil {
			return nil, err
		}
		w.raise(max(at.Last, level))
		switch {
		case known != nil && known.stands(at):
			return nil, nil
		case at.Last >= level:
			w.fell = known != nil
			return nil, nil
		case time.Since(begun) >= m.patience():
			return &loss{Loss: broker.Loss{Kind: w.kind, Name: w.name, Place: w.stream, Acked: level, Found: at.Last}, Made: at.Made}, nil
		}
		select {
		case <-time.After(markEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// mend fills the stream of w if it lost something, and accepts that or not.
func (m *watermarks) mend(ctx context.Context, w *watermark) error {
	accept := m.accepts()
	m.mu.Lock()
	i := slices.IndexFunc(m.losses, func(x loss) bool { return x.Place == w.stream })
	if i < 0 {
		m.mu.Unlock()
		return nil
	}
	x := m.losses[i]
	m.mu.Unlock()
	if !accept && x.Kind == 0 {
		return &openError{ErrUnfit, &lossError{&x.Loss}}
	}
	if err := w.fill(ctx, x.Found, x.Acked); err != nil {
		return fmt.Errorf("filling stream %s: %w", w.stream, err)
	}
	w.raise(x.Acked)
	w.fell = true // what the books have is of the stream as it was
	x.Filled, x.Accepted = true, accept
	if accept {
		m.s.log.Warn().Str("stream", x.Place).Uint64("found", x.Found).Uint64("acked", x.Acked).Msg("what the nats servers have lost is given up")
	} else {
		m.s.log.Error().Msg((&lossError{&x.Loss}).Error())
		w.lost.Store(&x.Loss)
	}
	m.mu.Lock()
	m.losses[i] = x
	m.mu.Unlock()
	return m.record(ctx)
}

// fill has the stream go as far as it did, and takes out again what it was filled with. It
// may have been interrupted before. A stream that is not there is made so (createStream).
func (w *watermark) fill(ctx context.Context, found, upTo uint64) error {
	for {
		at, err := w.s.state(ctx, w.stream)
		if e, ok := errors.AsType[*apiError](err); ok && e.ErrCode == errNoStream {
			return nil
		}
		if err != nil {
			return err
		}
		if found = min(found, at.Last); at.Last >= upTo {
			break
		}
		if err := parallel(make([]struct{}, min(upTo-at.Last, readBatch)), func(struct{}) error { return w.fillOne(ctx) }); err != nil {
			return err
		}
	}
	if w.filler.key || w.filler.stays {
		return nil
	}
	var seqs []uint64
	if err := w.s.scan(ctx, w.stream, ">", span{found + 1, math.MaxUint64}, func(m *stored) error {
		if m.header.Get(headerFiller) != "" {
			seqs = append(seqs, m.Seq)
		}
		return nil
	}); err != nil {
		return err
	}
	return parallel(seqs, func(seq uint64) error { _, err := w.s.remove(ctx, w.stream, seq); return err })
}

// fillOne adds one message that stands for nothing.
func (w *watermark) fillOne(ctx context.Context) error {
	h := nats.Header{headerFiller: {"1"}, headerID: {nats.NewInbox()}}
	if w.filler.key {
		h[headerKey], h[headerKV] = []string{fillerKey}, []string{"DEL"}
		h[headerTTL] = []string{strconv.Itoa(int(markerTTL/time.Second)) + "s"}
	}
	m, err := w.s.calls.wait(ctx, w.filler.subject, h, nil)
	if err != nil {
		return err
	}
	_, err = parseAck(m.Data)
	return err
}
