package broker

import (
	"context"
	"time"
)

// What tests in broker_test may reach.

// Murmur2 is the partitioner.
var Murmur2 = murmur2

// IDs returns a source of ids.
func IDs() func(time.Time) ID { return new(idSource).next }

// Receipts returns the writer and reader of receipts over s.
func Receipts(ctx context.Context, s Store) (write func(Ref, int64, ID) string, read func(string) (Ref, int64, ID, bool), err error) {
	k, err := loadReceiptKey(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	write = func(r Ref, at int64, id ID) string {
		got := []Received{{Delivery: Delivery{Ref: r, Message: Message{ID: id}}}}
		k.writeAll(got, at)
		return got[0].Receipt
	}
	read = func(s string) (Ref, int64, ID, bool) {
		r, ok := k.read(s)
		return r.ref, r.delivered, r.id, ok
	}
	return write, read, nil
}

// Records of sessions are read by these; what they make of bytes is not the point.
var (
	ReadSession      = func(b []byte) error { _, err := decodeSession(b); return err }
	ReadWill         = func(b []byte) error { _, err := decodeWill(b); return err }
	ReadSubscription = func(b []byte) (again []byte, err error) {
		o, err := decodeOptions(b)
		return o.encode(), err
	}
	SplitSessionKey = splitSessionKey
)

// Wakes is how many times sessions are to be looked at.
func Wakes(b *Broker) int {
	b.sessions.mu.Lock()
	defer b.sessions.mu.Unlock()
	return len(b.sessions.wakes)
}

// Expiries is of how many retained messages the end is noted.
func Expiries(b *Broker) int {
	b.retained.sweep.mu.Lock()
	defer b.retained.sweep.mu.Unlock()
	return len(b.retained.sweep.due)
}
