package emqx

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"millrace/rest/internal/httpx"
)

// rows is a list as a node answers it.
type rows = list[json.RawMessage]

// paged answers a page of the lists of all nodes, which follow each other by name
// of the node. At most two pages of one node are held at a time.
func (a *api) paged(h httpx.Handler) httpx.Handler {
	return a.onAll(h, func(w http.ResponseWriter, r *httpx.Request) error {
		p, err := readPage(r)
		if err != nil {
			return err
		}
		x := a.walk(r, p.limit)
		x.skip = p.skip()
		for _, n := range a.peers.members() {
			if err := x.visit(r.Context(), n.Name); err != nil {
				return err
			}
			if x.refused != nil {
				return x.refused.send(w)
			}
		}
		m := p.meta(x.count, x.more)
		m.Partial = len(x.silent) > 0
		mark(w, x.silent)
		return answer(w, r, rows{x.found, m})
	})
}

// continued answers likewise a list that goes on at a cursor, which names the node.
func (a *api) continued(h httpx.Handler) httpx.Handler {
	return a.onAll(h, func(w http.ResponseWriter, r *httpx.Request) error {
		after, limit, err := readCursor(r)
		if err != nil {
			return err
		}
		at, from, ok := strings.Cut(after, "/")
		if !ok && after != "" {
			return bad("the cursor is none that was given here: begin without one")
		}
		x := a.walk(r, limit)
		m := meta{}
		for _, n := range a.peers.members() {
			if n.Name < from {
				continue
			}
			if n.Name > from {
				at = ""
			}
			if len(x.found) == limit {
				m.HasNext, m.Cursor = true, cursor("/"+n.Name)
				break
			}
			x.query.Set("cursor", at)
			l, ok, err := x.read(r.Context(), n.Name, "limit", strconv.Itoa(limit-len(x.found)))
			switch {
			case err != nil:
				return err
			case x.refused != nil:
				return x.refused.send(w)
			case !ok:
				continue
			}
			x.found = append(x.found, l.Data...)
			if l.Meta.HasNext {
				m.HasNext, m.Cursor = true, cursor(l.Meta.Cursor+"/"+n.Name)
				break
			}
		}
		m.Partial = len(x.silent) > 0
		mark(w, x.silent)
		return answer(w, r, rows{x.found, m})
	})
}

// walk goes through the lists of nodes, one after the other.
type walk struct {
	peers *peers
	r     *httpx.Request
	query url.Values // of the request, but for the page
	limit int
	skip  int // entries of the nodes to come that are before the page

	found   []json.RawMessage
	count   int // of all nodes so far; -1 where one does not count
	more    bool
	silent  []string
	refused *reply // of the first node that did not take the request
}

func (a *api) walk(r *httpx.Request, limit int) *walk {
	return &walk{peers: a.peers, r: r, query: r.URL.Query(), limit: limit, found: []json.RawMessage{}}
}

// read asks a node for a part of its list: pairs are what the query says of it.
// ok is false where there was no answer, or none of those wanted.
func (x *walk) read(ctx context.Context, node string, pairs ...string) (l rows, ok bool, err error) {
	for p := range slices.Chunk(pairs, 2) {
		x.query.Set(p[0], p[1])
	}
	got, err := x.peers.ask(ctx, node, get(x.r, x.r.URL.EscapedPath(), x.query.Encode()))
	switch {
	case err != nil:
		x.silent = append(x.silent, node)
		return l, false, nil //nolint:nilerr // the answer says who is missing
	case got.Status != http.StatusOK:
		x.refused = got
		return l, false, nil
	}
	err = json.Unmarshal(got.Body, &l)
	return l, err == nil, err
}

// visit takes from a node what belongs on the page.
func (x *walk) visit(ctx context.Context, node string) error {
	need := x.limit - len(x.found)
	if need == 0 {
		return x.look(ctx, node)
	}
	var got []json.RawMessage
	var count *int
	number, before := x.skip/x.limit+1, x.skip%x.limit
	for {
		l, ok, err := x.read(ctx, node, "page", strconv.Itoa(number), "limit", strconv.Itoa(x.limit))
		if !ok {
			return err
		}
		got, count = append(got, l.Data...), l.Meta.Count
		if !l.Meta.HasNext {
			break
		}
		if len(got) >= before+need {
			x.more = true
			break
		}
		number++
	}
	got = got[min(before, len(got)):]
	x.more = x.more || len(got) > need
	x.found = append(x.found, got[:min(need, len(got))]...)
	return x.pass(ctx, node, count, len(got) > 0)
}

// pass notes how much of what is before the page was on a node.
func (x *walk) pass(ctx context.Context, node string, count *int, reached bool) error {
	switch {
	case count != nil:
		x.skip = max(0, x.skip-*count)
	case reached || x.skip == 0:
		x.skip = 0
	default:
		n, err := x.size(ctx, node)
		if err != nil {
			return err
		}
		x.skip = max(0, x.skip-n)
	}
	x.add(count)
	return nil
}

func (x *walk) add(count *int) {
	if count == nil {
		x.count = -1
	} else if x.count >= 0 {
		x.count += *count
	}
}

// look asks a node whose entries come behind the page whether it has any.
func (x *walk) look(ctx context.Context, node string) error {
	l, ok, err := x.read(ctx, node, "page", "1", "limit", "1")
	if ok {
		x.more = x.more || len(l.Data) > 0
		x.add(l.Meta.Count)
	}
	return err
}

// size is how many entries a node has that does not count them.
func (x *walk) size(ctx context.Context, node string) (n int, err error) {
	fields := x.query["fields"]
	defer func() { x.query["fields"] = fields }()
	for number := 1; n < x.skip; number++ {
		l, ok, err := x.read(ctx, node, "page", strconv.Itoa(number), "limit", strconv.Itoa(maxLimit), "fields", "clientid")
		if !ok {
			return n, err
		}
		if n += len(l.Data); !l.Meta.HasNext {
			break
		}
	}
	return n, nil
}
