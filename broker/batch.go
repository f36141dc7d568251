package broker

import (
	"sync/atomic"
	"time"
)

// Batch collects units of work and is reused: no method allocates once it is
// warm. A unit is what one End closes, and is one commit: all of it happens, or
// none. A full queue fails its unit only.
type Batch struct {
	Tag any // the caller's
	// Source is whose order counts, a pointer; nil for nobody's. Where a store gives a
	// batch up without knowing its outcome, it does none of the same source that came
	// behind it, until that is told.
	Source any
	Ops    []Op
	Units  []Unit

	routes  []Route
	offsets []Offset
	open    int

	// Left and Priv are the store's.
	Left atomic.Int32
	Priv any
}

// Unit is one atomic part of a Batch and, after Done, its result.
type Unit struct {
	First, Last int // Ops[First:Last]
	Result      Result
}

// Result of a unit, valid after Done. Err is nil, or definite, or ErrUnknown.
type Result struct {
	Err       error
	Full      Target // with ErrFull: the target that refused
	Duplicate bool   // every Publish was a Duplicate
	ID        ID     // of the first Publish, or of its first one
	Seq       uint64 // of the first Publish in its first route
	Rev       uint64 // of the last Put
	Count     int    // what a Purge or SettleUpTo removed
}

// OpKind says what an Op does.
type OpKind uint8

// The operations.
const (
	OpPublish OpKind = iota + 1
	OpSettle
	OpDefer
	OpPark
	OpPut
	OpPurge
	OpReturn
	OpSettleAt
	OpSettleUpTo
	OpSeek
)

// Op is one operation of a unit.
type Op struct {
	Kind    OpKind
	Reason  Reason
	All     bool
	Space   Space
	Ref     Ref
	Until   int64
	Message *Message
	Routes  []Route
	Offsets []Offset
	Key     string
	Value   []byte
	Rev     uint64

	// Results of an OpPublish, valid after Done: the message had been stored
	// before, as First, and was not stored again.
	Duplicate bool
	First     ID
}

// Publish adds m to each route; no two routes are the same. m and its bytes
// stay untouched until Done. A route to a full target that rejects fails the
// unit with ErrFull. One to a target that was dropped meanwhile is left out, as
// if the publish had come before the drop; if all are, the unit fails with
// ErrGone. A repeat (Message.DedupKey) is left out as well: if every publish of
// the unit is one, Result says so.
func (b *Batch) Publish(m *Message, to ...Route) {
	n := len(b.routes)
	b.routes = append(b.routes, to...)
	b.Ops = append(b.Ops, Op{Kind: OpPublish, Message: m, Routes: b.routes[n:]})
}

// Settle removes a delivered message for good, for the reason given. The unit
// fails with ErrGone if it is no longer there, ErrStale if r is older than its
// newest delivery, ErrNotFound if the target is unknown.
func (b *Batch) Settle(r Ref, why Reason) {
	b.Ops = append(b.Ops, Op{Kind: OpSettle, Ref: r, Reason: why})
}

// Defer moves the end of a lease to until. With giveBack the message leaves
// its consumer: ready (or, at its last attempt, lapsed) at once when until is
// not in the future, delayed otherwise; it keeps its place. Without, the lease is extended.
// A held message can be given back for later, and is then told again; a dead
// one can not be deferred, nor a held one extended (ErrStale). Other errors as Settle.
func (b *Batch) Defer(r Ref, until time.Time, giveBack bool) {
	b.Ops = append(b.Ops, Op{Kind: OpDefer, Ref: r, Until: until.UnixMilli(), All: giveBack})
}

// Return undoes a delivery that reached nobody: ready again at its place, the
// attempt not counted. Errors as Settle.
func (b *Batch) Return(r Ref) { b.Ops = append(b.Ops, Op{Kind: OpReturn, Ref: r}) }

// Park moves a held message to the state dead. Errors as Settle.
func (b *Batch) Park(r Ref, why Reason) {
	b.Ops = append(b.Ops, Op{Kind: OpPark, Ref: r, Reason: why})
}

// Put writes a key, or deletes it if v is nil. rev 0 takes whatever is there,
// RevNone wants the key absent, anything else must be its revision (ErrConflict).
func (b *Batch) Put(s Space, key string, v []byte, rev uint64) {
	b.Ops = append(b.Ops, Op{Kind: OpPut, Space: s, Key: key, Value: v, Rev: rev})
}

// Purge removes the ready and delayed messages of t, with all also the leased
// and dead ones, never those held; Result.Count says how many. At most one
// Purge stands in a unit.
func (b *Batch) Purge(t Target, all bool) {
	b.Ops = append(b.Ops, Op{Kind: OpPurge, Ref: Ref{Target: t}, All: all})
}

// End closes a unit and returns its index. A unit without operations is
// answered in its turn and touches no disk.
func (b *Batch) End() int {
	b.Units = append(b.Units, Unit{First: b.open, Last: len(b.Ops)})
	b.open = len(b.Ops)
	return len(b.Units) - 1
}

// OpsOf returns the operations of unit i.
func (b *Batch) OpsOf(i int) []Op { return b.Ops[b.Units[i].First:b.Units[i].Last] }

// Reset empties b for reuse.
func (b *Batch) Reset() {
	clear(b.Ops)
	clear(b.Units)
	b.Tag, b.Source, b.Priv = nil, nil, nil
	b.Ops, b.Units, b.routes, b.offsets, b.open = b.Ops[:0], b.Units[:0], b.routes[:0], b.offsets[:0], 0
}
