package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"millrace/broker"
	"millrace/broker/fields"
)

// What nodes send each other of a store is made of varints, texts and messages as
// they are stored. Nodes of one cluster may be of two neighbouring releases:
// a change of what is here is a new number of wireFormat.

// errCodec is what cannot be read.
var errCodec = errors.New("what another node sent is malformed")

// Bits of an operation.
const (
	opAll = 1 << iota
	opValue
	opMessage
)

// encodeBatch returns b as it was handed over.
func encodeBatch(b *broker.Batch, level broker.Level) []byte {
	p := fields.AppendUints([]byte{byte(level)}, uint64(len(b.Units)))
	for i := range b.Units {
		ops := b.OpsOf(i)
		p = binary.AppendUvarint(p, uint64(len(ops)))
		for j := range ops {
			p = appendOp(p, &ops[j])
		}
	}
	return p
}

func appendOp(p []byte, op *broker.Op) []byte {
	bits := byte(0)
	if op.All {
		bits |= opAll
	}
	if op.Value != nil {
		bits |= opValue
	}
	if op.Message != nil {
		bits |= opMessage
	}
	p = append(p, byte(op.Kind), bits, byte(op.Reason), byte(op.Space))
	p = appendRef(p, op.Ref)
	p = binary.AppendVarint(p, op.Until)
	p = binary.AppendUvarint(p, uint64(len(op.Routes)))
	for _, r := range op.Routes {
		p = fields.AppendUints(p, uint64(r.Target), uint64(r.Partition), uint64(r.Tag))
	}
	p = binary.AppendUvarint(p, uint64(len(op.Offsets)))
	for _, o := range op.Offsets {
		p = fields.AppendUints(p, uint64(o.Partition), o.Offset)
	}
	p = binary.AppendUvarint(fields.AppendText(p, op.Key), op.Rev)
	if op.Value != nil {
		p = fields.AppendBytes(p, op.Value)
	}
	if m := op.Message; m != nil {
		p = binary.AppendUvarint(p, uint64(broker.SizeBound(m)))
		p = broker.AppendMessage(p, m)
	}
	return p
}

func appendRef(p []byte, r broker.Ref) []byte {
	return fields.AppendUints(p, uint64(r.Target), r.Seq, uint64(r.Attempt), uint64(r.Epoch))
}

func readRef(r *fields.Reader) broker.Ref {
	return broker.Ref{Target: broker.Target(r.Uint()), Seq: r.Uint(), Attempt: uint32(r.Uint()), Epoch: uint32(r.Uint())}
}

// readBatch is the reverse; what it returns shares p.
func readBatch(p []byte) (*broker.Batch, broker.Level, error) {
	r := fields.Reader{Rest: p}
	level := broker.Level(r.Byte())
	b := new(broker.Batch)
	for range r.Count(1) {
		for range r.Count(4) {
			op, err := readOp(&r)
			if err != nil {
				return nil, level, err
			}
			b.Ops = append(b.Ops, op)
		}
		b.End()
	}
	if r.Bad || len(r.Rest) > 0 {
		return nil, level, errCodec
	}
	return b, level, nil
}

func readOp(r *fields.Reader) (broker.Op, error) {
	op := broker.Op{Kind: broker.OpKind(r.Byte())}
	bits := r.Byte()
	op.All, op.Reason, op.Space = bits&opAll != 0, broker.Reason(r.Byte()), broker.Space(r.Byte())
	op.Ref, op.Until = readRef(r), r.Int()
	if n := r.Count(3); n > 0 {
		op.Routes = make([]broker.Route, n)
	}
	for i := range op.Routes {
		op.Routes[i] = broker.Route{Target: broker.Target(r.Uint()), Partition: uint32(r.Uint()), Tag: uint32(r.Uint())}
	}
	if n := r.Count(2); n > 0 {
		op.Offsets = make([]broker.Offset, n)
	}
	for i := range op.Offsets {
		op.Offsets[i] = broker.Offset{Partition: uint32(r.Uint()), Offset: r.Uint()}
	}
	op.Key, op.Rev = r.Text(), r.Uint()
	if bits&opValue != 0 {
		if op.Value = r.Bytes(); op.Value == nil {
			op.Value = []byte{}
		}
	}
	if bits&opMessage != 0 {
		op.Message = new(broker.Message)
		if err := broker.DecodeMessage(r.Bytes(), op.Message); err != nil {
			return op, err
		}
	}
	return op, nil
}

// appendResults appends what became of b.
func appendResults(p []byte, b *broker.Batch) []byte {
	for i := range b.Units {
		u := &b.Units[i].Result
		p = appendError(p, u.Err)
		p = fields.AppendUints(p, uint64(u.Full), u.Seq, u.Rev, uint64(u.Count))
		p = append(appendBool(p, u.Duplicate), u.ID[:]...)
	}
	for i := range b.Ops {
		if op := &b.Ops[i]; op.Kind == broker.OpPublish {
			p = append(appendBool(p, op.Duplicate), op.First[:]...)
		}
	}
	return p
}

// readResults puts them into b, which was sent.
func readResults(p []byte, b *broker.Batch) error {
	r := fields.Reader{Rest: p}
	for i := range b.Units {
		u := &b.Units[i].Result
		*u = broker.Result{Err: readError(&r)}
		u.Full, u.Seq, u.Rev, u.Count = broker.Target(r.Uint()), r.Uint(), r.Uint(), int(r.Uint())
		u.Duplicate = r.Byte() != 0
		copy(u.ID[:], r.Take(len(u.ID)))
	}
	for i := range b.Ops {
		if op := &b.Ops[i]; op.Kind == broker.OpPublish {
			op.Duplicate = r.Byte() != 0
			copy(op.First[:], r.Take(len(op.First)))
		}
	}
	if r.Bad {
		return fmt.Errorf("%w: %w", broker.ErrUnknown, errCodec)
	}
	return nil
}

