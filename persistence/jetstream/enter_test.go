package jetstream_test

import (
	"fmt"
	"testing"

	"millrace/broker"
)

// TestABatchIsTheCallersOnceItIsDone: what follows a repeat in it leaves late, and is not
// looked at after that. The race detector tells.
func TestABatchIsTheCallersOnceItIsDone(t *testing.T) {
	s, q := begun(t, alone(t), broker.Def{})
	var b broker.Batch
	c := make(answered, 1)
	for i := range uint64(50) {
		b.Reset()
		for k, key := range []string{"same", "", fmt.Sprint("one ", i)} {
			m := &broker.Message{ID: broker.ID{1, byte(i), byte(k)}, Topic: "a", Payload: []byte("x"), DedupKey: key}
			b.Publish(m, broker.Route{Target: q})
			b.End()
		}
		s.Submit(&b, broker.Durable, c)
		<-c
		for k, u := range b.Units {
			if u.Result.Err != nil || u.Result.Duplicate != (k == 0 && i > 0) {
				t.Fatalf("message %d of batch %d: %+v", k, i, u.Result)
			}
		}
	}
	shut(t, s)
}
