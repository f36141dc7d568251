package broker

import (
	"bytes"
	"context"
	"errors"
	"time"
)

// Store keeps messages, leases, streams and keys. Policy (attempt limits, dead
// letters, access) is the broker's; state and time are the store's. All methods
// may be called from any goroutine.
type Store interface {
	// State tells what the store promises and how it is now. It never blocks
	// and is cheap enough for every request.
	State() State
	// Stored is how many bytes all queues, streams and sessions hold, as their
	// Info.Bytes count them. It never blocks, and is cheap enough for every message.
	// Where others share the store it may be some seconds old.
	Stored() int64
	// Now is the time by which deadlines are judged, here and by the broker: every
	// time in a Message, Batch or Wait is one of it. It begins as the wall clock
	// and does not follow when that is set; it never goes back.
	Now() time.Time
	// Bind gives the receiver of events. It is called once, before any other
	// method but State and Now; until then no lease lapses and no timer runs.
	Bind(Events)
	// Definitions lists the queues and streams that were defined, in no order.
	Definitions(ctx context.Context) ([]Definition, error)
	// Define creates the target d.Name of d.Kind, or alters it when it exists,
	// and returns its handle once the definition is recorded. An impossible
	// change (driver, KeyedFIFO, fewer partitions) is ErrConflict. A change holds
	// at once, also for what is there.
	Define(ctx context.Context, d Def) (Target, error)
	// Drop removes a target with all its messages, a stream with its
	// subscriptions. Waits on it end in ErrGone, and so do old Refs, also when
	// the name is made again. Whatever names a target that never was is ErrNotFound.
	Drop(ctx context.Context, t Target) error
	// Submit hands over b, whose units were closed with End. The store owns b
	// until it calls c.Done(b), once, which it never does before Submit
	// returns. Submit blocks only for back-pressure and is never cancelled.
	Submit(b *Batch, l Level, c Completion)
	// Receive registers w. w.Sink.Deliver(w) is called once: when at least one
	// message is there (at once, on the caller's goroutine, if so now), at
	// w.Until, or on an error. Waits of one target are served in order of
	// arrival; the leases of w.Got run from the call to Deliver. Called again
	// with w from within Deliver, it returns at once, and the goroutine that
	// delivers goes on with w: asking for more costs no stack.
	Receive(w *Wait)
	// Cancel withdraws w if it still waits, and then Deliver is never called;
	// it reports whether it did. A withdrawn wait took nothing: no lease, no attempt.
	// Otherwise Deliver is called soon, if it was not: with what was being delivered, or,
	// by a store that has to ask whether something was, with nothing.
	Cancel(w *Wait) bool
	// Read appends up to limit entries from p on to dst, without leasing them.
	// On a stream an offset below the first entry is a *RangeError, never a
	// silent jump. On a queue it browses what p.State asks for.
	Read(ctx context.Context, t Target, p Pos, limit int, dst []Delivery) ([]Delivery, error)
	// Find returns the delivery of the message id if t handed it out at least
	// once and still holds it, else ErrNotFound. It may be slow: it serves the
	// wording of errors only.
	Find(ctx context.Context, t Target, id ID) (Ref, error)
	// Info counts one target. Numbers may lag behind acks by State().Lag.
	Info(ctx context.Context, t Target) (Info, error)
	// Get returns the newest recorded entry of a key, or ErrNotFound.
	Get(ctx context.Context, s Space, key string) (Entry, error)
	// List calls f with every entry whose key begins with prefix, in order of
	// key, until f returns false.
	List(ctx context.Context, s Space, prefix string, f func(Entry) bool) error
	// Close refuses new work, ends every wait with ErrClosed, waits for what is
	// under way until ctx ends, and releases what it holds.
	Close(ctx context.Context) error
}

// Completion is told the end of a batch, exactly once, from a goroutine of the
// store; it must not block. If State().Ordered, calls come in order of Submit.
type Completion interface{ Done(b *Batch) }

