package ref_test

import (
	"testing"

	"millrace/broker"
	"millrace/persistence/ref"
)

func TestASequenceNamesPartitionAndOffset(t *testing.T) {
	for _, o := range []broker.Offset{{}, {Offset: 1}, {Partition: 7}, {Partition: 1<<16 - 1, Offset: ref.MaxOffset - 1}} {
		seq := ref.Sequence(o)
		if seq == 0 || ref.Offset(seq) != o || ref.Partition(seq) != o.Partition {
			t.Errorf("%+v is sequence %d, which names %+v", o, seq, ref.Offset(seq))
		}
	}
}

// TestWhichDeliveryIsTheNewest asks about a message that was handed out twice, now
// in the third start of the process and after one move.
func TestWhichDeliveryIsTheNewest(t *testing.T) {
	now := ref.Epoch(3, 1)
	for _, c := range []struct {
		name    string
		epoch   uint32
		attempt uint32
		here    bool
		want    bool
	}{
		{"the newest", now, 2, true, true},
		{"an older one", now, 1, true, false},
		{"one of before the move", ref.Epoch(3, 0), 2, true, false},
		{"one of an earlier start", ref.Epoch(2, 1), 2, false, true},
		{"one of an earlier start that was not recorded", ref.Epoch(2, 1), 3, false, true},
		{"one of an earlier start, older than what was recorded", ref.Epoch(2, 1), 1, false, false},
		{"one of an earlier start, and it was handed out since", ref.Epoch(2, 1), 2, true, false},
		{"one of an earlier start and before the move", ref.Epoch(2, 0), 2, false, false},
		{"one of a later start", ref.Epoch(4, 1), 2, false, false},
	} {
		r := broker.Ref{Epoch: c.epoch, Attempt: c.attempt}
		if got := ref.Current(&r, now, 2, c.here); got != c.want {
			t.Errorf("%s: current is %t", c.name, got)
		}
	}
	if ref.Moves(ref.Epoch(3, 255)) != 255 {
		t.Error("the moves of an epoch are lost")
	}
}
