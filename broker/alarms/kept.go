package alarms

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Keys is the small durable store in which a book outlives the process.
type Keys interface {
	// List returns the values of all keys that begin with prefix, under their
	// whole keys.
	List(ctx context.Context, prefix string) (map[string][]byte, error)
	// Put and Delete return nil when the fact would survive a crash.
	Put(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}

// Keys of a book. An alarm that is over has the place of its number modulo
// maxPast, so that the newest take the room of the oldest; up to a number they
// are forgotten.
const (
	keyPrefix    = "alarm/"
	activePrefix = keyPrefix + "active/" // and the name
	pastPrefix   = keyPrefix + "past/"   // and the place
	forgottenKey = keyPrefix + "forgotten"
)

// past is an alarm that is over, as it is recorded.
type past struct {
	Number uint64
	Alarm
}

func pastKey(number uint64) string { return fmt.Sprintf("%s%04d", pastPrefix, number%maxPast) }

// keeper records what changes in a book, one after the other and behind the
// back of whoever raises an alarm: that must not wait for a disk.
type keeper struct {
	keys      Keys
	unwritten map[string][]byte // nil = to be deleted; guarded by Book.mu
	wake      chan struct{}     // holds one
	stop      chan struct{}
	stopped   chan struct{}
}

// Keep has the book take over what keys hold of an earlier process, whose alarms
// end now if they had not ended, and record its own there until Close.
func (b *Book) Keep(ctx context.Context, keys Keys) error {
	all, err := keys.List(ctx, keyPrefix)
	if err != nil {
		return fmt.Errorf("read the alarms: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept = &keeper{keys: keys, unwritten: map[string][]byte{}, wake: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{})}
	if err := b.load(all); err != nil {
		b.kept = nil
		return err
	}
	go b.kept.run(b) //nolint:contextcheck // it lives until Close
	return nil
}

// load takes over what was recorded. The caller holds mu.
func (b *Book) load(all map[string][]byte) error {
	var over []past
	var open []Alarm
	for key, value := range all {
		var err error
		switch {
		case key == forgottenKey:
			err = json.Unmarshal(value, &b.forgotten)
		case strings.HasPrefix(key, activePrefix):
			var a Alarm
			err = json.Unmarshal(value, &a)
			open = append(open, a)
		default:
			var p past
			err = json.Unmarshal(value, &p)
			over = append(over, p)
		}
		if err != nil {
			return fmt.Errorf("read the alarm %s: %w", key, err)
		}
	}
	slices.SortFunc(over, func(x, y past) int { return cmp.Compare(x.Number, y.Number) })
	b.number = b.forgotten
	for _, p := range over {
		if b.number = max(b.number, p.Number+1); p.Number >= b.forgotten {
			b.past = append(b.past, p.Alarm)
		}
	}
	slices.SortFunc(open, func(x, y Alarm) int { return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.Name, y.Name)) })
	now := time.Now()
	for _, h := range b.active {
		b.write(activePrefix+h.Name, h.Alarm)
	}
	for _, a := range open {
		if _, again := b.active[a.Name]; !again {
			b.write(activePrefix+a.Name, nil)
		}
		a.Until = now
		b.over(a)
	}
	return nil
}

// write notes what is to be recorded; nil deletes. The caller holds mu.
func (b *Book) write(key string, value any) {
	if b.kept == nil {
		return
	}
	var text []byte
	if value != nil {
		var err error
		if text, err = json.Marshal(value); err != nil {
			b.log.Error().Err(err).Str("key", key).Msg("alarm not recorded")
			return
		}
	}
	b.kept.unwritten[key] = text
	select {
	case b.kept.wake <- struct{}{}:
	default:
	}
}

// run records until Close, and once more then.
func (k *keeper) run(b *Book) {
	defer close(k.stopped)
	for {
		select {
		case <-k.wake:
			k.flush(b)
		case <-k.stop:
			k.flush(b)
			return
		}
	}
}

// flush records what there is. What cannot be is lost to the next process; the
// book of this one has it.
func (k *keeper) flush(b *Book) {
	b.mu.Lock()
	all := k.unwritten
	k.unwritten = map[string][]byte{}
	b.mu.Unlock()
	for key, value := range all {
		err := error(nil)
		if value == nil {
			err = k.keys.Delete(context.Background(), key)
		} else {
			err = k.keys.Put(context.Background(), key, value)
		}
		if err != nil {
			b.log.Warn().Err(err).Str("key", key).Msg("alarm not recorded")
		}
	}
}

// Close ends the alarms that hold, and returns when that is recorded or ctx is
// done.
func (b *Book) Close(ctx context.Context) error {
	b.mu.Lock()
	now := time.Now()
	b.sweep(now)
	for _, h := range b.active {
		b.end(h, now)
	}
	k := b.kept
	b.mu.Unlock()
	if k == nil {
		return nil
	}
	close(k.stop)
	select {
	case <-k.stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
