package memfifo_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"millrace/rest/flowmq"
)

// nowhere is a ResponseWriter that keeps nothing but the last answer.
type nowhere struct {
	header http.Header
	status int
	body   []byte
}

func (w *nowhere) Header() http.Header         { return w.header }
func (w *nowhere) WriteHeader(status int)      { w.status = status }
func (w *nowhere) Write(b []byte) (int, error) { w.body = append(w.body[:0], b...); return len(b), nil }

// call serves one request on a handler.
func (w *nowhere) call(b *testing.B, h http.Handler, method, path, body string) string {
	b.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header["Client-Id"] = []string{"bench"}
	r.Header["Authorization"] = []string{"Bearer root." + secret}
	clear(w.header)
	if h.ServeHTTP(w, r); w.status != 200 {
		b.Fatalf("status %d: %s", w.status, w.body)
	}
	return string(w.body)
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

// BenchmarkSubmit and BenchmarkSubmitAndRead do the same through this dialect,
// with credentials, and through /api/v1.
func BenchmarkSubmit(b *testing.B) {
	body := strings.Repeat("x", 256)
	b.Run("memfifo", func(b *testing.B) {
		d, w := open(b), &nowhere{header: http.Header{}}
		d.queue(b, "q", "memfifo", `"max-bytes":256000,"topic-filter":"a"`)
		done := cost(b)
		for b.Loop() {
			w.call(b, d.locked, "POST", "/queues/q/messages", body)
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		d, w := open(b), &nowhere{header: http.Header{}}
		d.queue(b, "q", "memfifo", `"max-bytes":256000,"topic-filter":"a"`)
		m := flowmq.New(d.broker, d.shared)
		done := cost(b)
		for b.Loop() {
			w.call(b, m, "POST", "/api/v1/topics/a/messages", `{"payload":"`+body+`"}`)
		}
		done()
	})
}

func BenchmarkSubmitAndRead(b *testing.B) {
	body := strings.Repeat("x", 256)
	b.Run("memfifo", func(b *testing.B) {
		d, w := open(b), &nowhere{header: http.Header{}}
		d.queue(b, "q", "memfifo", "")
		done := cost(b)
		for b.Loop() {
			w.call(b, d.locked, "POST", "/queues/q/messages", body)
			w.call(b, d.locked, "GET", "/queues/q/messages", "")
		}
		done()
	})
	b.Run("flowmq", func(b *testing.B) {
		d, w := open(b), &nowhere{header: http.Header{}}
		d.queue(b, "q", "memfifo", `"topic-filter":"a"`)
		m := flowmq.New(d.broker, d.shared)
		part := func(text, before string) string {
			_, rest, _ := strings.Cut(text, before)
			v, _, _ := strings.Cut(rest, `"`)
			return v
		}
		done := cost(b)
		for b.Loop() {
			w.call(b, m, "POST", "/api/v1/topics/a/messages", `{"payload":"`+body+`"}`)
			got := w.call(b, m, "POST", "/api/v1/queues/q/messages/consume", "")
			w.call(b, m, "POST", "/api/v1/queues/q/messages/"+part(got, `"message_id":"`)+"/ack", `{"receipt_handle":"`+part(got, `"receipt_handle":"`)+`"}`)
		}
		done()
	})
}

// BenchmarkSubmitLarge is of 4 MiB, once each way.
func BenchmarkSubmitLarge(b *testing.B) {
	d, w := open(b), &nowhere{header: http.Header{}}
	d.queue(b, "q", "memfifo", "")
	body := strings.Repeat("x", 4<<20)
	done := cost(b)
	for b.Loop() {
		w.call(b, d.locked, "POST", "/queues/q/messages", body)
		w.call(b, d.locked, "GET", "/queues/q/messages", "")
	}
	done()
}
