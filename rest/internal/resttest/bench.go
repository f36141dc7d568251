package resttest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Client asks handlers as the administrator, without a socket, and keeps the
// last answer only.
type Client struct {
	header http.Header
	status int
	body   []byte
}

// NewClient returns one.
func NewClient() *Client { return &Client{header: http.Header{}} }

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
	r.Header["Client-Id"] = []string{"bench"}
	clear(c.header)
	c.body = c.body[:0]
	if h.ServeHTTP(c, r); c.status != http.StatusOK {
		b.Fatalf("%s %s: status %d: %s", method, path, c.status, c.body)
	}
	return c.body
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
