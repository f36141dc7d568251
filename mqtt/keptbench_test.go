package mqtt_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
)

// offlineSession makes a session with subscriptions, whose client is away.
func offlineSession(tb testing.TB, e *edge, i, subscriptions int) {
	tb.Helper()
	id := fmt.Sprintf("device-%06d", i)
	s, _, err := e.broker.OpenSession(tb.Context(), broker.SessionOptions{
		ClientID: id, Principal: &auth.Principal{Kind: auth.Anonymous, ClientID: id}, Expiry: 1 << 20,
	})
	if err != nil {
		tb.Fatal(err)
	}
	for _, filter := range []string{"devices/" + id + "/commands", strings.Clone("broadcast/#")}[:subscriptions] {
		if err := s.Subscribe(tb.Context(), &broker.Subscription{Filter: filter}, broker.SubscriptionOptions{QoS: 1}); err != nil {
			tb.Fatal(err)
		}
	}
	if err := s.Commit(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	s.Close(tb.Context(), false)
}

// offlineMemory is what each of n such sessions takes, for which nothing waits.
func offlineMemory(tb testing.TB, n, subscriptions int) int64 {
	tb.Helper()
	e := open(tb, silent)
	defer e.stop(tb)
	before := memory()
	for i := range n {
		offlineSession(tb, e, i, subscriptions)
	}
	heap, _ := memory().sub(before)
	return int64(heap) / int64(n)
}

// TestMemoryOfOfflineSessions: a session with a subscription of its own takes a
// KiB at most, and one to a topic that it shares with all others a little more.
func TestMemoryOfOfflineSessions(t *testing.T) {
	embedded(t, "it measures the embedded store")
	const n = 25_000 // with which maps are about as full as with 100,000
	one, two := offlineMemory(t, n, 1), offlineMemory(t, n, 2)
	t.Logf("%d bytes with one subscription, %d with two", one, two)
	if one > 1024 || two-one > 192 {
		t.Errorf("a session takes %d bytes, and %d for a second subscription; want at most 1024 and 192", one, two-one)
	}
}

// BenchmarkOfflineSession reports that for more of them.
func BenchmarkOfflineSession(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(offlineMemory(b, 100_000, 1)), "heap-B/one")
		b.ReportMetric(float64(offlineMemory(b, 100_000, 2)), "heap-B/two")
	}
}

// BenchmarkKeptDelivery publishes in QoS 1 through a durable session that is
// connected; an op is one message from its publisher to its PUBACK.
func BenchmarkKeptDelivery(b *testing.B) {
	for _, store := range []string{"memory", "disk"} {
		for _, away := range []bool{false, true} {
			b.Run(fmt.Sprintf("store=%s/away=%v", store, away), func(b *testing.B) { keptDelivery(b, store, away) })
		}
	}
}

func keptDelivery(b *testing.B, store string, away bool) {
	b.Helper()
	dir := ""
	if store == "disk" {
		dir = b.TempDir()
	}
	e := openDir(b, dir, silent)
	const window = 500
	payload := strings.Repeat("x", 256)
	p := login(b, e, false, "pub")
	_ = p.SetDeadline(noDeadline)
	s, _ := keptIn(b, e, false, "sub", false, 3600)
	s.subscribe(1, 1, "devices/#")
	if away {
		e.offlineBut(b, s, 1)
	}
	_ = s.SetDeadline(noDeadline)
	var chunk []byte
	for i := range uint16(window) {
		chunk = append(chunk, p.publishPacket("devices/1/temperature", payload, 1, i+1)...)
	}
	size := len(chunk) / window
	acks, in, out := make([]byte, 4*window), make([]byte, size*window), make([]byte, 4*window)
	b.ReportAllocs()
	b.ResetTimer()
	start := cpu()
	for i := 0; i < b.N; i += window {
		if _, err := p.Write(chunk); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(p.br, acks); err != nil {
			b.Fatal(err)
		}
		if away {
			continue
		}
		for at := 0; at < len(in); {
			n, err := s.br.Read(in[at:])
			if err != nil {
				b.Fatal(err)
			}
			first := at / size
			at += n
			for k := first; k < at/size; k++ {
				id := k*size + size - len(payload) - 2
				copy(out[4*k:], []byte{0x40, 2, in[id], in[id+1]})
			}
			if _, err := s.Write(out[4*first : 4*(at/size)]); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
}
