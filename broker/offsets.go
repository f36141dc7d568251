package broker

import "fmt"

// Offset is a place in a stream: a message, or where the next one comes.
type Offset struct {
	Partition uint32
	Offset    uint64
}

// RangeError says that an offset lies below the first entry that its partition
// still has. It is ErrGone.
type RangeError struct{ First, Next uint64 }

// Error names what there is.
func (e *RangeError) Error() string {
	return fmt.Sprintf("offset below the first: %d to %d are there", e.First, e.Next)
}

// Unwrap returns ErrGone.
func (e *RangeError) Unwrap() error { return ErrGone }

// SettleAt is Settle of the message of a subscription at o, whoever has it now.
// It is ErrNotFound if the partition does not have it yet, or if it is more than
// 65,536 messages ahead of what was handed out.
func (b *Batch) SettleAt(t Target, o Offset, why Reason) {
	b.onOffsets(Op{Kind: OpSettleAt, Ref: Ref{Target: t}, Reason: why}, o)
}

// SettleUpTo settles the message of a subscription at o and all before it in
// their partition, whoever has them; Result.Count says how many were not settled
// before. ErrNotFound if the partition does not have that message yet.
func (b *Batch) SettleUpTo(t Target, o Offset, why Reason) {
	b.onOffsets(Op{Kind: OpSettleUpTo, Ref: Ref{Target: t}, Reason: why}, o)
}

// Seek has a subscription go on at the given offsets, one for a partition at
// most; other partitions stay as they are. In those named nothing is leased,
// delayed, held or dead any more, and Refs from before are ErrStale, or ErrGone
// if their message is not to come again. ErrNotFound if a partition does not
// exist, or ends before the offset.
func (b *Batch) Seek(t Target, to ...Offset) {
	b.onOffsets(Op{Kind: OpSeek, Ref: Ref{Target: t}}, to...)
}

func (b *Batch) onOffsets(op Op, os ...Offset) {
	n := len(b.offsets)
	b.offsets = append(b.offsets, os...)
	op.Offsets = b.offsets[n:]
	b.Ops = append(b.Ops, op)
}
