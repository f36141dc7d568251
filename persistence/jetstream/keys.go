package jetstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/tidwall/btree"

	"millrace/broker"
)

// kinds names the bucket of each space.
var kinds = map[broker.Space]string{
	broker.SpaceSystem: "sys", broker.SpaceAuth: "auth", broker.SpaceSessions: "sess",
	broker.SpaceRetained: "ret", broker.SpaceCursors: "cur", broker.SpaceSchemas: "schema",
}

// Headers that JetStream, its key/value buckets and we ourselves read.
const (
	headerID       = "Nats-Msg-Id"
	headerTTL      = "Nats-TTL"
	headerExpected = "Nats-Expected-Last-Subject-Sequence"
	headerKV       = "KV-Operation"
	headerKey      = "Mr-Key" // the key, where the subject has its hash
)

// markerTTL is how long the mark of a deleted key stays in its bucket. A start reads
// all marks there are, and some deliveries leave one each. Without it a write that makes
// the key may land which is on its way for longer than that, from a node that was given
// up: its connection ends after two pings, in seconds.
const markerTTL = time.Minute

// fewMarks are so few deleted keys that nobody looks which of them can be forgotten.
const fewMarks = 1000

// keySpace is a bucket, and a copy of it: one node writes it.
type keySpace struct {
	s       *Store
	stream  string
	subject string
	to      string        // where a key is published, before the key
	age     time.Duration // of a key, 0 = for ever
	water   *watermark

	mu   sync.Mutex
	tree btree.Map[string, broker.Entry]
	gone map[string]mark   // deleted keys whose mark may still be there
	many int               // gone is looked through when it has so many
	busy map[string][]*put // puts under way and those that wait for them, by key
}

// mark is that of a deleted key: its revision, and since when it is known.
type mark struct {
	rev   uint64
	since time.Time
}

// put is one write of a key. With rev 0 it is over whatever the copy has; the servers
// take it over that alone, so that what was on its way when this node was given up
// does not undo what another one wrote since.
type put struct {
	key   string
	value []byte
	rev   uint64
	ttl   time.Duration
	done  func(rev uint64, err error)
	again bool
	holds bool // the prefix
}

// newKeys returns the bucket of a kind, whose keys last for age; 0 = for ever.
func (s *Store) newKeys(kind string, age time.Duration) *keySpace {
	k := &keySpace{
		s: s, stream: s.names.bucketStream(kind), subject: s.names.bucketSubject(kind), age: age,
		gone: map[string]mark{}, busy: map[string][]*put{},
	}
	if k.to = k.subject; s.o.Domain != "" { // as NATS maps them
		k.to = s.o.api() + k.subject
	}
	if kind == nodeBucket { // it holds the watermarks of the others
		k.water = &watermark{s: s, stream: k.stream}
	} else {
		k.water = s.marks.shared(k.stream, filler{subject: k.to + fillerKey, key: true})
	}
	return k
}

// nodeBucket is the kind of the bucket by which the prefix is held.
const nodeBucket = "node"

// openNode makes the bucket by which the prefix is held, and reads it.
func (s *Store) openNode(ctx context.Context) error {
	s.node = s.newKeys(nodeBucket, 0)
	s.marks.elects.Store(s.nc.ConnectedClusterName() != "")
	if err := s.marks.missed(ctx); err != nil {
		return err
	}
	return s.node.open(ctx)
}

// openKeys makes the buckets that are not there, and reads them, and that of the
// node again: another one may have held the prefix until just now.
func (s *Store) openKeys(ctx context.Context) error {
	list := []*keySpace{s.node}
	add := func(kind string, age time.Duration) *keySpace {
		list = append(list, s.newKeys(kind, age))
		return list[len(list)-1]
	}
	for space, kind := range kinds {
		s.keys[space] = add(kind, 0)
	}
	s.defs, s.dedup = add("defs", 0), add("dedup", dedupWindow)
	s.subs, s.back = add("subs", 0), add("back", 0)
	if err := s.openMarks(ctx); err != nil {
		return err
	}
	return parallel(list, func(k *keySpace) error { return k.open(ctx) })
}

// open makes the bucket if it is not there, and reads it.
func (k *keySpace) open(ctx context.Context) error {
	err := k.s.createStream(ctx, jetstream.StreamConfig{
		Name: k.stream, Subjects: []string{k.subject + ">"}, MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew,
		AllowRollup: true, DenyDelete: true, AllowDirect: true, AllowMsgTTL: true, MaxAge: k.age, Duplicates: 2 * time.Minute,
	})
	if err != nil {
		return err
	}
	return k.load(ctx)
}

