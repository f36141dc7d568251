package clients

import (
	"errors"
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
	mu           sync.RWMutex
	clients      byID
	away         byID // of these, those that are not connected
	users, hosts index
	subs         btree.Map[subKey, *entry]
	routes       btree.Map[string, route] // by filter, without $share/GROUP/
	shared       int
	peak         Counts
}

// byID is clients in order of their id.
type byID = btree.Map[string, *Client]

// index is clients by something that several have in common.
type index map[string]*byID

func (x *index) set(key string, c *Client) {
	m := (*x)[key]
	if m == nil {
		if *x == nil {
			*x = index{}
		}
		m = &byID{}
		(*x)[key] = m
	}
	m.Set(c.Facts.ID, c)
}

func (x *index) unset(key, id string) {
	if m := (*x)[key]; m != nil {
		if m.Delete(id); m.Len() == 0 {
			delete(*x, key)
		}
	}
}

// set puts c in the place of whoever has its id. The caller holds mu.
func (r *Registry) set(c *Client) {
	f := c.Facts
	if old, had := r.clients.Set(f.ID, c); had {
		r.unlist(old)
	}
	r.users.set(f.Username, c)
	r.hosts.set(f.Host, c)
	if !f.Connected {
		r.away.Set(f.ID, c)
	}
}

// unlist takes c out of all but clients. The caller holds mu.
func (r *Registry) unlist(c *Client) {
	f := c.Facts
	r.users.unset(f.Username, f.ID)
	r.hosts.unset(f.Host, f.ID)
	r.away.Delete(f.ID)
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
	r.set(&Client{s, f})
	r.note()
}

// Add adds a client whose id is not in the index, and reports whether it did.
func (r *Registry) Add(s Session, f *Facts) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.clients.Get(f.ID); ok {
		return false
	}
	r.set(&Client{s, f})
	r.note()
	return true
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
	r.unlist(c)
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
	r.set(&Client{s, f})
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
		Sessions: r.clients.Len(), Connected: r.clients.Len() - r.away.Len(),
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
