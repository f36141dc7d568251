package fastqueue_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/rest/flowmq"
	"millrace/rest/internal/resttest"
)

// Each benchmark does the same through this dialect and through /api/v1, in a
// queue of its own.

const (
	path     = "/v1/queue/fastqueue"
	messages = "/api/v1/queues/flowmq/messages"
)

// prepare makes the queues. They drop what is over 1,000 messages, so that a
// loop of sends alone does not fill them.
func prepare(b *testing.B) (d *door, api http.Handler, w *resttest.Client) {
	b.Helper()
	d = open(b)
	for _, name := range []string{"fastqueue", "flowmq"} {
		c := broker.NewQueueConfig(name, name)
		c.MaxMessages = 1000
		_, err := d.Broker.CreateQueue(resttest.System(b), c)
		must(b, err)
	}
	return d, flowmq.New(d.Broker, d.Shared), resttest.NewClient()
}

var text = strings.Repeat("x", 256)

// batch repeats a message n times in a body for /api/v1.
func batch(n int) string {
	one := `{"payload":"` + text + `"}`
	return `{"messages":[` + strings.Repeat(one+",", n-1) + one + `]}`
}

// fill puts messages into a queue.
func fill(b *testing.B, api http.Handler, w *resttest.Client, queue string) func(int) {
	b.Helper()
	return func(n int) { w.Call(b, api, "POST", "/api/v1/topics/"+queue+"/messages/batch", batch(n)) }
}

func BenchmarkSend(b *testing.B) {
	d, api, w := prepare(b)
	resttest.Compare(
		b, 1,
		resttest.Way{Name: "fastqueue", Step: w.Ask(b, d.Mux, "POST", path, `{"Action":"SendMessage","MessageBody":"`+text+`"}`)},
		resttest.Way{Name: "flowmq", Step: w.Ask(b, api, "POST", "/api/v1/topics/flowmq/messages", `{"payload":"`+text+`"}`)},
	)
}

func BenchmarkSend100(b *testing.B) {
	d, api, w := prepare(b)
	var entries strings.Builder
	for i := range 100 {
		fmt.Fprintf(&entries, `,{"Id":"%d","MessageBody":"%s"}`, i, text)
	}
	resttest.Compare(
		b, 100,
		resttest.Way{Name: "fastqueue", Step: w.Ask(b, d.Mux, "POST", path, `{"Action":"SendMessageBatch","Entries":[`+entries.String()[1:]+`]}`)},
		resttest.Way{Name: "flowmq", Step: w.Ask(b, api, "POST", "/api/v1/topics/flowmq/messages/batch", batch(100))},
	)
}

func BenchmarkReceiveDelete(b *testing.B) {
	d, api, w := prepare(b)
	resttest.Compare(b, 1, resttest.Way{Name: "fastqueue", Ready: fill(b, api, w, "fastqueue"), Step: func() {
		got := w.Call(b, d.Mux, "POST", path, `{"Action":"ReceiveMessage","MaxNumberOfMessages":1}`)
		w.Call(b, d.Mux, "POST", path, `{"Action":"DeleteMessage","ReceiptHandle":"`+resttest.Between(b, got, `"ReceiptHandle":"`)+`"}`)
	}}, resttest.Way{Name: "flowmq", Ready: fill(b, api, w, "flowmq"), Step: func() {
		got := w.Call(b, api, "POST", messages+"/consume", `{"max_messages":1}`)
		id, handle := resttest.Between(b, got, `"message_id":"`), resttest.Between(b, got, `"receipt_handle":"`)
		w.Call(b, api, "POST", messages+"/"+id+"/ack", `{"receipt_handle":"`+handle+`"}`)
	}})
}

// all returns what stands behind each mark, up to the next quote.
func all(text, mark string) (values []string) {
	for _, part := range strings.Split(text, mark)[1:] {
		value, _, _ := strings.Cut(part, `"`)
		values = append(values, value)
	}
	return values
}

func BenchmarkReceiveDelete100(b *testing.B) {
	d, api, w := prepare(b)
	resttest.Compare(b, 100, resttest.Way{Name: "fastqueue", Ready: fill(b, api, w, "fastqueue"), Step: func() {
		got := w.Call(b, d.Mux, "POST", path, `{"Action":"ReceiveMessage","MaxNumberOfMessages":100}`)
		var entries strings.Builder
		for i, receipt := range all(string(got), `"ReceiptHandle":"`) {
			fmt.Fprintf(&entries, `,{"Id":"%d","ReceiptHandle":"%s"}`, i, receipt)
		}
		w.Call(b, d.Mux, "POST", path, `{"Action":"DeleteMessageBatch","Entries":[`+entries.String()[1:]+`]}`)
	}}, resttest.Way{Name: "flowmq", Ready: fill(b, api, w, "flowmq"), Step: func() {
		got := w.Call(b, api, "POST", messages+"/consume", `{"max_messages":100}`)
		ids, receipts := all(string(got), `"message_id":"`), all(string(got), `"receipt_handle":"`)
		var acks strings.Builder
		for i := range ids {
			fmt.Fprintf(&acks, `,{"message_id":"%s","receipt_handle":"%s"}`, ids[i], receipts[i])
		}
		w.Call(b, api, "POST", messages+"/ack", `{"messages":[`+acks.String()[1:]+`]}`)
	}})
}
