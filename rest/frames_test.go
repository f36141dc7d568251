package rest_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"millrace/rest"
)

// headers is a header block of a GET.
func headers(tb testing.TB, path string) []byte {
	tb.Helper()
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "x"}, {":path", path}} {
		must(tb, e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	return block.Bytes()
}

// TestAClientThatResetsStreamsWithoutEndIsEnded is X194.
func TestAClientThatResetsStreamsWithoutEndIsEnded(t *testing.T) {
	s := overTLS(t, "h2")
	c, err := tls.Dial("tcp", s.Addr("https").String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(c, http2.ClientPreface)
	must(t, err)
	f := http2.NewFramer(c, c)
	must(t, f.WriteSettings())
	answered := make(chan int)
	go func() { // ends with the connection
		n := 0
		for {
			frame, err := f.ReadFrame()
			if err != nil && !errors.As(err, new(http2.StreamError)) {
				answered <- n
				return
			}
			if _, ok := frame.(*http2.HeadersFrame); ok {
				n++
			}
		}
	}()
	block := headers(t, "/livez")
	for n := range uint32(10_000) {
		// An error means that the server has ended the connection.
		if f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*n + 1, BlockFragment: block, EndStream: true, EndHeaders: true}) != nil ||
			f.WriteRSTStream(2*n+1, http2.ErrCodeCancel) != nil {
			break
		}
	}
	if n := <-answered; n > rest.MaxResets+100 {
		t.Errorf("%d streams were answered on the connection", n)
	}
	s.log.await("connection refused", "more HTTP/2 streams were reset")
	w, err := trusting(t).Get("https://" + s.Addr("https").String() + "/livez")
	must(t, err)
	must(t, w.Body.Close())
	if w.StatusCode != http.StatusOK || w.ProtoMajor != 2 {
		t.Errorf("another connection is answered %d, HTTP/%d", w.StatusCode, w.ProtoMajor)
	}
}

func TestSoManyStreamsMayBeResetInAMinute(t *testing.T) {
	var frames bytes.Buffer
	f := http2.NewFramer(&frames, nil)
	write := func(resets int) []byte {
		for range resets {
			must(t, f.WriteData(1, false, []byte("\x00\x00\x00\x03 looks like a reset")))
			must(t, f.WriteRSTStream(1, http2.ErrCodeCancel))
		}
		defer frames.Reset()
		return bytes.Clone(frames.Bytes())
	}
	for _, piece := range []int{1, 10, 1 << 20} {
		now := time.Now()
		in := rest.NewFrames(func() time.Time { return now })
		take := func(text []byte) error {
			for ; len(text) > 0; text = text[min(piece, len(text)):] {
				if _, err := in.Take(text[:min(piece, len(text))]); err != nil {
					return err
				}
			}
			return nil
		}
		must(t, take([]byte(strings.Repeat("p", len(http2.ClientPreface)))))
		for range 3 {
			must(t, take(write(rest.MaxResets)))
			now = now.Add(time.Minute)
		}
		must(t, take(write(rest.MaxResets)))
		if take(write(1)) == nil {
			t.Errorf("one reset too many is taken, in pieces of %d", piece)
		}
	}
}
