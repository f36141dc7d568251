package clients

import (
	"iter"
	"slices"
	"strings"

	"github.com/tidwall/btree"

	"millrace/router"
)

// Subscription is one of a client, with the options of MQTT 5 section 3.8.3.1.
type Subscription struct {
	ClientID          string
	Filter            string // as the client wrote it, with $share/GROUP/
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
	Durable           bool // it outlives the connection
}

// sharePrefix begins a shared subscription, MQTT 5 section 4.8.2.
const sharePrefix = "$share/"

// Shared splits "$share/GROUP/FILTER"; group is "" for any other filter.
func (s *Subscription) Shared() (group, filter string) {
	rest, ok := strings.CutPrefix(s.Filter, sharePrefix)
	if !ok {
		return "", s.Filter
	}
	group, filter, _ = strings.Cut(rest, "/")
	return group, filter
}

// entry is a subscription in the index.
type entry struct {
	Subscription
	owner Session
}

// subKey orders subscriptions by filter, and then by client: a NUL, which
// neither may hold, parts them.
type subKey = string

func keyOf(filter, clientID string) subKey { return filter + "\x00" + clientID }

// Key is the place of a subscription in the order of lists, for Page.After.
func (s *Subscription) Key() string { return keyOf(s.Filter, s.ClientID) }

// Subscribe adds a subscription of a session, or its new options.
func (r *Registry) Subscribe(owner Session, s Subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subscribe(owner, s)
	r.note()
}

func (r *Registry) subscribe(owner Session, s Subscription) {
	group, filter := s.Shared()
	if _, had := r.subs.Set(s.Key(), &entry{s, owner}); had {
		return
	}
	to, _ := r.routes.Get(filter)
	r.routes.Set(filter, to.add(group, 1))
	if group != "" {
		r.shared++
	}
}

// Unsubscribe takes a subscription out, unless another session of the client
// has made it its own.
func (r *Registry) Unsubscribe(owner Session, clientID, filter string) {
	s := Subscription{ClientID: clientID, Filter: filter}
	group, topic := s.Shared()
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.subs.Get(s.Key())
	if !ok || e.owner != owner {
		return
	}
	r.subs.Delete(s.Key())
	to, _ := r.routes.Get(topic)
	if to = to.add(group, -1); to.len() > 0 {
		r.routes.Set(topic, to)
	} else {
		r.routes.Delete(topic)
	}
	if group != "" {
		r.shared--
	}
}

// route counts the subscriptions to one filter.
type route struct {
	direct int
	groups map[string]int // those of shared subscriptions; nil = none
}

func (t route) add(group string, n int) route {
	if group == "" {
		t.direct += n
		return t
	}
	if t.groups == nil {
		t.groups = map[string]int{}
	}
	if t.groups[group] += n; t.groups[group] == 0 {
		delete(t.groups, group)
	}
	return t
}

func (t route) len() int {
	n := t.direct
	for _, k := range t.groups {
		n += k
	}
	return n
}

// written are the ways in which clients have written the filter.
func (t route) written(filter string) (all []string) {
	if t.direct > 0 {
		all = append(all, filter)
	}
	for group := range t.groups {
		all = append(all, sharePrefix+group+"/"+filter)
	}
	return all
}

// SubscriptionQuery says which subscriptions are wanted. Zero values want all.
type SubscriptionQuery struct {
	ClientID string
	Filter   string // exactly, without $share/GROUP/
	Group    string // of a shared one
	Matches  string // a topic that the filter matches
	QoS      *byte
	Durable  *bool
}

// Exact reports whether the answer to q can be counted without asking every
// filter whether it matches.
func (q *SubscriptionQuery) Exact() bool { return q.Matches == "" }

func (q *SubscriptionQuery) all() bool { return *q == SubscriptionQuery{} }

func (q *SubscriptionQuery) wants(s *Subscription) bool {
	group, filter := s.Shared()
	return (q.ClientID == "" || q.ClientID == s.ClientID) &&
		(q.Filter == "" || q.Filter == filter) &&
		(q.Group == "" || q.Group == group) &&
		(q.QoS == nil || *q.QoS == s.QoS) &&
		(q.Durable == nil || *q.Durable == s.Durable) &&
		(q.Matches == "" || router.Match(filter, q.Matches))
}

// Subscriptions returns a page of the subscriptions that q wants, in order of
// filter and client id.
func (r *Registry) Subscriptions(q *SubscriptionQuery, p Page) Listed[Subscription] {
	if q.ClientID != "" {
		return r.subscriptionsOf(q, p)
	}
	l := listing[*entry]{p: p, exact: q.Exact()}
	if !q.all() {
		l.wants = func(e *entry) bool { return q.wants(&e.Subscription) }
	}
	r.mu.Lock() // Copy marks the nodes as shared
	all, parts := r.subs.Copy(), r.parts(q)
	r.mu.Unlock()
	if parts == nil {
		return shown(whole(l, all))
	}
	return shown(l.of(beginning(all, p.After, parts)))
}

func shown(found Listed[*entry]) Listed[Subscription] {
	out := Listed[Subscription]{Count: found.Count, More: found.More, Next: found.Next}
	for _, e := range found.Items {
		out.Items = append(out.Items, e.Subscription)
	}
	return out
}

// parts are what the keys of all subscriptions begin with that q may want, in
// order; nil = anything. The caller holds mu.
func (r *Registry) parts(q *SubscriptionQuery) []string {
	var filters []string
	switch {
	case q.Filter != "":
		filters = []string{q.Filter}
	case q.Matches != "":
		filters = matching(&r.routes, q.Matches)
	case q.Group != "":
		return []string{sharePrefix + q.Group + "/"}
	default:
		return nil
	}
	parts := []string{}
	for _, f := range filters {
		to, _ := r.routes.Get(f)
		for _, w := range to.written(f) {
			parts = append(parts, keyOf(w, ""))
		}
	}
	slices.Sort(parts)
	return parts
}

// beginning yields what is behind a key and begins with one of the parts.
func beginning[V any](m *btree.Map[string, V], after string, parts []string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, part := range parts {
			more := true
			m.Ascend(max(part, after), func(key string, v V) bool {
				if !strings.HasPrefix(key, part) {
					return false
				}
				more = key == after || yield(key, v)
				return more
			})
			if !more {
				return
			}
		}
	}
}

// subscriptionsOf asks the session itself.
func (r *Registry) subscriptionsOf(q *SubscriptionQuery, p Page) Listed[Subscription] {
	l := listing[Subscription]{p: p, exact: q.Exact(), wants: func(s Subscription) bool { return q.wants(&s) }}
	return l.of(func(yield func(string, Subscription) bool) {
		c, ok := r.Get(q.ClientID)
		if !ok {
			return
		}
		for _, s := range c.Subscriptions() {
			if key := s.Key(); key > p.After && !yield(key, s) {
				return
			}
		}
	})
}

// Topics returns a page of the filters that have subscribers, in their order.
func (r *Registry) Topics(p Page) Listed[string] {
	r.mu.Lock()
	all := r.routes.Copy()
	r.mu.Unlock()
	out := Listed[string]{Count: all.Len()}
	first, _, ok := all.GetAt(p.Skip)
	if !ok {
		return out
	}
	all.Ascend(first, func(filter string, _ route) bool {
		if out.More = len(out.Items) == p.Limit; out.More {
			return false
		}
		out.Items = append(out.Items, filter)
		return true
	})
	return out
}

// Subscribers is how many subscriptions a filter has.
func (r *Registry) Subscribers(filter string) int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	to, _ := r.routes.Get(filter)
	return to.len()
}
