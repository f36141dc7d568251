package emqx_test

import (
	"net/http"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/persistence/local"
	"millrace/rest/emqx"
	"millrace/rest/flowmq"
	"millrace/rest/internal/resttest"
)

// Each benchmark publishes through this dialect and through /api/v1, into one
// queue, which drops what is over 1,000 messages.

var text = strings.Repeat("x", 256)

func prepare(b *testing.B) (mux, api http.Handler, w *resttest.Client) {
	b.Helper()
	d := resttest.Open(b, local.Options{})
	c := broker.NewQueueConfig("q", "a")
	c.MaxMessages = 1000
	_, err := d.Broker.CreateQueue(resttest.System(b), c)
	resttest.Must(b, err)
	return emqx.New(d.Broker, d.Shared, emqx.Options{MaxPayload: 4 << 20}), flowmq.New(d.Broker, d.Shared), resttest.NewClient()
}

func BenchmarkPublish(b *testing.B) {
	mux, api, w := prepare(b)
	resttest.Compare(
		b, 1,
		resttest.Way{Name: "emqx", Step: w.Ask(b, mux, "POST", "/api/v5/publish", `{"topic":"a","qos":1,"payload":"`+text+`"}`)},
		resttest.Way{Name: "flowmq", Step: w.Ask(b, api, "POST", "/api/v1/topics/a/messages", `{"payload":"`+text+`"}`)},
	)
}

func BenchmarkPublish100(b *testing.B) {
	mux, api, w := prepare(b)
	many := func(one string) string { return "[" + strings.Repeat(one+",", 99) + one + "]" }
	resttest.Compare(
		b, 100,
		resttest.Way{Name: "emqx", Step: w.Ask(b, mux, "POST", "/api/v5/publish/bulk", many(`{"topic":"a","qos":1,"payload":"`+text+`"}`))},
		resttest.Way{Name: "flowmq", Step: w.Ask(b, api, "POST", "/api/v1/topics/a/messages/batch", `{"messages":`+many(`{"payload":"`+text+`"}`)+`}`)},
	)
}
