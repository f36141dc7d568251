package jetstream

import (
	"context"
	"math"
	"sync/atomic"
)

// weighEvery is how often the store counts what it holds, in milliseconds; less often
// when that takes long.
const weighEvery = 1000

// weight is how much the store holds. Whoever asks has it counted again when that
// was last done a while ago: only the servers know what retention took.
type weight struct {
	bytes atomic.Int64
	again atomic.Int64 // when to count again, Unix milliseconds
}

// Stored implements broker.Store.
func (s *Store) Stored() int64 {
	now := s.milli()
	if at := s.weight.again.Load(); at <= now && s.weight.again.CompareAndSwap(at, math.MaxInt64) {
		s.spawn(s.weigh)
	}
	return s.weight.bytes.Load()
}

// weigh counts what the store holds. When the servers do not answer the count stays
// what it was.
func (s *Store) weigh() {
	begin, bytes := s.milli(), int64(0)
	for _, t := range s.all() {
		n, err := weightOf(s.ctx, t)
		if _, dropped := s.lookup(t.definition().Target); err != nil && dropped == nil {
			bytes = s.weight.bytes.Load()
			break
		}
		bytes += n
	}
	s.weight.bytes.Store(bytes)
	now := s.milli()
	s.weight.again.Store(now + max(weighEvery, 9*(now-begin)))
}

// weightOf is how much a target holds. The messages of a subscription are its stream's.
func weightOf(ctx context.Context, t target) (int64, error) {
	switch t := t.(type) {
	case *subscription:
		return 0, nil
	case *queue:
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.total().bytes, nil
	}
	in, err := t.info(ctx)
	return in.Bytes, err
}
