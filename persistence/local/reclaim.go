package local

import (
	"errors"
	"io/fs"
	"sync"

	"millrace/persistence/journal"
)

// reclaim frees the segments that nobody needs: no message of a queue lives in
// them, streams were copied out of them, and both kept checkpoints begin to
// read behind them. Their files are used again.
func (s *Store) reclaim() error {
	needed := s.ckpts.needed()
	var free []journal.Segment
	for _, seg := range s.sealed() {
		if seg.Number < needed && seg.Number <= s.upkeep.copied && s.live.of(seg.Number) == 0 {
			free = append(free, seg)
		}
	}
	if len(free) == 0 {
		return nil
	}
	// What made them free, acks and moves, must not be lost with a power cut.
	if err := s.barrier(); err != nil {
		return err
	}
	if s.box.owes() {
		return nil // something that was discarded is not written
	}
	for _, seg := range free {
		if err := s.journal.Remove(seg.Number); err != nil {
			return err
		}
		if err := s.hints.fs.Remove(s.hints.name(seg.Number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if left := s.journal.Segments(); len(left) > 0 {
		s.live.forget(left[0].Number)
	}
	return nil
}

// orphans are the messages of dropped queues, which are still counted in their
// segments: there may be millions, and who drops a queue does not wait for that.
type orphans struct {
	mu   sync.Mutex
	list [][]*chunk
}

// add takes the chunks of a queue that is being dropped.
func (o *orphans) add(q *queue) {
	if q.volatile || len(q.chunks.list) == 0 {
		return
	}
	o.mu.Lock()
	o.list = append(o.list, q.chunks.list)
	o.mu.Unlock()
}

// forget takes them out of the counts.
func (o *orphans) forget(l *live) {
	o.mu.Lock()
	list := o.list
	o.list = nil
	o.mu.Unlock()
	for _, chunks := range list {
		for _, c := range chunks {
			for i := range c.entries {
				if e := &c.entries[i]; e.state() != gone && e.pos != 0 {
					l.add(e.pos, -int64(e.size))
				}
			}
		}
	}
}
