package local

import (
	"strings"

	"millrace/broker"
)

const (
	// dedupWindow is how long a repeat is told as a duplicate, in milliseconds.
	dedupWindow = 5 * 60 * 1000
	// dedupMax bounds the window by number: beyond it the oldest are forgotten.
	dedupMax = 1 << 20
)

// dedup remembers the de-duplication keys of the window. It is under the
// append lock. What is too old is dropped when something is added: an idle
// store keeps it and runs no timer for it.
type dedup struct {
	byKey map[string]firstSeen
	order []string // oldest first
	head  int
}

// firstSeen is the message that had a key first.
type firstSeen struct {
	id   broker.ID
	hash uint64
	time int64
}

// find returns the first message with key in the window that ends now.
func (d *dedup) find(key string, now int64) (firstSeen, bool) {
	f, ok := d.byKey[key]
	return f, ok && now-f.time < dedupWindow
}

// add remembers a message that was stored.
func (d *dedup) add(key string, id broker.ID, hash uint64, now int64) {
	if d.byKey == nil {
		d.byKey = map[string]firstSeen{}
	}
	for d.head < len(d.order) {
		oldest := d.order[d.head]
		if now-d.byKey[oldest].time < dedupWindow && len(d.byKey) < dedupMax {
			break
		}
		delete(d.byKey, oldest)
		d.order[d.head] = ""
		d.head++
	}
	if d.head > 1024 && d.head > len(d.order)/2 {
		d.order = append(d.order[:0:0], d.order[d.head:]...)
		d.head = 0
	}
	key = strings.Clone(key) // the message's bytes may be a large buffer
	d.byKey[key] = firstSeen{id: id, hash: hash, time: now}
	d.order = append(d.order, key)
}