func appendBool(p []byte, is bool) []byte {
	if is {
		return append(p, 1)
	}
	return append(p, 0)
}

// Bits of a Wait and a position.
const (
	posBegin = 1 << iota
	posEnd
)

// appendPos appends a position.
func appendPos(p []byte, at *broker.Pos) []byte {
	bits := byte(0)
	if at.Begin {
		bits |= posBegin
	}
	if at.End {
		bits |= posEnd
	}
	p = append(p, bits, byte(at.States))
	p = fields.AppendUints(p, uint64(at.Partition), at.Seq, uint64(at.Skip))
	return appendTime(p, at.Time)
}

func readPos(r *fields.Reader) broker.Pos {
	bits := r.Byte()
	at := broker.Pos{Begin: bits&posBegin != 0, End: bits&posEnd != 0, States: broker.EntryState(r.Byte())}
	at.Partition, at.Seq, at.Skip, at.Time = uint32(r.Uint()), r.Uint(), int(r.Uint()), readTime(r)
	return at
}

// appendTime appends a time to the nanosecond; the zero time stays that.
func appendTime(p []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(p, 0)
	}
	return binary.AppendVarint(append(p, 1), t.UnixNano())
}

func readTime(r *fields.Reader) time.Time {
	if r.Byte() == 0 {
		return time.Time{}
	}
	return time.Unix(0, r.Int())
}

// appendWait appends what w asks for. A wait that consumes is one with a lease:
// what it got is settled before it is delivered.
func appendWait(p []byte, w *broker.Wait) []byte {
	p = fields.AppendText(binary.AppendUvarint(p, uint64(w.Target)), w.Filter)
	p = appendPos(p, &w.From)
	lease := max(w.Lease, 0)
	if w.Consume {
		lease = consumeLease
	}
	p = fields.AppendUints(p, uint64(w.Max), uint64(w.MaxBytes), uint64(lease))
	return appendTime(p, w.Until)
}

func readWait(r *fields.Reader) *broker.Wait {
	w := &broker.Wait{Target: broker.Target(r.Uint()), Filter: r.Text(), From: readPos(r)}
	w.Max, w.MaxBytes, w.Lease, w.Until = int(r.Uint()), int(r.Uint()), time.Duration(r.Uint()), readTime(r)
	return w
}

// encodeGot returns the outcome of a wait.
func encodeGot(w *broker.Wait) []byte {
	p := appendError(nil, w.Err)
	p = appendPos(p, &w.From)
	p = fields.AppendUints(p, w.Bounds.First, w.Bounds.Next, uint64(w.Bounds.Bytes))
	return appendDeliveries(p, w.Got)
}

func readGot(p []byte, w *broker.Wait) error {
	r := fields.Reader{Rest: p}
	w.Err, w.From = readError(&r), readPos(&r)
	w.Bounds = broker.PartitionInfo{First: r.Uint(), Next: r.Uint(), Bytes: int64(r.Uint())}
	var err error
	w.Got, err = readDeliveries(&r, w.Got)
	return err
}

func appendDeliveries(p []byte, ds []broker.Delivery) []byte {
	p = binary.AppendUvarint(p, uint64(len(ds)))
	for i := range ds {
		d := &ds[i]
		p = appendRef(p, d.Ref)
		p = binary.AppendVarint(binary.AppendVarint(p, d.Until), d.Queued)
		p = fields.AppendUints(p, uint64(d.Partition), d.Offset, uint64(d.Tag))
		p = append(p, byte(d.State), byte(d.Reason))
		p = binary.AppendUvarint(p, uint64(broker.SizeBound(&d.Message)))
		p = broker.AppendMessage(p, &d.Message)
	}
	return p
}

// readDeliveries appends to dst; the messages share the memory of r.
func readDeliveries(r *fields.Reader, dst []broker.Delivery) ([]broker.Delivery, error) {
	for range r.Count(8) {
		d := broker.Delivery{Ref: readRef(r), Until: r.Int(), Queued: r.Int(), Partition: uint32(r.Uint()), Offset: r.Uint(), Tag: uint32(r.Uint())}
		d.State, d.Reason = broker.EntryState(r.Byte()), broker.Reason(r.Byte())
		if err := broker.DecodeMessage(r.Bytes(), &d.Message); err != nil {
			return dst, err
		}
		dst = append(dst, d)
	}
	if r.Bad {
		return dst, errCodec
	}
	return dst, nil
}

// appendEntry appends a key. A nil Value says that it was deleted.
func appendEntry(p []byte, e *broker.Entry) []byte {
	p = binary.AppendUvarint(fields.AppendText(p, e.Key), e.Rev)
	p = appendBool(p, e.Value != nil)
	return fields.AppendBytes(p, e.Value)
}

func readEntry(r *fields.Reader) broker.Entry {
	e := broker.Entry{Key: r.Text(), Rev: r.Uint()}
	there := r.Byte() != 0
	if e.Value = r.Bytes(); there && e.Value == nil {
		e.Value = []byte{}
	} else if !there {
		e.Value = nil
	}
	return e
}
