package fastqueue_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/flowmq"
)

// nowhere is a ResponseWriter that keeps the body only.
type nowhere struct {
	header http.Header
	status int
	body   []byte
}

func (w *nowhere) Header() http.Header         { return w.header }
func (w *nowhere) WriteHeader(status int)      { w.status = status }
func (w *nowhere) Write(b []byte) (int, error) { w.body = append(w.body[:0], b...); return len(b), nil }

func call(b *testing.B, h http.Handler, w *nowhere, path, body string) string {
	b.Helper()
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Header["Authorization"] = []string{"Bearer root." + secret}
	clear(w.header)
	if h.ServeHTTP(w, r); w.status != 200 {
		b.Fatalf("status %d: %s", w.status, w.body)
	}
	return string(w.body)
}

// between returns what stands behind a mark, up to the next quote.
func between(b *testing.B, text, mark string) string {
	b.Helper()
	_, rest, ok := strings.Cut(text, mark)
	if !ok {
		b.Fatalf("no %s in %s", mark, text)
	}
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// cost reports the CPU time of the whole process per message, which a busy
// machine does not change; call the result when the loop is over.
func cost(b *testing.B) func() {
	b.Helper()
	b.ReportAllocs()
	used := func() int64 {
		var u syscall.Rusage
		must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return u.Utime.Nano() + u.Stime.Nano()
	}
	start := used()
	return func() { b.ReportMetric(float64(used()-start)/float64(b.N), "cpu-ns/message") }
}

// prepare makes one queue that both dialects reach. It drops what is over 1,000
// messages, so that a loop of sends alone does not fill it.
func prepare(b *testing.B) (d *door, api http.Handler, w *nowhere) {
	b.Helper()
	d = open(b)
	c := broker.NewQueueConfig("q", "a")
	c.MaxMessages = 1000
	_, err := d.broker.CreateQueue(auth.WithPrincipal(b.Context(), &auth.Principal{Kind: auth.System}), c)
	must(b, err)
	return d, flowmq.New(d.broker, d.shared), &nowhere{header: http.Header{}}
}

var text = strings.Repeat("x", 256)

func BenchmarkSend(b *testing.B) {
	d, api, w := prepare(b)
	b.Run("fastqueue", func(b *testing.B) {
		body := `{"Action":"SendMessage","MessageBody":"` + text + `"}`
		done := cost(b)
		for b.Loop() {
			call(b, d.mux, w, "/v1/queue/q", body)
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		body := `{"payload":"` + text + `"}`
		done := cost(b)
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
		done := cost(b)
		for b.Loop() {
			call(b, d.mux, w, "/v1/queue/q", body)
			got := call(b, d.mux, w, "/v1/queue/q", `{"Action":"ReceiveMessage","MaxNumberOfMessages":1}`)
			call(b, d.mux, w, "/v1/queue/q", `{"Action":"DeleteMessage","ReceiptHandle":"`+between(b, got, `"ReceiptHandle":"`)+`"}`)
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		body := `{"payload":"` + text + `"}`
		done := cost(b)
		for b.Loop() {
			call(b, api, w, "/api/v1/topics/a/messages", body)
			got := call(b, api, w, "/api/v1/queues/q/messages/consume", `{"max_messages":1}`)
			id, handle := between(b, got, `"message_id":"`), between(b, got, `"receipt_handle":"`)
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
		done := cost(b)
		for b.Loop() {
			call(b, d.mux, w, "/v1/queue/q", body)
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		body := `{"messages":[` + messages.String() + `]}`
		done := cost(b)
		for b.Loop() {
			call(b, api, w, "/api/v1/topics/a/messages/batch", body)
		}
		done()
	})
}