// WaitSink of a Wait gets its outcome in w.Got and w.Err, exactly once. It must not
// block, and may call Receive again with the same Wait.
type WaitSink interface{ Deliver(w *Wait) }

// Events of the store. Calls come from goroutines of the store and must not
// block; the broker answers with a Submit of its own.
type Events interface {
	// Lapsed: these messages of t are held for the broker, which either
	// publishes them elsewhere and acks them in one unit, or parks them. They
	// are not delivered meanwhile. A store that is closed first tells them
	// again after it was opened.
	Lapsed(t Target, why Reason, ds []Delivery)
	// Dropped: n messages of t are gone, and nothing is to be published.
	Dropped(t Target, why Reason, n int)
}

// Level of a Submit.
type Level uint8

const (
	// Durable calls Done after the record is as safe as State().Durability says.
	Durable Level = iota
	// Lazy calls Done without waiting for the disk. Order is kept.
	Lazy
)

// Durability says what a positive answer means.
type Durability string

// The words of the Millrace-Durability header.
const (
	DurabilityDisk    Durability = "disk"    // survives a power cut
	DurabilityRelaxed Durability = "relaxed" // survives kill -9, a power cut may take the last second
	DurabilityMemory  Durability = "memory"  // gone with the process
)

// State is what the store promises (fixed at start) and its condition (moves).
type State struct {
	Durability   Durability
	Atomic       bool          // a unit is applied wholly or not at all
	Ordered      bool          // Done in order of Submit
	StaleRefused bool          // an older Ref is refused after redelivery
	Resolution   time.Duration // of leases and delays
	Lag          time.Duration // of Info behind acks
	Selective    bool          // Wait.Filter is obeyed
	Nodes        int           // more than 1: other nodes share this store
	Err          error         // nil: writes work now
	Full         bool          // publishes are refused, acks and deletes go on
	Lost         []Loss        // what came back without something that was acknowledged
}

// Loss is a part of the store that lost messages which it had acknowledged: it ends at
// Found, and went to Acked.
type Loss struct {
	Kind         TargetKind // 0: targets share the part
	Name         string     // of the target
	Place        string     // the store's own name of the part
	Acked, Found uint64     // sequences
	Accepted     bool       // given up when the store was opened; else the target takes no messages
}

// Target is a queue, a stream or a subscription. It is made new for every definition and never
// used again, also over restarts, so that it can stand in a receipt.
type Target uint64

// TargetKind tells a queue from a stream. The numbers are on disk: append only.
type TargetKind uint8

// The kinds of target. Names of different kinds are apart. A session is a queue
// that one client receives from. A subscription is a queue of the messages of a
// stream: nothing is published to it, and what it settles stays in the stream.
const (
	QueueTarget TargetKind = iota + 1
	StreamTarget
	SessionTarget
	SubscriptionTarget
)

// Space is a namespace of keys.
type Space uint8

// The spaces. Their numbers are on disk: append only.
const (
	SpaceSystem Space = iota + 1 // the broker's own: receipt key, alarms, watched topics
	SpaceAuth                    // users, API keys
	SpaceSessions
	SpaceRetained
	SpaceCursors
	SpaceSchemas // of streams
)

// Reason says why a message left a queue, or is held for the broker. The
// numbers are on disk: append only.
type Reason uint8

// The reasons.
const (
	ReasonNone         Reason = iota
	ReasonAcked               // a consumer is done with it
	ReasonAttempts            // its last lease lapsed or was nacked
	ReasonExpired             // its time was over
	ReasonOverflow            // the queue was full and drops its oldest
	ReasonPurged              // an operator purged the queue
	ReasonDeadLettered        // published to the dead-letter topic
	ReasonHops                // dead-lettered more often than the limit
	ReasonRetention           // parked for longer than the queue keeps its dead
	ReasonMoved               // redriven or moved elsewhere
	ReasonUndelivered         // its client may not have it, or takes nothing as large
	ReasonSkipped             // a subscription was moved past it
	Reasons                   // how many there are
)

