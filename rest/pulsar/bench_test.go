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

const stream = "/api/v1/streams/public%2Fdefault%2Fx"

var text = `"` + strings.Repeat("x", 256) + `"`

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
	d, api, w := prepare(b)
	resttest.Compare(
		b, 1,
		resttest.Way{Name: "pulsar", Step: w.Ask(b, d.Mux, "POST", topic, many("value", 1))},
		resttest.Way{Name: "flowmq", Step: w.Ask(b, api, "POST", "/api/v1/topics/x/messages", `{"payload":`+text+`}`)},
	)
}

func BenchmarkProduce100(b *testing.B) {
	d, api, w := prepare(b)
	resttest.Compare(
		b, 100,
		resttest.Way{Name: "pulsar", Step: w.Ask(b, d.Mux, "POST", topic, many("value", 100))},
		resttest.Way{Name: "flowmq", Step: w.Ask(b, api, "POST", "/api/v1/topics/x/messages/batch", many("payload", 100))},
	)
}

// BenchmarkRead1 and BenchmarkRead100 read a partition, and take nothing away.
func BenchmarkRead1(b *testing.B)   { compareReads(b, 1, "1") }
func BenchmarkRead100(b *testing.B) { compareReads(b, 100, "100") }

func compareReads(b *testing.B, n int, most string) {
	b.Helper()
	d, api, w := prepare(b)
	w.Call(b, api, "POST", "/api/v1/topics/x/messages/batch", many("payload", 1000))
	resttest.Compare(
		b, n,
		resttest.Way{Name: "pulsar", Step: w.Ask(b, d.Mux, "GET", topic+"/partitions/0/messages?offset=7&max_messages="+most, "")},
		resttest.Way{Name: "flowmq", Step: w.Ask(b, api, "GET", stream+"/partitions/0/messages?offset=7&limit="+most, "")},
	)
}

// all returns what stands behind each mark, up to the next quote.
func all(text, mark string) (values []string) {
	for _, part := range strings.Split(text, mark)[1:] {
		value, _, _ := strings.Cut(part, `"`)
		values = append(values, value)
	}
	return values
}

// BenchmarkFetchAck1 and BenchmarkFetchAck100 fetch what stands there already,
// and acknowledge each message by its id, which /api/v1 does by its receipt.
func BenchmarkFetchAck1(b *testing.B)   { compareConsumers(b, 1, "1") }
func BenchmarkFetchAck100(b *testing.B) { compareConsumers(b, 100, "100") }

func compareConsumers(b *testing.B, n int, most string) {
	b.Helper()
	d, api, w := prepare(b)
	consumer := d.join(b, "")
	d.produce(b, "/topics/public/default/y", text)
	c := broker.NewSubscriptionConfig("public/default/y", "s")
	_, err := d.Broker.CreateSubscription(resttest.System(b), c, broker.Place{})
	must(b, err)
	fill := func(topic string) func(int) {
		return func(n int) { w.Call(b, api, "POST", "/api/v1/topics/"+topic+"/messages/batch", many("payload", n)) }
	}
	const messages = "/api/v1/streams/public%2Fdefault%2Fy/subscriptions/s/messages"
	resttest.Compare(b, n, resttest.Way{Name: "pulsar", Ready: fill("x"), Step: func() {
		got := w.Call(b, d.Mux, "GET", consumer+"/messages?max_messages="+most, "")
		ids := all(string(got), `"messageId":"`)
		w.Call(b, d.Mux, "POST", sub+"/cursor", `{"type":"individual","messageIds":["`+strings.Join(ids, `","`)+`"]}`)
	}}, resttest.Way{Name: "flowmq", Ready: fill("y"), Step: func() {
		got := w.Call(b, api, "POST", messages+"/consume", `{"max_messages":`+most+`}`)
		acks, receipts := all(string(got), `"message_id":"`), all(string(got), `"receipt_handle":"`)
		if n == 1 {
			w.Call(b, api, "POST", messages+"/"+acks[0]+"/ack", `{"receipt_handle":"`+receipts[0]+`"}`)
			return
		}
		for i := range acks {
			acks[i] = `{"message_id":"` + acks[i] + `","receipt_handle":"` + receipts[i] + `"}`
		}
		w.Call(b, api, "POST", messages+"/ack", `{"messages":[`+strings.Join(acks, ",")+`]}`)
	}})
}
