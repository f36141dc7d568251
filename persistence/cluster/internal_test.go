package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/broker/fields"
)

// whole is a batch with every kind of operation and field.
func whole() *broker.Batch {
	b := new(broker.Batch)
	m := &broker.Message{ID: broker.ID{1, 2}, Topic: "a/b", Payload: []byte("x"), DedupKey: "d", BodyHash: 7, Published: 9}
	ref := broker.Ref{Target: 1, Seq: 2, Attempt: 3, Epoch: 4}
	b.Publish(m, broker.Route{Target: 1}, broker.Route{Target: 2, Partition: 3, Tag: 4})
	b.Put(broker.SpaceAuth, "k", []byte{}, broker.RevNone)
	b.Put(broker.SpaceAuth, "gone", nil, 5)
	b.End()
	b.Settle(ref, broker.ReasonAcked)
	b.Defer(ref, time.UnixMilli(12345), true)
	b.Return(ref)
	b.Park(ref, broker.ReasonAttempts)
	b.Purge(3, true)
	b.Seek(4, broker.Offset{Partition: 1, Offset: 2})
	b.End()
	b.End()
	return b
}

func TestABatchArrivesAsItWas(t *testing.T) {
	b := whole()
	got, level, err := readBatch(encodeBatch(b, broker.Lazy))
	if err != nil || level != broker.Lazy || !reflect.DeepEqual(got.Units, b.Units) {
		t.Fatal(got, level, err)
	}
	for i := range b.Ops {
		have, want := got.Ops[i], b.Ops[i]
		if (have.Value == nil) != (want.Value == nil) || fmt.Sprintf("%+v", have.Message) != fmt.Sprintf("%+v", want.Message) {
			t.Errorf("operation %d is %+v, want %+v", i, have, want)
		}
		have.Message, want.Message = nil, nil
		if fmt.Sprintf("%+v", have) != fmt.Sprintf("%+v", want) {
			t.Errorf("operation %d is %+v, want %+v", i, have, want)
		}
	}
}

func TestErrorsArriveAsWhatTheyAre(t *testing.T) {
	for _, err := range []error{
		nil, broker.ErrUnknown, broker.ErrFull, broker.ErrConflict, broker.ErrGone, broker.ErrStale, broker.ErrNotFound, broker.ErrClosed,
		broker.ErrNotSelective, fmt.Errorf("%w: of stream x", broker.ErrFull), errors.New("other"),
		&broker.RangeError{First: 3, Next: 9}, &broker.Error{Kind: broker.Full, Subject: broker.QueueSubject, Field: "f", Message: "m"},
	} {
		r := fields.Reader{Rest: appendError(nil, err)}
		got := readError(&r)
		if r.Bad || fmt.Sprint(got) != fmt.Sprint(err) {
			t.Errorf("%v arrives as %v", err, got)
		}
		for _, kind := range kinds[1:] {
			if errors.Is(got, kind) != errors.Is(err, kind) {
				t.Errorf("%v arrives as %v, which is %v", err, got, kind)
			}
		}
	}
}

// FuzzCodec reads anything as everything that comes from another node.
func FuzzCodec(f *testing.F) {
	f.Add(encodeBatch(whole(), broker.Durable))
	f.Add(encodeGot(&broker.Wait{Got: []broker.Delivery{{Message: broker.Message{Topic: "t"}}}}))
	f.Add(appendWait(nil, &broker.Wait{Target: 1, Max: 2, Until: time.Unix(1, 2)}))
	e := event{kind: recorded, space: broker.SpaceAuth, entry: broker.Entry{Key: "k", Value: []byte("v")}}
	f.Add(e.append(nil))
	f.Add((&wire{self: "a", start: 3}).appendHead(nil, true, 1, 2, "kind"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if b, level, err := readBatch(bytes.Clone(p)); err == nil {
			again, _, err := readBatch(encodeBatch(b, level))
			if err != nil || len(again.Ops) != len(b.Ops) || len(again.Units) != len(b.Units) {
				t.Errorf("a batch is not what it was: %v", err)
			}
		}
		_, _ = readResults(bytes.Clone(p), whole()), readGot(bytes.Clone(p), new(broker.Wait))
		_, _, _ = readParcel(p)
		_, _ = readEvent(1, p)
		r := fields.Reader{Rest: p}
		_ = readWait(&r)
		_ = readError(&fields.Reader{Rest: p})
	})
}

func TestAMessageWithAMissingPartIsLostAsAWhole(t *testing.T) {
	w := newWire(nil, "mr", "a", 1)
	var got []string
	take := w.gather(func(p parcel) { got = append(got, string(p.body)) })
	part := func(id, n uint64, more bool, body string) {
		take(&nats.Msg{Data: append(w.appendHead(nil, more, n, id, "k"), body...)})
	}
	part(1, 0, true, "a")
	part(1, 1, true, "b")
	part(1, 2, false, "c")
	part(2, 0, true, "d") // its second is lost
	part(2, 2, false, "f")
	part(3, 1, false, "h") // its first is lost
	part(4, 0, true, "i")  // its last is lost
	part(5, 0, false, "k")
	if want := []string{"abc", "k"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