// load reads the bucket into the copy, which may be written meanwhile: the hold on the
// prefix is renewed.
func (k *keySpace) load(ctx context.Context) error {
	return k.s.scan(ctx, k.stream, k.subject+">", whole, func(m *stored) error {
		key, err := k.keyOf(m)
		if err != nil {
			return err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		k.apply(key, m.value(), m.Seq, m.header.Get(headerKV) != "")
		return nil
	})
}

// look has the copy know what the bucket holds of a key now.
func (k *keySpace) look(ctx context.Context, key string) error {
	encoded, _ := encodeKey(key)
	m, err := k.s.fetch(ctx, k.stream, getRequest{Last: k.subject + encoded})
	if errors.Is(err, broker.ErrNotFound) {
		k.mu.Lock()
		k.tree.Delete(key)
		delete(k.gone, key)
		k.mu.Unlock()
		return nil
	}
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.apply(key, m.value(), m.Seq, m.header.Get(headerKV) != "")
	if have, marked := k.gone[key]; marked {
		k.gone[key] = mark{have.rev, time.Now()}
	}
	return nil
}

// keyOf returns the key that a message of the bucket is of.
func (k *keySpace) keyOf(m *stored) (string, error) {
	if key := m.header.Get(headerKey); key != "" {
		return key, nil
	}
	key, err := decodeKey(m.Subject[len(k.subject):])
	if err != nil {
		return "", fmt.Errorf("stream %s, message %d: %w", k.stream, m.Seq, err)
	}
	return key, nil
}

// apply puts what was recorded into the copy, unless it has something newer. The lock
// is held.
func (k *keySpace) apply(key string, value []byte, rev uint64, deleted bool) {
	if e, ok := k.tree.Get(key); ok && e.Rev >= rev || k.gone[key].rev >= rev {
		return
	}
	if deleted {
		k.tree.Delete(key)
		k.gone[key] = mark{rev, time.Now()}
		if len(k.gone) > k.many { // none of those that go was there a minute ago
			maps.DeleteFunc(k.gone, func(_ string, m mark) bool { return time.Since(m.since) > 2*markerTTL })
			k.many = 2*len(k.gone) + fewMarks
		}
		return
	}
	delete(k.gone, key)
	k.tree.Set(key, broker.Entry{Key: key, Value: value, Rev: rev})
}

// start writes a key. Writes of one key leave one after the other, so that one
// which is repeated never overtakes a newer one.
func (k *keySpace) start(p *put) {
	k.mu.Lock()
	k.busy[p.key] = append(k.busy[p.key], p)
	first := len(k.busy[p.key]) == 1
	k.mu.Unlock()
	if first {
		k.send(p)
	}
}

// send publishes p, which is at the head of its key.
func (k *keySpace) send(p *put) {
	encoded, hashed := encodeKey(p.key)
	h := nats.Header{headerID: {nats.NewInbox()[len("_INBOX."):]}}
	if hashed {
		h[headerKey] = []string{p.key}
	}
	if p.ttl > 0 {
		h[headerTTL] = []string{strconv.Itoa(int(p.ttl/time.Second)) + "s"}
	}
	if p.value == nil {
		h[headerKV], h[headerTTL] = []string{"DEL"}, []string{strconv.Itoa(int(markerTTL/time.Second)) + "s"}
	}
	h[headerExpected] = []string{strconv.FormatUint(k.over(p), 10)}
	from := k.water.level()
	k.s.calls.start(&call{subject: k.to + encoded, header: h, data: p.value, holds: p.holds, done: func(m *nats.Msg, err error) {
		a, err := k.water.answered(from, m, err)
		k.answered(p, a, err)
	}})
}

// over is the revision that p is to follow.
func (k *keySpace) over(p *put) uint64 {
	if p.rev != 0 && p.rev != broker.RevNone {
		return p.rev
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if e, ok := k.tree.Get(p.key); ok && p.rev == 0 {
		return e.Rev
	}
	if m := k.gone[p.key]; time.Since(m.since) < markerTTL {
		return m.rev
	}
	return 0
}

// again sends p, which is over whatever there is, once the copy knows what that is: a
// write whose outcome was unknown, or nothing where the time of the key was over.
func (k *keySpace) again(p *put) {
	if err := k.look(k.s.ctx, p.key); err != nil {
		k.ended(p, 0, fmt.Errorf("%w: %w", broker.ErrUnknown, err))
		return
	}
	k.send(p)
}

// answered records the outcome of p.
func (k *keySpace) answered(p *put, a pubAck, err error) {
	k.mu.Lock()
	_, marked := k.gone[p.key]
	look := errors.Is(err, broker.ErrConflict) && (p.rev == 0 || p.rev == broker.RevNone && marked && !p.again)
	p.again = true
	if err == nil {
		k.apply(p.key, p.value, a.Seq, p.value == nil)
	}
	k.mu.Unlock()
	if look { // it may be a mark that went, or that did not go yet
		k.s.work.Go(func() { k.again(p) })
		return
	}
	k.ended(p, a.Seq, err)
}

// ended tells the outcome of p and sends the next of its key.
func (k *keySpace) ended(p *put, rev uint64, err error) {
	k.mu.Lock()
	rest := k.busy[p.key][1:]
	if len(rest) == 0 {
		delete(k.busy, p.key)
	} else {
		k.busy[p.key] = rest
	}
	k.mu.Unlock()
	p.done(rev, err)
	if len(rest) > 0 {
		k.send(rest[0])
	}
}

// set writes a key and waits.
func (k *keySpace) set(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	return k.write(ctx, &put{key: key, value: value, rev: rev})
}

// hold is set of the key by which the prefix is held.
func (k *keySpace) hold(ctx context.Context, key string, value []byte, rev uint64, ttl time.Duration) (uint64, error) {
	return k.write(ctx, &put{key: key, value: value, rev: rev, ttl: ttl, holds: true})
}

// write starts p and waits.
func (k *keySpace) write(ctx context.Context, p *put) (uint64, error) {
	type outcome struct {
		rev uint64
		err error
	}
	end := make(chan outcome, 1)
	p.done = func(rev uint64, err error) { end <- outcome{rev, err} }
	k.start(p)
	select {
	case o := <-end:
		return o.rev, o.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", broker.ErrUnknown, ctx.Err())
	}
}

// resolve asks what became of a write whose outcome is unknown, and fails the store
// if somebody else wrote the key. The next write knows the revision then.
func (k *keySpace) resolve(ctx context.Context, key string, tried []byte) error {
	encoded, _ := encodeKey(key)
	m, err := k.s.fetch(ctx, k.stream, getRequest{Last: k.subject + encoded})
	if errors.Is(err, broker.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	deleted := m.header.Get(headerKV) != ""
	k.mu.Lock()
	defer k.mu.Unlock()
	known, _ := k.tree.Get(key)
	ours := deleted == (tried == nil) && bytes.Equal(m.Data, tried)
	if !ours && m.Seq != max(known.Rev, k.gone[key].rev) {
		err := fmt.Errorf("another node wrote the key %q of bucket %s: this one must start again", key, k.stream)
		k.s.fail(err)
		return fmt.Errorf("%w: %w", broker.ErrUnknown, err)
	}
	k.apply(key, m.value(), m.Seq, deleted)
	return nil
}

// landed finds out whether a write that was refused because of its revision is what
// the key holds; it is ErrUnknown if not. It may be there only a while later: a repeat is
// refused while the servers still decide about the first.
func (k *keySpace) landed(ctx context.Context, p *put) error {
	tick := time.NewTicker(resendAfter)
	defer tick.Stop()
	for begun := time.Now(); ; {
		if err := k.resolve(ctx, p.key, p.value); err != nil {
			return err
		}
		if e, ok := k.get(p.key); ok == (p.value != nil) && bytes.Equal(e.Value, p.value) {
			return nil
		}
		if time.Since(begun) >= giveUpAfter {
			return broker.ErrUnknown
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", broker.ErrUnknown, ctx.Err())
		}
	}
}

// get returns a key of the copy.
func (k *keySpace) get(key string) (broker.Entry, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.tree.Get(key)
}

// list returns the entries below a prefix, in order.
func (k *keySpace) list(prefix string) []broker.Entry {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []broker.Entry
	k.tree.Ascend(prefix, func(key string, e broker.Entry) bool {
		if len(key) < len(prefix) || key[:len(prefix)] != prefix {
			return false
		}
		all = append(all, e)
		return true
	})
	return all
}

// Get implements broker.Store.
func (s *Store) Get(_ context.Context, space broker.Space, key string) (broker.Entry, error) {
	if k := s.keys[space]; k != nil {
		if e, ok := k.get(key); ok {
			return e, nil
		}
	}
	return broker.Entry{}, broker.ErrNotFound
}

// List implements broker.Store.
func (s *Store) List(ctx context.Context, space broker.Space, prefix string, f func(broker.Entry) bool) error {
	k := s.keys[space]
	if k == nil {
		return nil
	}
	for _, e := range k.list(prefix) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !f(e) {
			return nil
		}
	}
	return nil
}
