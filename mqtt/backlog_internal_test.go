package mqtt

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"millrace/broker"
)

// TestBacklogIsAQueue as a slice would be, also where its ring is full.
func TestBacklogIsAQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b backlog
		var want []*broker.Message
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			m := &broker.Message{Topic: "t", Payload: make([]byte, rapid.IntRange(0, 9).Draw(t, "size"))}
			switch rapid.IntRange(0, 4).Draw(t, "do") {
			case 0, 1:
				b.push(pending{m: m})
				want = append(want, m)
			case 2:
				b.pushFront(pending{m: m})
				want = slices.Insert(want, 0, m)
			default:
				if len(want) == 0 {
					continue
				}
				if got := b.pop(); got.m != want[0] {
					t.Fatalf("popped the wrong one of %d", len(want))
				}
				want = want[1:]
			}
			size := 0
			for _, m := range want {
				size += len(m.Topic) + len(m.Payload) + pendingOverhead
			}
			if b.len() != len(want) || b.bytes != size {
				t.Fatalf("%d messages of %d bytes, want %d of %d", b.len(), b.bytes, len(want), size)
			}
		}
	})
}

// BenchmarkFullBacklog is a message more for a client that does not acknowledge:
// the oldest goes, which was touched 10,000 messages ago.
func BenchmarkFullBacklog(b *testing.B) {
	const held = 10_000
	ms := make([]*broker.Message, 4*held)
	for i := range ms {
		ms[i] = &broker.Message{Topic: "devices/00001/temperature", Payload: make([]byte, 256)}
	}
	var q backlog
	for i := range held {
		q.push(pending{m: ms[i], qos: 1})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		m := ms[(held+i)%len(ms)]
		_ = m.Topic // it has just come in
		q.pop()
		q.push(pending{m: m, qos: 1})
	}
}
