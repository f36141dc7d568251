package broker_test

import (
	"bytes"
	"testing"

	"millrace/broker"
)

// What a Buffer gives does not overlap until Reset, and is then given again.
func TestBuffer(t *testing.T) {
	var b broker.Buffer
	sizes := []int{1, 100 << 10, 100 << 10, 100 << 10, 0, 1 << 20, 7}
	for round := range 3 {
		var got [][]byte
		for i, n := range sizes {
			p := b.Take(n)
			if len(p) != n || cap(p) != n {
				t.Fatalf("asked for %d bytes, got %d of %d", n, len(p), cap(p))
			}
			for j := range p {
				p[j] = byte(i)
			}
			got = append(got, p)
		}
		for i, p := range got {
			if n := bytes.Count(p, []byte{byte(i)}); n != len(p) {
				t.Fatalf("round %d: %d bytes of piece %d were overwritten", round, len(p)-n, i)
			}
		}
		b.Reset()
	}
	size := b.Size()
	if n := testing.AllocsPerRun(10, func() {
		for _, n := range sizes {
			b.Take(n)
		}
		b.Reset()
	}); n != 0 || b.Size() != size {
		t.Fatalf("%v allocations, %d bytes and before %d: want none more", n, b.Size(), size)
	}
	var none *broker.Buffer
	if p, q := none.Take(3), none.Take(3); &p[0] == &q[0] {
		t.Fatal("a nil Buffer gives the same memory twice")
	}
	none.Reset()
}
