package broker

import (
	"context"
	"encoding/binary"
	"sync"

	"millrace/broker/fields"
	"millrace/router"
)

// theirs is what a peer wants, as it has told: its filters stand in our topic tree.
type theirs struct {
	p *peer

	mu      sync.Mutex       // protects what follows; taken before that of the tree and of shares
	filters map[wish]*placed // in the tree
	version uint64           // 0: nothing whole yet
	sum     uint64
	copy    uint64 // the one that is being taken, or was taken last
	parts   uint64 // of it that are here
	ended   bool
	whole   chan struct{} // closed with the first whole copy
}

// maxTold is how many members of a shared subscription count at one node.
const maxTold = 1 << 20

// placed is a filter of a peer in the tree.
type placed struct {
	sub   *Subscription
	count int    // how many there want it
	copy  uint64 // that last had it
}

func (t *theirs) init(p *peer) {
	t.p, t.filters, t.whole = p, make(map[wish]*placed), make(chan struct{})
}

// await waits for the first copy.
func (t *theirs) await(ctx context.Context) bool {
	select {
	case <-t.whole:
		return true
	case <-t.p.gone:
		return true
	case <-ctx.Done():
		return false
	}
}

// hearInterest takes what a peer tells about its interest. To changes it answers
// with the version that it has then, to a part of a copy with how many it has.
func (ps *peers) hearInterest(_ context.Context, from string, body []byte) ([]byte, error) {
	r := fields.Reader{Rest: body}
	format, start, what := r.Byte(), r.Fixed64(), r.Byte()
	if r.Bad || format != interestFormat {
		return nil, errorf(Unavailable, NoSubject, "node %s tells its interest in format %d, which this one does not read; run the same version on all", from, format)
	}
	p := ps.known(from, start) //nolint:contextcheck // what it begins goes on until the node leaves
	if p == nil {
		return nil, errorf(Unavailable, NoSubject, "node %s is not known here yet; it is to try again", from)
	}
	t := &p.theirs
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil, errorf(Unavailable, NoSubject, "node %s has left", from)
	}
	switch what {
	case interestChanges:
		return binary.AppendUvarint(nil, t.takeChanges(&r)), nil
	case interestCopy:
		return binary.AppendUvarint(nil, t.takeCopy(&r)), nil
	default:
		return nil, errCodec
	}
}

// takeChanges takes changes that follow what is here. The caller holds mu.
func (t *theirs) takeChanges(r *fields.Reader) uint64 {
	before, to := r.Uint(), r.Uint()
	if r.Bad || t.version == 0 || before != t.version {
		return t.version
	}
	t.take(r, 0)
	if t.version = to; r.Bad {
		t.version = 0
	}
	return t.version
}

// takeCopy takes the next part of a copy. What it does not have any more goes
// with the last one, so that nothing is missed meanwhile. The caller holds mu.
func (t *theirs) takeCopy(r *fields.Reader) uint64 {
	number, part, parts, version := r.Uint(), r.Uint(), r.Uint(), r.Uint()
	if part == 0 && number > t.copy {
		t.copy, t.parts = number, 0
	}
	if r.Bad || number != t.copy || part != t.parts {
		return 0
	}
	t.take(r, number)
	if r.Bad {
		return 0
	}
	if t.parts++; t.parts < parts {
		return t.parts
	}
	for w, x := range t.filters {
		if x.copy != number {
			t.remove(w)
		}
	}
	if t.version == 0 {
		select {
		case <-t.whole:
		default:
			close(t.whole)
		}
	}
	t.version = version
	return t.parts
}

// take takes the changes in r, which are of a copy or, with 0, of none. The
// caller holds mu.
func (t *theirs) take(r *fields.Reader, number uint64) {
	came := false
	for len(r.Rest) > 0 {
		flags := r.Byte()
		w, count := wish{filter: r.Text(), zero: flags&wishZero != 0}, 1
		if flags&wishCount != 0 {
			count = int(max(1, min(r.Uint(), maxTold)))
		}
		switch x := t.filters[w]; {
		case r.Bad:
		case flags&wishGone != 0:
			t.remove(w)
		case x != nil:
			x.copy = number
			t.count(w, x, count)
		default:
			t.place(w, count, number)
			came = true
		}
	}
	if came {
		t.p.ps.b.joined.Add(1)
	}
}

// place puts a filter into the tree. The caller holds mu.
func (t *theirs) place(w wish, count int, number uint64) {
	x := &placed{sub: t.p.all, count: count, copy: number}
	if w.zero {
		x.sub = t.p.zero
	}
	t.filters[w] = x
	t.sum ^= w.hash(count)
	if _, rest, shared, err := router.Shared(w.filter); shared && err == nil {
		x.sub = t.p.ps.shares.enter(w.filter, rest, t.p, count)
		return
	}
	t.p.ps.b.tree.Insert(w.filter, x.sub)
}

// count notes how many want a filter that is there. The caller holds mu.
func (t *theirs) count(w wish, x *placed, count int) {
	if x.count == count {
		return
	}
	t.sum ^= w.hash(x.count) ^ w.hash(count)
	if x.count = count; x.sub.via.share != nil {
		t.p.ps.shares.count(x.sub, count)
	}
}

// remove takes a filter out, if it is there. The caller holds mu.
func (t *theirs) remove(w wish) {
	x := t.filters[w]
	if x == nil {
		return
	}
	delete(t.filters, w)
	t.sum ^= w.hash(x.count)
	if x.sub.via.share != nil {
		t.p.ps.shares.leave(x.sub)
		return
	}
	t.p.ps.b.tree.Remove(w.filter, x.sub)
}

// end takes all out, for good.
func (t *theirs) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	for w := range t.filters {
		t.remove(w)
	}
}

// filtersHere is how many filters of peers stand in the tree.
func (ps *peers) filtersHere() int {
	n := 0
	for _, p := range ps.list() {
		p.theirs.mu.Lock()
		n += len(p.theirs.filters)
		p.theirs.mu.Unlock()
	}
	return n
}

// Messages of kindDigest begin as those of kindInterest.
const (
	digestSum  = 1 // then the version and the sum: so much is there
	digestLost = 2 // then nothing: tell me all
)

// tellDigest tells p what it should have, if it has said that it has it.
func (i *interest) tellDigest(p *peer) {
	i.mu.Lock()
	body := binary.LittleEndian.AppendUint64(fields.AppendUints(i.header(digestSum), i.version), i.sum)
	whole := p.acked == i.version
	i.mu.Unlock()
	if whole {
		p.ps.cluster.Tell(p.node.Name, kindDigest, body)
	}
}

// hearDigest compares what a peer wants with what is here of it, and asks it for
// a copy if that differs; or hears that this is so there.
func (ps *peers) hearDigest(from string, body []byte) {
	r := fields.Reader{Rest: body}
	format, start, what := r.Byte(), r.Fixed64(), r.Byte()
	if r.Bad || format != interestFormat {
		return
	}
	p := ps.known(from, start)
	switch {
	case p == nil:
	case what == digestLost:
		ps.interest.has(p, 0)
		signal(p.news)
	case what == digestSum:
		version, sum := r.Uint(), r.Fixed64()
		if !r.Bad && !p.theirs.agrees(version, sum) {
			ps.stats.repairs.Add(1)
			ps.cluster.Tell(from, kindDigest, ps.interest.header(digestLost))
		}
	}
}

// agrees reports whether what is here is what a peer says it should be. What is
// newer than that is well.
func (t *theirs) agrees(version, sum uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.version > version || t.version == version && t.sum == sum
}
