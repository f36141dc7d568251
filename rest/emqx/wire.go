package emqx

import (
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// answer writes 200 and a value whose type encoding/json knows.
func answer(w http.ResponseWriter, r *httpx.Request, v any) error {
	return answerStatus(w, r, http.StatusOK, v)
}

func answerStatus(w http.ResponseWriter, r *httpx.Request, status int, v any) error {
	return httpx.WriteJSON(w, r, status, httpx.AppendJSON(r.Buffer(), v))
}

// list is the form of every list with pages.
type list[T any] struct {
	Data []T  `json:"data"`
	Meta meta `json:"meta"`
}

// meta says where a page is. count is left out where counting would mean to
// look at everything: with a filter that is not exact.
type meta struct {
	Page    int    `json:"page,omitempty"`
	Limit   int    `json:"limit,omitempty"`
	Count   *int   `json:"count,omitempty"`
	HasNext bool   `json:"hasnext"`
	Cursor  string `json:"cursor,omitempty"`
	Partial bool   `json:"partial,omitempty"` // a node did not answer: its entries are missing
}

// infinity is EMQX's word for a limit or an end that there is none of.
const infinity = "infinity"

// timestamp is RFC 3339 with milliseconds; the zero time is null.
func timestamp(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
	return &s
}

// readTime takes RFC 3339, or Unix time in milliseconds.
func readTime(s string) (time.Time, bool) {
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.UnixMilli(ms), true
	}
	t, err := time.Parse(time.RFC3339, strings.ReplaceAll(s, " ", "+")) // a + that was not escaped
	return t, err == nil
}

// messageID shows an id as EMQX does: 32 hex digits.
func messageID(id broker.ID) string { return string(appendMessageID(nil, id)) }

func appendMessageID(dst []byte, id broker.ID) []byte {
	const digits = "0123456789ABCDEF"
	for _, b := range id {
		dst = append(dst, digits[b>>4], digits[b&15])
	}
	return dst
}

// readMessageID reads one.
func readMessageID(s string) (id broker.ID, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, false
	}
	return broker.ID(b), true
}

// fields reads the members of an object; those it does not have are ignored,
// as EMQX does.
type fields map[string]func(d *httpx.Decoder) error

func (f fields) read(d *httpx.Decoder) error {
	return d.Object(func(name []byte) error {
		if read, ok := f[string(name)]; ok {
			return read(d)
		}
		return d.Skip()
	})
}

// maxBody bounds the bodies that carry no messages.
const maxBody = 1 << 20

// readBody reads a JSON body. A body that does not say that it is JSON is not
// looked at.
func readBody(r *httpx.Request, limit httpx.Limit, read func(d *httpx.Decoder) error) error {
	if !r.IsJSON() {
		return problemf(http.StatusUnsupportedMediaType, unsupportedMedia, "the Content-Type is %q, it must be application/json", httpx.Clip(r.Header.Get("Content-Type")))
	}
	return r.ReadJSON(limit, httpx.IgnoreUnknown, false, read)
}

// into returns a readInto for the table of a body.
func into[T any](v *T, read func(d *httpx.Decoder) (T, error)) func(d *httpx.Decoder) error {
	return func(d *httpx.Decoder) error { return readInto(d, v, read) }
}

// readInto reads a value into v. null leaves what is there.
func readInto[T any](d *httpx.Decoder, v *T, read func(d *httpx.Decoder) (T, error)) error {
	if d.Null() {
		return nil
	}
	got, err := read(d)
	if err == nil {
		*v = got
	}
	return err
}

func text(v *string) func(d *httpx.Decoder) error { return into(v, (*httpx.Decoder).String) }

func flag(v *bool) func(d *httpx.Decoder) error { return into(v, readFlag) }

// readFlag reads true or false, also written as text or as 1 and 0, which EMQX takes.
func readFlag(d *httpx.Decoder) (bool, error) {
	switch d.Peek() {
	case '"':
		s, err := d.String()
		if err == nil && s != "true" && s != "false" {
			err = httpx.Problem("is %q, it must be true or false", httpx.Clip(s))
		}
		return s == "true", err
	case '0':
		n, err := d.Int()
		if err == nil && n != 0 && n != 1 {
			err = httpx.Problem("is %d, it must be true or false", n)
		}
		return n == 1, err
	}
	return d.Bool()
}

// whole reads a whole number from low to high.
func whole[T ~int | ~int64 | ~uint32 | ~byte](v *T, low, high int64) func(d *httpx.Decoder) error {
	return into(v, func(d *httpx.Decoder) (T, error) {
		n, err := readWhole(d, low, high)
		return T(n), err
	})
}

func readWhole(d *httpx.Decoder, low, high int64) (int64, error) {
	n, err := d.Int()
	if err == nil && (n < low || n > high) {
		err = httpx.Problem("is %d, it must be %d to %d", n, low, high)
	}
	return n, err
}

// given makes a pointer of a value that was read, to tell it from none.
func given[T any](v **T, read func(*T) func(d *httpx.Decoder) error) func(d *httpx.Decoder) error {
	return func(d *httpx.Decoder) error {
		if d.Null() {
			return nil
		}
		got := new(T)
		if err := read(got)(d); err != nil {
			return err
		}
		*v = got
		return nil
	}
}

// orZero is the value behind p, if there is one.
func orZero[T any](p *T) (zero T) {
	if p == nil {
		return zero
	}
	return *p
}

// readWhen reads a time, written or as Unix seconds, or infinity, which is the
// zero time.
func readWhen(v *time.Time) func(d *httpx.Decoder) error {
	return into(v, func(d *httpx.Decoder) (time.Time, error) {
		if d.Peek() == '0' {
			n, err := d.Int()
			return time.Unix(n, 0), err
		}
		s, err := d.String()
		if err != nil || s == infinity || s == "undefined" { // what EMQX's own form sends
			return time.Time{}, err
		}
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return t, httpx.Problem("is %q, it must be a time as in 2030-01-31T12:00:00Z, or infinity", httpx.Clip(s))
		}
		return t, nil
	})
}
