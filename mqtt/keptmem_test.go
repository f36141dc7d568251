package mqtt_test

import (
	"fmt"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
)

// offlineSession makes a session with one subscription, whose client is away.
func offlineSession(tb testing.TB, e *edge, i int) {
	tb.Helper()
	id := fmt.Sprintf("device-%06d", i)
	s, _, err := e.broker.OpenSession(tb.Context(), broker.SessionOptions{
		ClientID: id, Principal: &auth.Principal{Kind: auth.Anonymous, ClientID: id}, Expiry: 1 << 20,
	})
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.Subscribe(tb.Context(), &broker.Subscription{Filter: "devices/" + id + "/commands"}, broker.SubscriptionOptions{QoS: 1}); err != nil {
		tb.Fatal(err)
	}
	if err := s.Commit(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	s.Close(tb.Context(), false)
}

// BenchmarkOfflineSession reports the memory of a session whose client is away
// and for which nothing waits.
func BenchmarkOfflineSession(b *testing.B) {
	const n = 10_000
	for b.Loop() {
		e := open(b, silent)
		before := memory()
		for i := range n {
			offlineSession(b, e, i)
		}
		heap, _ := memory().sub(before)
		b.ReportMetric(float64(heap)/n, "heap-B/session")
		e.stop(b)
	}
}