// String returns the reason as metrics and dialects show it.
func (r Reason) String() string {
	names := [...]string{"none", "acked", "attempts", "expired", "overflow", "purged", "dead_lettered", "hops", "retention", "moved", "undelivered", "skipped"}
	if int(r) < len(names) {
		return names[r]
	}
	return "unknown"
}

// Def defines a target as far as the store needs to know it.
type Def struct {
	Name string
	Kind TargetKind
	// Expect says what the definition is of: 0 whatever is there, NewTarget nothing
	// (else ErrConflict), anything else that target (else ErrGone). It is not recorded.
	Expect Target
	// Was is the Meta that the definition is a change of, nil whichever there is (else
	// ErrConflict). It is not recorded.
	Was []byte `json:",omitempty"`
	// Meta is the broker's own settings, recorded with the definition.
	Meta []byte

	// Volatile targets live in memory; their definition is recorded.
	Volatile bool
	// MaxMessages, MaxBytes (as stored) and MaxPayload (of payloads alone) limit
	// what the target holds; 0 = no limit.
	// DropOldest makes room by taking the oldest ready message. DropNewest leaves
	// out the route of what does not fit then, and tells it as dropped; otherwise a
	// publish that does not fit is ErrFull. Lapsing says that what an overflow or
	// an expiry takes is held and told to Events.Lapsed instead of dropped.
	MaxMessages, MaxBytes        int64
	MaxPayload                   int64
	DropOldest, DropNewest       bool
	OverflowLapses, ExpiryLapses bool
	// TTL ends a message that long after it entered the queue (or was due),
	// unless it is leased; 0 = never.
	TTL time.Duration
	// Delay is added to every publish into the queue.
	Delay time.Duration
	// LapseAt is the attempt whose lapse or nack is told to Events.Lapsed;
	// 0 = never: the message is ready again without end.
	LapseAt uint32
	// MaxInFlight leases at once, then receives wait; 0 = no limit.
	MaxInFlight int
	// DeadRetention removes parked messages after that long; 0 = never.
	DeadRetention time.Duration
	// Paused queues accept and deliver nothing.
	Paused bool
	// KeyedFIFO allows one message of a Key in flight.
	KeyedFIFO bool

	// Source is the stream of a subscription, and cannot change. A new
	// subscription begins at the offsets in Start, in other partitions at the
	// first entry. Of the rest it obeys LapseAt, MaxInFlight, DeadRetention and Paused.
	Source Target
	Start  []Offset

	// Partitions of a stream, at least 1. They only grow.
	Partitions uint32
	// Retention of a stream: entries are there for that long, and go after it in
	// runs of neighbours, at most an eighth of it or a day late. MaxBytes takes the
	// oldest runs of any partition while the stream holds more. 0 = no limit.
	Retention time.Duration
}

// NewTarget as Def.Expect wants that there is none of the name.
const NewTarget = ^Target(0)

// Check tells the store whether what Expect and Was want is so, given the target of
// the name and its definition, nil if there is none, and forgets them.
func (d *Def) Check(there Target, now *Def) error {
	want, was := d.Expect, d.Was
	d.Expect, d.Was = 0, nil
	switch {
	case want == NewTarget && now != nil:
		return ErrConflict
	case want != 0 && want != NewTarget && (now == nil || want != there):
		return ErrGone
	case was != nil && (now == nil || !bytes.Equal(was, now.Meta)):
		return ErrConflict
	}
	return nil
}

// Definition is a recorded Def and its handle.
type Definition struct {
	Target Target
	Def    Def
}

// Route is one destination of a message. Partition is 0 for a queue. Tag is
// what the broker wants to know about a message in a session when it is
// delivered from there; it is stored with the route, and 0 elsewhere.
type Route struct {
	Target    Target
	Partition uint32
	Tag       uint32
}

