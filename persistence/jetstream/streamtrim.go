package jetstream

import "context"

// JetStream reserves what a stream may hold at most, so that a generous limit
// would be refused by a small server. Streams have none there; the node takes the
// oldest when there is too much.

// entryBytes is more than JetStream adds to a message: subject, headers, marks.
const entryBytes = 160

// trim has the oldest taken if the stream holds more than it may. The lock is held.
func (t *stream) trim() {
	if t.cutting || !t.tooLarge() {
		return
	}
	t.cutting = true
	t.s.spawn(func() {
		t.mu.Lock()
		var err error
		for err == nil && t.tooLarge() { // more may have come after it was asked
			t.mu.Unlock()
			err = t.cut(t.s.ctx)
			t.mu.Lock()
		}
		t.cutting = false
		t.mu.Unlock()
		if err != nil {
			t.s.log.Warn().Err(err).Str("stream", t.name()).Msg("a stream holds more than it may; it is tried again with the next message")
		}
	})
}

// tooLarge reports whether the stream may hold more than its limit. The lock is held.
func (t *stream) tooLarge() bool {
	n := int64(0)
	for _, p := range t.parts {
		n += p.bytes
	}
	return t.def.MaxBytes > 0 && n > t.def.MaxBytes
}

// cut takes the oldest messages of any partition while there is too much.
func (t *stream) cut(ctx context.Context) error {
	for {
		t.mu.Lock()
		limit, parts := t.def.MaxBytes, t.parts
		t.mu.Unlock()
		if limit <= 0 {
			return nil
		}
		var oldest *partition
		var at streamState
		total := int64(0)
		for _, p := range parts {
			t.mu.Lock()
			before := p.bytes
			t.mu.Unlock()
			x, err := p.state(ctx)
			if err != nil {
				return err
			}
			t.mu.Lock()
			p.bytes += x.Bytes - before // with what came meanwhile, though that may be in it
			t.mu.Unlock()
			total += x.Bytes
			if x.Msgs > 0 && (oldest == nil || x.Since.Before(at.Since)) {
				oldest, at = p, x
			}
		}
		if total <= limit || oldest == nil {
			return nil
		}
		// A sixteenth of the limit at a time, so that partitions take turns by age.
		bytes := min(total-limit, limit/16+1)
		n := max(bytes*at.Msgs/max(at.Bytes, 1), 1)
		if err := t.s.purgeBefore(ctx, oldest.stream, "", at.First+uint64(min(n, at.Msgs))); err != nil {
			return err
		}
	}
}
