package clients

import (
	"strings"

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

// Shared splits "$share/GROUP/FILTER"; group is "" for any other filter.
func (s *Subscription) Shared() (group, filter string) {
	rest, ok := strings.CutPrefix(s.Filter, "$share/")
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
	n, _ := r.routes.Get(filter)
	r.routes.Set(filter, n+1)
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
	if n, _ := r.routes.Get(topic); n > 1 {
		r.routes.Set(topic, n-1)
	} else {
		r.routes.Delete(topic)
	}
	if group != "" {
		r.shared--
	}
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
// filter and client id, and whether there are more. count is as in List.
func (r *Registry) Subscriptions(q *SubscriptionQuery, p Page) (page []Subscription, count int, more bool) {
	if q.ClientID != "" {
		return r.subscriptionsOf(q, p)
	}
	r.mu.Lock() // Copy marks the nodes as shared
	all := r.subs.Copy()
	r.mu.Unlock()
	count = -1
	first := p.After
	if q.all() && p.After == "" {
		count = all.Len()
		if p.Skip > 0 {
			var ok bool
			if first, _, ok = all.GetAt(p.Skip); !ok {
				return nil, count, false
			}
			p.Skip = 0
		}
	}
	counting := p.After == "" && q.Exact() && !q.all()
	matched := 0
	all.Ascend(first, func(key subKey, e *entry) bool {
		if key == p.After && p.After != "" || !q.wants(&e.Subscription) {
			return true
		}
		matched++
		switch {
		case matched <= p.Skip:
		case len(page) < p.Limit:
			page = append(page, e.Subscription)
		default:
			more = true
			return counting
		}
		return true
	})
	if counting {
		count = matched
	}
	return page, count, more
}

// subscriptionsOf asks the session itself.
func (r *Registry) subscriptionsOf(q *SubscriptionQuery, p Page) (page []Subscription, count int, more bool) {
	c, ok := r.Get(q.ClientID)
	if !ok {
		return nil, 0, false
	}
	for _, s := range c.Subscriptions() {
		if s.Key() <= p.After || !q.wants(&s) {
			continue
		}
		if count++; count > p.Skip && len(page) < p.Limit {
			page = append(page, s)
		}
	}
	more = count > p.Skip+len(page)
	if !q.Exact() || p.After != "" {
		count = -1
	}
	return page, count, more
}

// Topics returns a page of the filters that have subscribers, in their order,
// with the number of subscriptions of each.
func (r *Registry) Topics(p Page) (page []string, count int, more bool) {
	r.mu.Lock()
	all := r.routes.Copy()
	r.mu.Unlock()
	first, _, ok := all.GetAt(p.Skip)
	if !ok {
		return nil, all.Len(), false
	}
	all.Ascend(first, func(filter string, _ int) bool {
		if more = len(page) == p.Limit; more {
			return false
		}
		page = append(page, filter)
		return true
	})
	return page, all.Len(), more
}

// Subscribers is how many subscriptions a filter has.
func (r *Registry) Subscribers(filter string) int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n, _ := r.routes.Get(filter)
	return n
}
