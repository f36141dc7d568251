package resttest

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Cost reports the CPU time of the whole process per message, which a busy
// machine changes little; call the result when the loop is over.
func Cost(b *testing.B, messages int) func() {
	b.Helper()
	b.ReportAllocs()
	start := cpuTime()
	return func() { b.ReportMetric(float64(cpuTime()-start)/float64(b.N*messages), "cpu-ns/message") }
}

// Way is one of several ways to the same end. Step goes it once. Ready, if there
// is any, prepares a turn of so many messages, at nobody's cost.
type Way struct {
	Name  string
	Ready func(messages int)
	Step  func()
}

// turnMessages is how many messages a way handles before the next has its turn.
const turnMessages = 500

// Compare lets the ways take turns, so that whatever else the machine does meets
// all of them, and reports for each the CPU time and the allocations per message
// in its median turn, and how much the first costs of the last: by their least
// turns, which the collector of garbage spares, and by their medians, which pay
// for it. A step is of so many messages.
func Compare(b *testing.B, messages int, ways ...Way) {
	b.Helper()
	steps := max(1, turnMessages/messages)
	took, objects := make([][]float64, len(ways)), make([][]float64, len(ways))
	for b.Loop() {
		for i, way := range ways {
			if way.Ready != nil {
				way.Ready(steps * messages)
			}
			allocated, start := allocations(), cpuTime()
			for range steps {
				way.Step()
			}
			n := float64(steps * messages)
			took[i] = append(took[i], float64(cpuTime()-start)/n)
			objects[i] = append(objects[i], float64(allocations()-allocated)/n)
		}
	}
	for i, way := range ways {
		slices.Sort(took[i])
		slices.Sort(objects[i])
		b.ReportMetric(median(took[i]), way.Name+"-cpu-ns")
		b.ReportMetric(median(objects[i]), way.Name+"-allocs")
	}
	first, last := took[0], took[len(took)-1]
	b.ReportMetric(first[0]/last[0], "x-least")
	b.ReportMetric(median(first)/median(last), "x-median")
	b.ReportMetric(0, "ns/op") // of all ways together: says nothing
}

func median(sorted []float64) float64 { return sorted[len(sorted)/2] }

func allocations() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// Client asks handlers as the administrator, without a socket, and keeps the
// last answer only.
type Client struct {
	header http.Header
	status int
	body   []byte
}

// NewClient returns one.
func NewClient() *Client { return &Client{header: http.Header{}} }

// SetReadDeadline is what connections have.
func (*Client) SetReadDeadline(time.Time) error { return nil }

// Header makes it an http.ResponseWriter, as the next two.
func (c *Client) Header() http.Header { return c.header }

// WriteHeader notes the status.
func (c *Client) WriteHeader(status int) { c.status = status }

// Write keeps the body.
func (c *Client) Write(b []byte) (int, error) {
	c.body = append(c.body[:0], b...)
	return len(b), nil
}

// Call sends a request that must be answered with 200; the answer is valid
// until the next call.
func (c *Client) Call(b *testing.B, h http.Handler, method, path, body string) []byte {
	b.Helper()
	r := httptest.NewRequestWithContext(b.Context(), method, path, strings.NewReader(body))
	r.Header["Authorization"] = []string{"Bearer root." + Secret}
	r.Header["Client-Id"], r.Header["Content-Type"] = []string{"bench"}, []string{"application/json"}
	clear(c.header)
	c.body = c.body[:0]
	if h.ServeHTTP(c, r); c.status != http.StatusOK {
		b.Fatalf("%s %s: status %d: %s", method, path, c.status, c.body)
	}
	return c.body
}

// Ask is a step that makes one call.
func (c *Client) Ask(b *testing.B, h http.Handler, method, path, body string) func() {
	return func() { c.Call(b, h, method, path, body) }
}

// Between returns what stands in an answer behind a mark, up to the next quote.
func Between(b *testing.B, text []byte, mark string) string {
	b.Helper()
	_, rest, ok := strings.Cut(string(text), mark)
	if !ok {
		b.Fatalf("no %s in %s", mark, text)
	}
	value, _, _ := strings.Cut(rest, `"`)
	return value
}