// Ref names one delivery of one message. A receipt is its bytes under a MAC;
// nothing is stored for it.
type Ref struct {
	Target  Target
	Seq     uint64
	Attempt uint32
	Epoch   uint32 // the store's: which start of the process handed it out
}

// Delivery is a message in the hands of one consumer, or shown by Read.
type Delivery struct {
	Ref
	Message
	Until     int64      // end of the lease or delay, or since when it is dead, Unix milliseconds
	Queued    int64      // when it entered the target, or a delayed publish was due
	Partition uint32     // of a stream; Seq is then its offset
	Offset    uint64     // of a subscription: where it is in the stream; Seq means nothing then
	Tag       uint32     // of a session: that of the route
	State     EntryState // of a queue
	Reason    Reason     // why it is dead, or lapsed
}

// EntryState is where a message of a queue stands. broker/doc.go draws it.
type EntryState uint8

// The states, and the set that Pos.States wants.
const (
	Ready EntryState = 1 << iota
	Delayed
	Leased
	Dead
)

// Pos is where a Read or a Wait begins. On a stream: behind the last entry (End),
// or at the first one that is there (Begin), or at the first one not before Time,
// or at offset Seq. On a queue: from Seq on, after skipping Skip entries in one
// of the States.
type Pos struct {
	Partition  uint32
	Seq        uint64
	Time       time.Time
	Begin, End bool
	States     EntryState
	Skip       int
}

// Wait asks for messages of a queue or subscription, or for entries of one partition of a
// stream. The caller fills the first part and must not touch it until Deliver;
// it may reuse the Wait after that.
//
// Reading a stream takes nothing away, so nothing is leased, and one commit
// serves all waits that it reaches. A position behind the end waits for it, an
// offset below the first entry is a *RangeError at once. Deliver finds in From
// where to go on, also when nothing came, so that the same Wait asks for what
// follows, and in Bounds the partition as it was then.
//
// A Filter takes only messages of a queue whose topic it matches, each at its
// place among them, and leaves the others alone; a wait is not woken for those.
// With KeyedFIFO a key has still one message in flight. A receive that does not
// wait may take a while, because its answer covers all that is there. A store
// that cannot do this, or a target that is no queue, answers ErrNotSelective.
type Wait struct {
	Target   Target
	Filter   string        // of topics; "" = all
	From     Pos           // of a stream
	Max      int           // messages, at least 1
	MaxBytes int           // payload bytes; at least one message comes; 0 = no limit
	Lease    time.Duration // 0 leases nothing: ready again at once, attempt counted
	Consume  bool          // no lease: gone on delivery (removed durably before Deliver)
	Until    time.Time     // zero = do not wait
	Certain  bool          // ends with ErrUnknown where something may have been lost on its way, and does not go on
	Sink     WaitSink
	Tag      any // the caller's
	// Buffer, of a stream, may take the bytes of Got, which are then good until the
	// Wait is used again. Without one they stay the caller's.
	Buffer *Buffer

	Got    []Delivery
	Bounds PartitionInfo // of a stream
	Err    error

	// Priv is the store's. It may stay when the Wait is used again, and does if
	// Deliver asks for more.
	Priv any
}

// Entry is a key with its newest value.
type Entry struct {
	Key   string
	Value []byte
	Rev   uint64
}

// RevNone as the revision of a Put says that the key must not exist.
const RevNone = ^uint64(0)

// Errors of a Store. All but ErrUnknown are definite: it did not happen.
var (
	ErrUnknown  = errors.New("outcome unknown")
	ErrFull     = errors.New("queue or store full")
	ErrConflict = errors.New("revision or definition does not match")
	ErrGone     = errors.New("no longer there")
	ErrStale    = errors.New("handed out again since")
	ErrNotFound = errors.New("not found")
	ErrClosed   = errors.New("store closed")
	ErrDamaged  = errors.New("takes no messages since acknowledged ones are missing")
	// ErrNotSelective answers a Wait with a Filter.
	ErrNotSelective = errors.New("cannot select messages by topic")
)
