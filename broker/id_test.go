package broker_test

import (
	"testing"
	"time"

	"millrace/broker"
)

func TestIDsGrowWithinAMillisecondAndWhenTheClockStepsBack(t *testing.T) {
	next := broker.IDs()
	now := time.UnixMilli(1_700_000_000_000)
	last := next(now)
	for i := range 10_000 {
		at := now
		if i%3 == 0 {
			at = now.Add(-time.Hour)
		}
		id := next(at)
		if id.Compare(last) <= 0 {
			t.Fatalf("id %d: %s does not follow %s", i, id, last)
		}
		last = id
	}
	if later := next(now.Add(time.Millisecond)); later.Time() != uint64(now.UnixMilli())+1 {
		t.Errorf("id of the next millisecond says %d", later.Time())
	}
}

func TestParseIDReadsWhatStringWrote(t *testing.T) {
	id := broker.IDs()(time.Now())
	got, err := broker.ParseID(id.String())
	if err != nil || got != id {
		t.Fatalf("ParseID(%s) = %s, %v", id, got, err)
	}
	for _, bad := range []string{"", "x", id.String() + "0", id.String()[:25], "!!!!!!!!!!!!!!!!!!!!!!!!!!"} {
		if _, err := broker.ParseID(bad); broker.KindOf(err) != broker.NotFound {
			t.Errorf("ParseID(%q) = %v, want NotFound", bad, err)
		}
	}
}

// The values are those of Kafka's own unit test of its partitioner.
func TestMurmur2AgreesWithKafka(t *testing.T) {
	for key, signed := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "abc": 479470107,
	} {
		if got, want := broker.Murmur2(key), uint32(signed)&0x7fffffff; got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
}
