package broker

import (
	"context"
	"time"
)

// Info counts a target.
type Info struct {
	Ready, Leased, Delayed, Dead, Held int64
	Bytes                              int64 // payload and headers, as stored
	Payload                            int64 // of a queue: payload alone; a subscription has neither
	Oldest                             time.Time
	In                                 uint64          // messages that ever entered
	Out                                [Reasons]uint64 // and left, by reason
	Partitions                         []PartitionInfo // of a stream or subscription
	Activity
}

// Activity counts what happened to the messages of a queue since the process
// started. It is no part of the books: a message may be handed out often.
type Activity struct {
	Deliveries uint64 // handed to a consumer
	Lapses     uint64 // leases that ended by themselves
	Returns    uint64 // given back by the consumer (nack)
}

// Difference is what the books of a queue are out by: everything that entered
// is still there or left for a counted reason, so it is 0, always.
func (i *Info) Difference() int64 {
	n := int64(i.In) - i.Ready - i.Leased - i.Delayed - i.Dead - i.Held
	for _, out := range i.Out {
		n -= int64(out)
	}
	return n
}

// PartitionInfo bounds one partition. Of a stream First is the oldest offset
// that can be read, Next the one the next message gets. Of a subscription all
// before First is settled, and what is handed out next is not before Next.
type PartitionInfo struct {
	First, Next uint64
	Bytes       int64
}

// infos shows each of all. What was deleted meanwhile is left out.
func infos[T, I any](ctx context.Context, all []T, show func(context.Context, T) (I, error)) ([]I, error) {
	var shown []I
	for _, one := range all {
		info, err := show(ctx, one)
		switch {
		case isGone(err) || err != nil && KindOf(err) == NotFound:
		case err != nil:
			return nil, err
		default:
			shown = append(shown, info)
		}
	}
	return shown, nil
}
