package rest_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"millrace/rest"
)

const (
	plainGet  = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
	withBoth  = "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
	fiveBytes = "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde"
	inChunks  = "POST /livez HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\nA\r\n0123456789\r\n0\r\nContent-Length: 7\r\n\r\n"
)

// answers sends text in pieces of a size and returns the statuses that come
// back until the connection ends or all of want are there.
func answers(t *testing.T, c net.Conn, text string, piece, want int) (statuses []int, closed bool) {
	t.Helper()
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	go func() { // ends with the connection
		for b := []byte(text); len(b) > 0; b = b[min(piece, len(b)):] {
			if _, err := c.Write(b[:min(piece, len(b))]); err != nil {
				return
			}
		}
	}()
	r := bufio.NewReader(c)
	for len(statuses) < want {
		w, err := http.ReadResponse(r, nil)
		if err != nil {
			return statuses, true
		}
		_, _ = io.Copy(io.Discard, w.Body)
		statuses, closed = append(statuses, w.StatusCode), w.Close
	}
	return statuses, closed
}

func TestARequestWithTwoEndsIsRefused(t *testing.T) { // X184, X186
	plain, secure := openSite(t, nil), overTLS(t, "http/1.1")
	long := strings.Repeat("x", 100)
	for name, c := range map[string]struct {
		text string
		want []int
	}{
		"both":                         {withBoth, []int{400}},
		"both, the other way round":    {"POST /livez HTTP/1.1\r\nHost: x\r\nTRANSFER-ENCODING: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", []int{400}},
		"both, one of them empty":      {"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding:\r\n\r\n", []int{400}},
		"both, in a GET":               {"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nabcde", []int{400}},
		"both, after a request":        {plainGet + withBoth, []int{200, 400}},
		"both, after a body":           {fiveBytes + withBoth, []int{405, 400}},
		"both, after chunks":           {inChunks + withBoth, []int{405, 400}},
		"both, after a long line":      {"POST /livez?" + long + " HTTP/1.1\r\nHost: x\r\nX: " + long + "\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", []int{400}},
		"a coding in HTTP/1.0":         {"POST /livez HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{400}},
		"a bare LF":                    {"GET /livez HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", []int{400}},
		"bare LFs":                     {"GET /livez HTTP/1.1\nHost: x\n\n", []int{400}},
		"a bare LF at the end":         {"GET /livez HTTP/1.1\r\nHost: x\r\n\n", []int{400}},
		"a bare LF in chunks":          {"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\n\r\n", []int{405}}, // and the end: nobody asked for the body
		"a folded header":              {"POST /livez HTTP/1.1\r\nHost: x\r\nX: a\r\n Content-Length: 5\r\n\r\n", []int{400}},
		"a space before the colon":     {"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n", []int{400}},
		"a length that is none":        {"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n", []int{400}},
		"a length of spaces":           {"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: " + strings.Repeat(" ", 100) + "5\r\n\r\n", []int{400}},
		"none":                         {plainGet + fiveBytes + inChunks + plainGet, []int{200, 405, 405, 200}},
		"both in a body":               {"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 78\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nabcd" + plainGet, []int{405, 200}},
		"headers that look like them":  {"POST /livez HTTP/1.1\r\nHost: x\r\nX-Content-Length: 5\r\nTransfer-Encoding2: x\r\nX: Content-Length: 9\r\nTE: trailers\r\n\r\n" + plainGet, []int{405, 200}},
		"an empty line after a POST":   {fiveBytes + "\r\n" + plainGet, []int{405, 200}},
		"a long line with a length":    {"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + long + "\r\nContent-Length: 3\r\n\r\nabc" + plainGet, []int{200, 200}},
		"an extension of a long chunk": {"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + long + "\r\na\r\n0\r\n\r\n" + plainGet, []int{200, 200}},
	} {
		for _, piece := range []int{1 << 20, 7, 1} {
			for door, dial := range map[string]func() (net.Conn, error){
				"http": func() (net.Conn, error) { return net.Dial("tcp", plain.Addr("http").String()) },
				"https": func() (net.Conn, error) {
					return tls.Dial("tcp", secure.Addr("https").String(), trusting(t).Transport.(*http.Transport).TLSClientConfig)
				},
			} {
				conn, err := dial()
				must(t, err)
				got, closed := answers(t, conn, c.text, piece, len(c.want))
				if refused := c.want[len(c.want)-1] == 400; fmt.Sprint(got) != fmt.Sprint(c.want) || refused && !closed {
					t.Errorf("%s, %s in pieces of %d: %v, closed %v, want %v", door, name, piece, got, closed, c.want)
				}
				_ = conn.Close()
			}
		}
	}
}

// FuzzFraming compares where requests end with what net/http thinks: what it
// reads ends there for us too, in whatever pieces it comes.
func FuzzFraming(f *testing.F) {
	for _, seed := range []string{plainGet, withBoth, fiveBytes, inChunks, plainGet + inChunks + fiveBytes + plainGet, "POST / HTTP/1.0\r\nHost: x\r\n\r\n"} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, text []byte, piece uint8) {
		whole, parts := &rest.Framing{}, &rest.Framing{}
		good, err := whole.Take(text)
		at := 0
		for at < len(text) {
			end := min(len(text), at+int(piece)+1)
			n, fault := parts.Take(text[at:end])
			if at += n; fault != nil {
				break
			}
		}
		if at != good {
			t.Fatalf("%d bytes are good, in pieces %d: %v", good, at, err)
		}
		counted := &counting{r: bytes.NewReader(text[:good])}
		r := bufio.NewReader(iotest.OneByteReader(counted))
		again := &rest.Framing{}
		for from := 0; ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			to := counted.n - r.Buffered()
			if _, err := again.Take(text[from:to]); err != nil || !again.BetweenRequests() {
				t.Fatalf("a request of net/http ends at %d, ours does not: %v", to, err)
			}
			from = to
		}
	})
}

type counting struct {
	r io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func BenchmarkFraming(b *testing.B) {
	head := "POST /api/v1/topics/plant%2F3%2Ftemperature/messages HTTP/1.1\r\nHost: broker.example:8080\r\nUser-Agent: Go-http-client/1.1\r\n" +
		"Content-Length: 256\r\nAuthorization: Bearer press-7.0123456789012345678901234567890123456789012\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
	text := []byte(head + strings.Repeat("x", 256))
	var f rest.Framing
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := f.Take(text); err != nil {
			b.Fatal(err)
		}
	}
}
