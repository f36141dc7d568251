package memfifo_test

import (
	"net/http"
	"strings"
	"testing"

	"millrace/rest/flowmq"
	"millrace/rest/internal/resttest"
)

// BenchmarkSubmit and BenchmarkRead do the same through this dialect, with
// credentials, and through /api/v1, in a queue of its own.

var text = strings.Repeat("x", 256)

func prepare(b *testing.B) (d *door, api http.Handler, w *resttest.Client) {
	b.Helper()
	d = open(b)
	for _, name := range []string{"memfifo", "flowmq"} {
		d.queue(b, name, "memfifo", `"max-bytes":256000,"topic-filter":"`+name+`"`)
	}
	return d, flowmq.New(d.broker, d.shared), resttest.NewClient()
}

func BenchmarkSubmit(b *testing.B) {
	d, api, w := prepare(b)
	resttest.Compare(
		b, 1,
		resttest.Way{Name: "memfifo", Step: w.Ask(b, d.locked, "POST", "/queues/memfifo/messages", text)},
		resttest.Way{Name: "flowmq", Step: w.Ask(b, api, "POST", "/api/v1/topics/flowmq/messages", `{"payload":"`+text+`"}`)},
	)
}

// BenchmarkRead compares a read, which removes, with a consume and its ack.
func BenchmarkRead(b *testing.B) {
	d, api, w := prepare(b)
	fill := func(queue string) func(int) {
		return func(n int) {
			one := `{"payload":"` + text + `"}`
			w.Call(b, api, "POST", "/api/v1/topics/"+queue+"/messages/batch", `{"messages":[`+strings.Repeat(one+",", n-1)+one+`]}`)
		}
	}
	const messages = "/api/v1/queues/flowmq/messages"
	resttest.Compare(
		b, 1,
		resttest.Way{Name: "memfifo", Ready: fill("memfifo"), Step: w.Ask(b, d.locked, "GET", "/queues/memfifo/messages", "")},
		resttest.Way{Name: "flowmq", Ready: fill("flowmq"), Step: func() {
			got := w.Call(b, api, "POST", messages+"/consume", `{"max_messages":1}`)
			id, receipt := resttest.Between(b, got, `"message_id":"`), resttest.Between(b, got, `"receipt_handle":"`)
			w.Call(b, api, "POST", messages+"/"+id+"/ack", `{"receipt_handle":"`+receipt+`"}`)
		}},
	)
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
