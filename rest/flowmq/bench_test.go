package flowmq_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"millrace/rest/internal/resttest"
)

// call serves one request on the handler.
func (d *door) call(b *testing.B, w *resttest.Client, path, body string) []byte {
	b.Helper()
	return w.Call(b, d.Mux, "POST", path, body)
}

func batchOf(n int) string {
	one := `{"payload":"` + strings.Repeat("x", 256) + `"}`
	return `{"messages":[` + strings.Repeat(one+",", n-1) + one + `]}`
}

func BenchmarkPublish(b *testing.B) {
	d, w := open(b), resttest.NewClient()
	d.queue(b, `{"name":"q","topic_filter":"a","max_messages":1000}`)
	body := `{"payload":"` + strings.Repeat("x", 256) + `"}`
	done := resttest.Cost(b, 1)
	for b.Loop() {
		d.call(b, w, "/api/v1/topics/a/messages", body)
	}
	done()
}

func BenchmarkPublishBatch100(b *testing.B) {
	d, w := open(b), resttest.NewClient()
	d.queue(b, `{"name":"q","topic_filter":"a","max_messages":1000}`)
	body := batchOf(100)
	done := resttest.Cost(b, 100)
	for b.Loop() {
		d.call(b, w, "/api/v1/topics/a/messages/batch", body)
	}
	done()
}

// BenchmarkPublishConsumeAck100 holds a batch publish too: take that of
// BenchmarkPublishBatch100 away.
func BenchmarkPublishConsumeAck100(b *testing.B) {
	d, w := open(b), resttest.NewClient()
	d.queue(b, `{"name":"q","topic_filter":"a"}`)
	batch := batchOf(100)
	var ack []byte
	done := resttest.Cost(b, 100)
	for b.Loop() {
		d.call(b, w, "/api/v1/topics/a/messages/batch", batch)
		ack = ackOf(ack[:0], d.call(b, w, "/api/v1/queues/q/messages/consume", `{"max_messages":100}`))
		d.call(b, w, "/api/v1/queues/q/messages/ack", string(ack))
	}
	done()
}

// ackOf makes the body of a batch ack from the answer to a consume.
func ackOf(dst, answer []byte) []byte {
	dst = append(dst, `{"messages":[`...)
	text, first := string(answer), true
	for {
		_, rest, ok := strings.Cut(text, `"message_id":"`)
		if !ok {
			return append(dst, `]}`...)
		}
		id, rest, _ := strings.Cut(rest, `"`)
		_, rest, _ = strings.Cut(rest, `"receipt_handle":"`)
		receipt, rest, _ := strings.Cut(rest, `"`)
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = fmt.Appendf(dst, `{"message_id":%q,"receipt_handle":%q}`, id, receipt)
		text = rest
	}
}

// BenchmarkPublishOverTheWire counts the client's work too, which is small.
func BenchmarkPublishOverTheWire(b *testing.B) {
	d := open(b)
	d.queue(b, `{"name":"q","topic_filter":"a","max_messages":1000}`)
	s := httptest.NewServer(d.Mux)
	defer s.Close()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	must(b, err)
	defer c.Close()
	body := `{"payload":"` + strings.Repeat("x", 256) + `"}`
	request := fmt.Sprintf("POST /api/v1/topics/a/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer root.%s\r\nContent-Length: %d\r\n\r\n%s", secret, len(body), body)
	r := bufio.NewReader(c)
	done := resttest.Cost(b, 1)
	defer done()
	for b.Loop() {
		_, err := io.WriteString(c, request)
		must(b, err)
		length := 0
		for {
			line, err := r.ReadSlice('\n')
			must(b, err)
			if n, ok := strings.CutPrefix(string(line), "Content-Length: "); ok {
				_, _ = fmt.Sscan(n, &length)
			}
			if len(line) == 2 {
				break
			}
		}
		_, err = r.Discard(length)
		must(b, err)
	}
}
