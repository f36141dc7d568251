package broker

import "sync/atomic"

// removalPage is how many retained messages are removed at once, so that others
// have their turn at the store while very many go.
const removalPage = 1000

// removals take retained messages out of store and index. Each is a batch of its
// own, so that the index follows each topic in the order of its commits.
type removals struct {
	r    *retained
	list []removal
	left atomic.Int32
	done chan struct{} // closed when the store has answered all
}

// removal is one of them.
type removal struct {
	Batch
	all   *removals
	topic string
}

// newRemovals returns room for up to size.
func newRemovals(r *retained, size int) *removals {
	return &removals{r: r, list: make([]removal, 0, size), done: make(chan struct{})}
}

// add appends the message of a topic, if that has this revision; 0 = any.
func (x *removals) add(topic string, rev uint64) {
	x.list = append(x.list, removal{all: x, topic: topic})
	b := &x.list[len(x.list)-1].Batch
	b.Put(SpaceRetained, topic, nil, rev)
	b.End()
}

// submit hands them to the store.
func (x *removals) submit(l Level) {
	if len(x.list) == 0 {
		close(x.done)
		return
	}
	x.left.Store(int32(len(x.list)))
	for i := range x.list {
		x.r.b.store.Submit(&x.list[i].Batch, l, &x.list[i])
	}
}

// Done implements Completion.
func (m *removal) Done(b *Batch) {
	if b.Units[0].Result.Err == nil && m.all.r.b.cluster == nil {
		m.all.r.forget(m.topic)
	}
	if m.all.left.Add(-1) == 0 {
		close(m.all.done)
	}
}
