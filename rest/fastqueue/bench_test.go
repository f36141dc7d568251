package fastqueue_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/rest/flowmq"
	"millrace/rest/internal/resttest"
)

// call sends a request that must succeed.
func call(b *testing.B, h http.Handler, w *resttest.Client, path, body string) []byte {
	b.Helper()
	return w.Call(b, h, "POST", path, body)
}

// prepare makes one queue that both dialects reach. It drops what is over 1,000
// messages, so that a loop of sends alone does not fill it.
func prepare(b *testing.B) (d *door, api http.Handler, w *resttest.Client) {
	b.Helper()
	d = open(b)
	c := broker.NewQueueConfig("q", "a")
	c.MaxMessages = 1000
	_, err := d.Broker.CreateQueue(resttest.System(b), c)
	must(b, err)
	return d, flowmq.New(d.Broker, d.Shared), resttest.NewClient()
}

var text = strings.Repeat("x", 256)

func BenchmarkSend(b *testing.B) {
	d, api, w := prepare(b)
	b.Run("fastqueue", func(b *testing.B) {
		body := `{"Action":"SendMessage","MessageBody":"` + text + `"}`
		done := resttest.Cost(b, 1)
		for b.Loop() {
			call(b, d.Mux, w, "/v1/queue/q", body)
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		body := `{"payload":"` + text + `"}`
		done := resttest.Cost(b, 1)
		for b.Loop() {
			call(b, api, w, "/api/v1/topics/a/messages", body)
		}
		done()
	})
}

func BenchmarkSendReceiveDelete(b *testing.B) {
	d, api, w := prepare(b)
	b.Run("fastqueue", func(b *testing.B) {
		body := `{"Action":"SendMessage","MessageBody":"` + text + `"}`
		done := resttest.Cost(b, 1)
		for b.Loop() {
			call(b, d.Mux, w, "/v1/queue/q", body)
			got := call(b, d.Mux, w, "/v1/queue/q", `{"Action":"ReceiveMessage","MaxNumberOfMessages":1}`)
			call(b, d.Mux, w, "/v1/queue/q", `{"Action":"DeleteMessage","ReceiptHandle":"`+resttest.Between(b, got, `"ReceiptHandle":"`)+`"}`)
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		body := `{"payload":"` + text + `"}`
		done := resttest.Cost(b, 1)
		for b.Loop() {
			call(b, api, w, "/api/v1/topics/a/messages", body)
			got := call(b, api, w, "/api/v1/queues/q/messages/consume", `{"max_messages":1}`)
			id, handle := resttest.Between(b, got, `"message_id":"`), resttest.Between(b, got, `"receipt_handle":"`)
			call(b, api, w, "/api/v1/queues/q/messages/"+id+"/ack", `{"receipt_handle":"`+handle+`"}`)
		}
		done()
	})
}

func BenchmarkSend100(b *testing.B) {
	d, api, w := prepare(b)
	var entries, messages strings.Builder
	for i := range 100 {
		if i > 0 {
			entries.WriteString(",")
			messages.WriteString(",")
		}
		entries.WriteString(`{"Id":"` + strconv.Itoa(i) + `","MessageBody":"` + text + `"}`)
		messages.WriteString(`{"payload":"` + text + `"}`)
	}
	b.Run("fastqueue", func(b *testing.B) {
		body := `{"Action":"SendMessageBatch","Entries":[` + entries.String() + `]}`
		done := resttest.Cost(b, 100)
		for b.Loop() {
			call(b, d.Mux, w, "/v1/queue/q", body)
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		body := `{"messages":[` + messages.String() + `]}`
		done := resttest.Cost(b, 100)
		for b.Loop() {
			call(b, api, w, "/api/v1/topics/a/messages/batch", body)
		}
		done()
	})
}
