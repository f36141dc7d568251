package emqx

import (
	"encoding/base64"
	"strings"

	"millrace/rest/internal/httpx"
)

// The limits of a page.
const (
	defaultLimit = 100
	maxLimit     = 10_000
	maxPage      = 1 << 31
)

// page is the part of a list that a client asked for.
type page struct{ number, limit int }

func readPage(r *httpx.Request) (p page, err error) {
	if p.number, err = r.QueryInt("page", 1, 1, maxPage); err == nil {
		p.limit, err = r.QueryInt("limit", defaultLimit, 1, maxLimit)
	}
	return p, badQuery(err)
}

// skip is how many entries come before the page.
func (p page) skip() int { return (p.number - 1) * p.limit }

// meta describes the page; count is -1 where it is not known.
func (p page) meta(count int, more bool) meta {
	m := meta{Page: p.number, Limit: p.limit, HasNext: more}
	if count >= 0 {
		m.Count = &count
	}
	return m
}

// pageOf cuts a page out of a list that is all there.
func pageOf[T any](all []T, p page) list[T] {
	from := min(p.skip(), len(all))
	to := min(from+p.limit, len(all))
	return list[T]{append([]T{}, all[from:to]...), p.meta(len(all), to < len(all))}
}

// cursor is a place in an ordered list: behind the entry of that key. Clients
// are to take it as it is.
func cursor(key string) string { return base64.RawURLEncoding.EncodeToString([]byte("v1:" + key)) }

// readCursor reads limit and cursor from the query; after is "" at the beginning.
func readCursor(r *httpx.Request) (after string, limit int, err error) {
	if limit, err = r.QueryInt("limit", defaultLimit, 1, maxLimit); err != nil {
		return "", 0, badQuery(err)
	}
	s, err := r.Query("cursor")
	if err != nil || s == "" || s == "none" {
		return "", limit, badQuery(err)
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	after, ok := strings.CutPrefix(string(b), "v1:")
	if err != nil || !ok {
		return "", 0, bad("the cursor is none that was given here: begin without one")
	}
	return after, limit, nil
}
