package memfifo_test

import (
	"strings"
	"testing"

	"millrace/rest/flowmq"
	"millrace/rest/internal/resttest"
)

// BenchmarkSubmit and BenchmarkSubmitAndRead do the same through this dialect,
// with credentials, and through /api/v1.
func BenchmarkSubmit(b *testing.B) {
	body := strings.Repeat("x", 256)
	b.Run("memfifo", func(b *testing.B) {
		d, w := open(b), resttest.NewClient()
		d.queue(b, "q", "memfifo", `"max-bytes":256000,"topic-filter":"a"`)
		done := resttest.Cost(b, 1)
		for b.Loop() {
			w.Call(b, d.locked, "POST", "/queues/q/messages", body)
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		d, w := open(b), resttest.NewClient()
		d.queue(b, "q", "memfifo", `"max-bytes":256000,"topic-filter":"a"`)
		m := flowmq.New(d.broker, d.shared)
		done := resttest.Cost(b, 1)
		for b.Loop() {
			w.Call(b, m, "POST", "/api/v1/topics/a/messages", `{"payload":"`+body+`"}`)
		}
		done()
	})
}

func BenchmarkSubmitAndRead(b *testing.B) {
	body := strings.Repeat("x", 256)
	b.Run("memfifo", func(b *testing.B) {
		d, w := open(b), resttest.NewClient()
		d.queue(b, "q", "memfifo", "")
		done := resttest.Cost(b, 1)
		for b.Loop() {
			w.Call(b, d.locked, "POST", "/queues/q/messages", body)
			w.Call(b, d.locked, "GET", "/queues/q/messages", "")
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		d, w := open(b), resttest.NewClient()
		d.queue(b, "q", "memfifo", `"topic-filter":"a"`)
		m := flowmq.New(d.broker, d.shared)
		done := resttest.Cost(b, 1)
		for b.Loop() {
			w.Call(b, m, "POST", "/api/v1/topics/a/messages", `{"payload":"`+body+`"}`)
			got := w.Call(b, m, "POST", "/api/v1/queues/q/messages/consume", "")
			w.Call(b, m, "POST", "/api/v1/queues/q/messages/"+resttest.Between(b, got, `"message_id":"`)+"/ack", `{"receipt_handle":"`+resttest.Between(b, got, `"receipt_handle":"`)+`"}`)
		}
		done()
	})
}

// BenchmarkSubmitLarge is of 4 MiB, once each way.
func BenchmarkSubmitLarge(b *testing.B) {
	d, w := open(b), resttest.NewClient()
	d.queue(b, "q", "memfifo", "")
	body := strings.Repeat("x", 4<<20)
	done := resttest.Cost(b, 1)
	for b.Loop() {
		w.Call(b, d.locked, "POST", "/queues/q/messages", body)
		w.Call(b, d.locked, "GET", "/queues/q/messages", "")
	}
	done()
}
