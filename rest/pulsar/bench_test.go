package pulsar_test

import (
	"net/http"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/rest/flowmq"
	"millrace/rest/internal/resttest"
)

// Each benchmark does the same through this dialect and through /api/v1.

const (
	stream = "/api/v1/streams/public%2Fdefault%2Fx"
	text   = `"` + "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" + "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" +
		"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" + "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" + `"`
)

// many repeats a message n times in a body of either dialect.
func many(member string, n int) string {
	one := `{"` + member + `":` + text + `}`
	return `{"messages":[` + strings.Repeat(one+",", n-1) + one + `]}`
}

func prepare(b *testing.B) (d *door, api http.Handler, w *resttest.Client) {
	b.Helper()
	d = open(b)
	d.produce(b, topic, text)
	return d, flowmq.New(d.Broker, d.Shared), resttest.NewClient()
}

func BenchmarkProduce(b *testing.B) {
	b.Run("pulsar", func(b *testing.B) {
		d, _, w := prepare(b)
		done := resttest.Cost(b, 1)
		for b.Loop() {
			w.Call(b, d.Mux, "POST", topic, `{"messages":[{"value":`+text+`}]}`)
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		_, api, w := prepare(b)
		done := resttest.Cost(b, 1)
		for b.Loop() {
			w.Call(b, api, "POST", "/api/v1/topics/x/messages", `{"payload":`+text+`}`)
		}
		done()
	})
}

func BenchmarkProduce100(b *testing.B) {
	b.Run("pulsar", func(b *testing.B) {
		d, _, w := prepare(b)
		body := many("value", 100)
		done := resttest.Cost(b, 100)
		for b.Loop() {
			w.Call(b, d.Mux, "POST", topic, body)
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		_, api, w := prepare(b)
		body := many("payload", 100)
		done := resttest.Cost(b, 100)
		for b.Loop() {
			w.Call(b, api, "POST", "/api/v1/topics/x/messages/batch", body)
		}
		done()
	})
}

func BenchmarkRead100(b *testing.B) {
	b.Run("pulsar", func(b *testing.B) {
		d, api, w := prepare(b)
		w.Call(b, api, "POST", "/api/v1/topics/x/messages/batch", many("payload", 1000))
		done := resttest.Cost(b, 100)
		for b.Loop() {
			w.Call(b, d.Mux, "GET", topic+"/partitions/0/messages?offset=7&max_messages=100", "")
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		_, api, w := prepare(b)
		w.Call(b, api, "POST", "/api/v1/topics/x/messages/batch", many("payload", 1000))
		done := resttest.Cost(b, 100)
		for b.Loop() {
			w.Call(b, api, "GET", stream+"/partitions/0/messages?offset=7&limit=100", "")
		}
		done()
	})
}

// all returns what stands behind each mark, up to the next quote.
func all(text, mark string) (values []string) {
	for _, part := range strings.Split(text, mark)[1:] {
		value, _, _ := strings.Cut(part, `"`)
		values = append(values, value)
	}
	return values
}

// BenchmarkProduceFetchAck100 acknowledges each message by its id, which /api/v1
// does with a batch of receipts.
func BenchmarkProduceFetchAck100(b *testing.B) {
	b.Run("pulsar", func(b *testing.B) {
		d, _, w := prepare(b)
		consumer := d.join(b, "")
		body := many("value", 100)
		done := resttest.Cost(b, 100)
		for b.Loop() {
			w.Call(b, d.Mux, "POST", topic, body)
			got := w.Call(b, d.Mux, "GET", consumer+"/messages?max_messages=100", "")
			ids := all(string(got), `"messageId":"`)
			w.Call(b, d.Mux, "POST", sub+"/cursor", `{"type":"individual","messageIds":["`+strings.Join(ids, `","`)+`"]}`)
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		d, api, w := prepare(b)
		c := broker.NewSubscriptionConfig("public/default/x", "s")
		_, err := d.Broker.CreateSubscription(resttest.System(b), c, broker.Place{})
		must(b, err)
		body := many("payload", 100)
		done := resttest.Cost(b, 100)
		for b.Loop() {
			w.Call(b, api, "POST", "/api/v1/topics/x/messages/batch", body)
			got := w.Call(b, api, "POST", stream+"/subscriptions/s/messages/consume", `{"max_messages":100}`)
			acks, receipts := all(string(got), `"message_id":"`), all(string(got), `"receipt_handle":"`)
			for i := range acks {
				acks[i] = `{"message_id":"` + acks[i] + `","receipt_handle":"` + receipts[i] + `"}`
			}
			w.Call(b, api, "POST", stream+"/subscriptions/s/messages/ack", `{"messages":[`+strings.Join(acks, ",")+`]}`)
		}
		done()
	})
}
