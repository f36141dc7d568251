package clients

import (
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/btree"
)

// Query says which clients are wanted. Zero values want all.
type Query struct {
	IDs, Usernames              []string // one of them
	Host                        string
	Connected, CleanStart       *bool
	Version                     byte
	LikeID, LikeUsername        string // a part of the name
	CreatedFrom, CreatedUntil   time.Time
	ConnectFrom, ConnectedUntil time.Time
}

// Exact reports whether q asks for what can be counted; a part of a name is
// searched for, and not counted.
func (q *Query) Exact() bool { return q.LikeID == "" && q.LikeUsername == "" }

func (q *Query) all() bool {
	return q.Exact() && len(q.IDs) == 0 && len(q.Usernames) == 0 && q.Host == "" && q.Connected == nil && q.CleanStart == nil &&
		q.Version == 0 && q.CreatedFrom.IsZero() && q.CreatedUntil.IsZero() && q.ConnectFrom.IsZero() && q.ConnectedUntil.IsZero()
}

// Wants reports whether q wants a client of these facts.
func (q *Query) Wants(f *Facts) bool {
	switch {
	case len(q.IDs) > 0 && !slices.Contains(q.IDs, f.ID),
		len(q.Usernames) > 0 && !slices.Contains(q.Usernames, f.Username),
		q.Host != "" && q.Host != f.Host,
		q.Connected != nil && *q.Connected != f.Connected,
		q.CleanStart != nil && *q.CleanStart != f.CleanStart,
		q.Version != 0 && q.Version != f.Version,
		q.LikeID != "" && !strings.Contains(f.ID, q.LikeID),
		q.LikeUsername != "" && !strings.Contains(f.Username, q.LikeUsername):
		return false
	}
	return within(f.CreatedAt, q.CreatedFrom, q.CreatedUntil) && within(f.ConnectedAt, q.ConnectFrom, q.ConnectedUntil)
}

func within(t, from, until time.Time) bool {
	return (from.IsZero() || !t.Before(from)) && (until.IsZero() || !t.After(until))
}

// Page is a part of a list: what comes behind the key After, without the first
// Skip, and at most Limit.
type Page struct {
	After string
	Skip  int
	Limit int
	// Examine bounds the entries that are looked at; a page that had to pass over
	// many may be short, or empty, and the list still go on. 0 = no bound.
	Examine int
}

// Listed is a page.
type Listed[T any] struct {
	Items []T
	// Count is how many there are in all. It is -1 where q is not exact, behind a
	// key, and where counting would mean to look at more than Page.Examine.
	Count int
	More  bool
	Next  string // Page.After of the next page, if there are More
}

// List returns a page of the clients that q wants, in order of client id.
func (r *Registry) List(q *Query, p Page) Listed[*Client] {
	if len(q.IDs) > 0 {
		return r.listIDs(q, p)
	}
	from, left := r.choose(q)
	l := listing[*Client]{p: p, exact: q.Exact()}
	if !left.all() {
		l.wants = func(c *Client) bool { return left.Wants(c.Facts) }
	}
	return whole(l, from)
}

// choose returns the smallest set that is known to have all clients that q
// wants, and what is left to ask of each of them.
func (r *Registry) choose(q *Query) (from *byID, left Query) {
	left = *q
	r.mu.Lock() // Copy marks the nodes as shared
	defer r.mu.Unlock()
	from = &r.clients
	narrow := func(to *byID, asked func()) {
		if to == nil {
			to = &byID{}
		}
		if to.Len() <= from.Len() {
			left = *q
			from = to
			asked()
		}
	}
	if q.Connected != nil && !*q.Connected {
		narrow(&r.away, func() { left.Connected = nil })
	}
	if q.Host != "" {
		narrow(r.hosts[q.Host], func() { left.Host = "" })
	}
	switch len(q.Usernames) {
	case 0:
	case 1:
		narrow(r.users[q.Usernames[0]], func() { left.Usernames = nil })
	default:
		narrow(r.users.union(q.Usernames), func() { left.Usernames = nil })
	}
	return from.Copy(), left
}

// union is the clients of all keys.
func (x index) union(keys []string) *byID {
	all := &byID{}
	for _, key := range keys {
		if m := x[key]; m != nil {
			m.Scan(func(id string, c *Client) bool {
				all.Set(id, c)
				return true
			})
		}
	}
	return all
}

// listIDs looks the clients up that q names.
func (r *Registry) listIDs(q *Query, p Page) Listed[*Client] {
	named := func(yield func(string, *Client) bool) {
		for _, id := range slices.Compact(slices.Sorted(slices.Values(q.IDs))) {
			if c, ok := r.Get(id); ok && id > p.After && !yield(id, c) {
				return
			}
		}
	}
	l := listing[*Client]{p: p, exact: q.Exact(), wants: func(c *Client) bool { return q.Wants(c.Facts) }}
	return l.of(named)
}

// listing makes a page of V, each under a key.
type listing[V any] struct {
	p     Page
	exact bool         // it may be counted
	wants func(V) bool // nil = all of them
}

// whole is a page of a map, of which nothing is looked at that is skipped as
// long as all of it is wanted.
func whole[V any](l listing[V], m *btree.Map[string, V]) Listed[V] {
	if l.wants != nil {
		return l.of(behind(m, l.p.After))
	}
	first, count := l.p.After, -1
	if first == "" && l.exact {
		count = m.Len()
	}
	if first == "" && l.p.Skip > 0 {
		var ok bool
		if first, _, ok = m.GetAt(l.p.Skip - 1); !ok {
			return Listed[V]{Count: count}
		}
		l.p.Skip = 0
	}
	l.exact = false
	got := l.of(behind(m, first))
	got.Count = count
	return got
}

// behind yields what comes after a key.
func behind[V any](m *btree.Map[string, V], after string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		m.Ascend(after, func(key string, v V) bool { return key == after && after != "" || yield(key, v) })
	}
}

// of takes the page out of what comes in order of key, from Page.After on.
func (l listing[V]) of(all iter.Seq2[string, V]) Listed[V] {
	out := Listed[V]{Count: -1}
	counting := l.exact && l.p.After == "" && l.p.Examine == 0
	examined, matched := 0, 0
	for key, v := range all {
		if l.p.Examine > 0 && examined == l.p.Examine {
			out.More = true
			break
		}
		examined++
		wanted := l.wants == nil || l.wants(v)
		if wanted {
			matched++
		}
		if len(out.Items) < l.p.Limit {
			out.Next = key
			if wanted && matched > l.p.Skip {
				out.Items = append(out.Items, v)
			}
		} else if wanted {
			out.More = true
			if !counting {
				break
			}
		}
	}
	if counting {
		out.Count = matched
	}
	if !out.More {
		out.Next = ""
	}
	return out
}

// Since counts the sessions that are connected, or have been since t.
func (r *Registry) Since(t time.Time) (n int) {
	r.mu.Lock()
	all := r.clients.Copy()
	r.mu.Unlock()
	all.Scan(func(_ string, c *Client) bool {
		if c.Facts.Connected || !c.Facts.DisconnectedAt.Before(t) {
			n++
		}
		return true
	})
	return n
}
