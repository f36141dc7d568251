package clients

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/btree"

	"millrace/broker"
)

// ErrOffline is the answer of a session whose client is not connected to a
// request that only a connection can serve.
var ErrOffline = errors.New("the client is not connected")

// Session is what the edge lets others do with a client. Calls may come from
// any goroutine, also after the session ended: then they do nothing, and
// numbers are 0.
type Session interface {
	// Numbers are those of now.
	Numbers() Numbers
	// Subscriptions lists its subscriptions in order of Key.
	Subscriptions() []Subscription
	// Kick ends the connection, in MQTT 5 with reason 0x98, and the session. done
	// is closed when both have ended.
	Kick() (done <-chan struct{})
	// Subscribe acts as if the client had subscribed, and reports what it would
	// have been refused for.
	Subscribe(s Subscription) error
	// Unsubscribe acts as if the client had unsubscribed, and reports whether
	// there was such a subscription.
	Unsubscribe(filter string) bool
	// SetKeepAlive changes what was agreed at CONNECT; 0 switches it off.
	// ErrOffline without a connection.
	SetKeepAlive(seconds uint16) error
	// Waiting lists up to limit of the messages that wait for their turn, behind
	// the position after; 0 begins.
	Waiting(after uint64, limit int) []Held
	// Inflight lists likewise what was sent and is not acknowledged, in order of sending.
	Inflight(after uint64, limit int) []Held
}

// Held is a message that a session holds for its client.
type Held struct {
	Message  *broker.Message
	QoS      byte // it will be delivered, or was, with
	Position uint64
}

// Facts are what stays the same about a client until it connects anew or
// leaves. They must not be changed once they are given to Put.
type Facts struct {
	ID         string
	Username   string // "" = none was given
	Principal  string // as user:dev; for the log and the audit
	Listener   string // TYPE:NAME
	Host       string // of the peer
	Port       int
	Version    byte // 3, 4 or 5
	CleanStart bool
	KeepAlive  uint16 // seconds
	Expiry     uint32 // of the session, seconds
	Connected  bool

	CreatedAt, ConnectedAt, DisconnectedAt time.Time
}

// Numbers of a session at one moment.
type Numbers struct {
	Subscriptions, MaxSubscriptions int
	Inflight, MaxInflight           int
	Waiting, MaxWaiting             int
	AwaitingRel, MaxAwaitingRel     int
	Received, Sent                  Traffic
	KeepAlive                       uint16 // of now, seconds
}

// Traffic counts one direction of a connection.
type Traffic struct {
	Packets, Bytes int64
	Messages       [3]int64 // PUBLISH, by QoS
	Dropped        int64    // messages that did not go on
	Full, Expired  int64    // of these: for a full backlog; for their expiry
	TooLarge       int64    // and: over the client's maximum packet size
}

// Client is one entry of the index. Its Facts are those of the moment it was read.
type Client struct {
	Session
	Facts *Facts
}

// Registry is the index. The zero value is empty and ready.
type Registry struct {
	mu        sync.RWMutex
	clients   btree.Map[string, *Client]
	subs      btree.Map[subKey, *entry]
	routes    btree.Map[string, int] // subscriptions by filter, without $share/GROUP/
	connected int
	shared    int
	peak      Counts
}

// Counts are how many there are, or were at most since the start.
type Counts struct {
	Sessions, Connected                int
	Subscriptions, SharedSubscriptions int
	Topics                             int // filters that have subscribers
}

// Put adds a client, or the new facts about one. A session that had the same
// client id before is not in the index any more.
func (r *Registry) Put(s Session, f *Facts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, had := r.clients.Set(f.ID, &Client{s, f})
	if had && old.Facts.Connected {
		r.connected--
	}
	if f.Connected {
		r.connected++
	}
	r.note()
}

// Remove takes a client out, unless another session has its id by now.
func (r *Registry) Remove(s Session, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.clients.Get(id)
	if !ok || c.Session != s {
		return
	}
	r.clients.Delete(id)
	if c.Facts.Connected {
		r.connected--
	}
}

// Replace puts another session, with its facts, in the place of old, and makes
// it the owner of the subscriptions of old that it has too. It does nothing when
// old is not in the index any more.
func (r *Registry) Replace(old, s Session, f *Facts, subs []Subscription) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.clients.Get(f.ID)
	if !ok || c.Session != old {
		return
	}
	r.clients.Set(f.ID, &Client{s, f})
	if c.Facts.Connected {
		r.connected--
	}
	if f.Connected {
		r.connected++
	}
	for _, sub := range subs {
		r.subscribe(s, sub)
	}
}

// note raises the peaks. The caller holds mu.
func (r *Registry) note() {
	now := r.count()
	r.peak.Sessions = max(r.peak.Sessions, now.Sessions)
	r.peak.Connected = max(r.peak.Connected, now.Connected)
	r.peak.Subscriptions = max(r.peak.Subscriptions, now.Subscriptions)
	r.peak.SharedSubscriptions = max(r.peak.SharedSubscriptions, now.SharedSubscriptions)
	r.peak.Topics = max(r.peak.Topics, now.Topics)
}

func (r *Registry) count() Counts {
	return Counts{
		Sessions: r.clients.Len(), Connected: r.connected,
		Subscriptions: r.subs.Len(), SharedSubscriptions: r.shared, Topics: r.routes.Len(),
	}
}

// Counts returns how many there are now, and how many there were at most.
func (r *Registry) Counts() (now, peak Counts) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.count(), r.peak
}

// Get finds one client.
func (r *Registry) Get(id string) (*Client, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.clients.Get(id)
}

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

// Exact reports whether the answer to q can be counted by looking each client
// up; with a part of a name every name is searched.
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
}

// List returns a page of the clients that q wants, in order of client id, and
// whether there are more. count is how many there are in all; -1 where q is not
// exact, or the page is one behind a key.
func (r *Registry) List(q *Query, p Page) (page []*Client, count int, more bool) {
	if len(q.IDs) > 0 && p.After == "" {
		return r.listIDs(q, p)
	}
	r.mu.Lock() // Copy marks the nodes as shared
	all := r.clients.Copy()
	r.mu.Unlock()
	count = -1
	first := p.After
	if q.all() {
		if p.After == "" {
			count = all.Len()
		}
		if p.Skip > 0 && p.After == "" {
			var ok bool
			if first, _, ok = all.GetAt(p.Skip); !ok {
				return nil, count, false
			}
			p.Skip = 0
		}
	}
	counting := p.After == "" && q.Exact() && !q.all()
	matched := 0
	all.Ascend(first, func(id string, c *Client) bool {
		if id == p.After && p.After != "" || !q.Wants(c.Facts) {
			return true
		}
		matched++
		switch {
		case matched <= p.Skip:
		case len(page) < p.Limit:
			page = append(page, c)
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

// listIDs looks the clients up that q names.
func (r *Registry) listIDs(q *Query, p Page) (page []*Client, count int, more bool) {
	ids := slices.Compact(slices.Sorted(slices.Values(q.IDs)))
	for _, id := range ids {
		c, ok := r.Get(id)
		if !ok || !q.Wants(c.Facts) {
			continue
		}
		if count++; count > p.Skip && len(page) < p.Limit {
			page = append(page, c)
		}
	}
	more = count > p.Skip+len(page)
	if !q.Exact() {
		count = -1
	}
	return page, count, more
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
