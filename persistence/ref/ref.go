// Package ref says how a broker.Ref names a message of a subscription on a
// stream, and which Refs are of its newest delivery. The stores that keep
// subscriptions share it, because their receipts and refusals have to agree.
package ref

import "millrace/broker"

// The sequence of a Ref names the partition and the offset of its message, and
// is never 0:
//
//	partition u16 | offset+1 u48
const (
	offsetBits = 48

	// MaxOffset is above every offset that a sequence can name.
	MaxOffset = 1<<offsetBits - 1
)

// Reach is how far ahead of what was handed out a message can be settled
// (broker.Batch.SettleAt).
const Reach = 1 << 16

// Sequence names the message at o.
func Sequence(o broker.Offset) uint64 { return uint64(o.Partition)<<offsetBits | (o.Offset + 1) }

// Offset is the reverse of Sequence.
func Offset(seq uint64) broker.Offset {
	return broker.Offset{Partition: Partition(seq), Offset: seq&MaxOffset - 1}
}

// Partition is that of a sequence.
func Partition(seq uint64) uint32 { return uint32(seq >> offsetBits) }

// movesBits of the epoch of a Ref count how often the subscription was moved in
// its partition, so that a delivery from before a move does not settle the one
// after it.
const movesBits = 8

// Epoch is that of a Ref which is handed out by a start of the process after so
// many moves.
func Epoch(start uint32, moves uint8) uint32 { return start<<movesBits | uint32(moves) }

// Moves counts those before a Ref of an epoch was handed out.
func Moves(epoch uint32) uint8 { return uint8(epoch) }

// Current reports whether r is of the newest delivery of a message, which was
// handed out so many times. here says that this start of the process did so; a Ref
// of an earlier one is good until then, unless a later delivery was recorded.
func Current(r *broker.Ref, epoch, attempt uint32, here bool) bool {
	switch {
	case r.Epoch == epoch:
		return r.Attempt == attempt
	case Moves(r.Epoch) != Moves(epoch):
		return false // from before a move
	}
	return !here && r.Epoch < epoch && r.Attempt >= attempt
}
