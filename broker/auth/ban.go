package auth

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// ErrBanned refuses a client that is banned, whatever its credentials.
var ErrBanned = errors.New("banned")

// BanKind says what a ban looks at.
type BanKind string

// The kinds. Expressions are Go's (RE2), and match a part unless they are
// anchored.
const (
	BanClientID      BanKind = "clientid"
	BanUsername      BanKind = "username"
	BanHost          BanKind = "peerhost"
	BanClientIDMatch BanKind = "clientid_re"
	BanUsernameMatch BanKind = "username_re"
	BanNetwork       BanKind = "peerhost_net" // as 10.1.0.0/16
)

// BanKinds lists them.
var BanKinds = []BanKind{BanClientID, BanUsername, BanHost, BanClientIDMatch, BanUsernameMatch, BanNetwork}

// Limits of bans. Each CONNECT is compared with every expression and network.
const (
	maxBans        = 100_000
	maxBanPatterns = 1_000
	maxBanBytes    = 1_024
)

// Ban keeps clients out of MQTT, and ends the connections of those that are in.
type Ban struct {
	Kind   BanKind   `json:"-"`
	Who    string    `json:"-"`
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
	Until  time.Time `json:"until,omitzero"` // zero = for good
}

func (b *Ban) over(now time.Time) bool { return !b.Until.IsZero() && !b.Until.After(now) }

func (b *Ban) storeKey() string { return banPrefix + string(b.Kind) + "/" + b.Who }

// banKey names a ban.
type banKey struct {
	kind BanKind
	who  string
}

// bans are those in force and those that are over and not yet swept away.
type bans struct {
	some atomic.Bool // false: there are none, which most questions are about

	mu    sync.RWMutex
	all   map[banKey]*Ban
	regex map[banKey]*regexp.Regexp
	nets  map[banKey]netip.Prefix
	// next is not after the end of any ban; zero = none ends.
	next time.Time
}

func newBans() *bans {
	return &bans{all: map[banKey]*Ban{}, regex: map[banKey]*regexp.Regexp{}, nets: map[banKey]netip.Prefix{}}
}

// check brings who into its one form, and reports what cannot be.
func (b *Ban) check() error {
	bad := func(field, reason string) error { return &InvalidError{Field: field, Reason: reason} }
	switch {
	case !slices.Contains(BanKinds, b.Kind):
		return bad("as", "must be clientid, username, peerhost, clientid_re, username_re or peerhost_net")
	case b.Who == "" || len(b.Who) > maxBanBytes || !utf8.ValidString(b.Who) || strings.ContainsRune(b.Who, 0):
		return bad("who", fmt.Sprintf("must have 1 to %d bytes of UTF-8", maxBanBytes))
	case len(b.By) > maxNameBytes || len(b.Reason) > maxBanBytes:
		return bad("reason", fmt.Sprintf("may have %d bytes, and by %d", maxBanBytes, maxNameBytes))
	case !b.Until.IsZero() && b.Until.Before(b.At):
		return bad("until", "is before the ban begins")
	}
	switch b.Kind {
	case BanClientIDMatch, BanUsernameMatch:
		if _, err := regexp.Compile(b.Who); err != nil {
			return bad("who", "is not a regular expression")
		}
	case BanHost:
		addr, err := netip.ParseAddr(b.Who)
		if err != nil {
			return bad("who", "must be an IP address, as in 192.0.2.7")
		}
		b.Who = addr.Unmap().String()
	case BanNetwork:
		network, err := netip.ParsePrefix(b.Who)
		if err != nil {
			return bad("who", "must be a network, as in 192.0.2.0/24")
		}
		b.Who = network.Masked().String()
	default: // names are taken as they are
	}
	return nil
}

// add puts a ban in force that was checked.
func (s *bans) add(b *Ban) {
	k := banKey{b.Kind, b.Who}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[k] = b
	if !b.Until.IsZero() && (s.next.IsZero() || b.Until.Before(s.next)) {
		s.next = b.Until
	}
	switch b.Kind {
	case BanClientIDMatch, BanUsernameMatch:
		s.regex[k] = regexp.MustCompile(b.Who)
	case BanNetwork:
		s.nets[k] = netip.MustParsePrefix(b.Who)
	default: // found by name
	}
	s.some.Store(true)
}

func (s *bans) remove(k banKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, k)
	delete(s.regex, k)
	delete(s.nets, k)
	s.some.Store(len(s.all) > 0)
}

func (s *bans) get(k banKey) *Ban {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.all[k]
}

// list returns the bans by kind and name.
func (s *bans) list() []Ban {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]Ban, 0, len(s.all))
	for _, b := range s.all {
		list = append(list, *b)
	}
	slices.SortFunc(list, func(x, y Ban) int { return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Who, y.Who)) })
	return list
}

// find returns a ban of the client that is in force.
func (s *bans) find(clientID, username, host string, now time.Time) *Ban {
	s.mu.RLock()
	defer s.mu.RUnlock()
	hit := func(k banKey) *Ban {
		if b := s.all[k]; b != nil && !b.over(now) {
			return b
		}
		return nil
	}
	addr, err := netip.ParseAddr(host)
	if addr = addr.Unmap(); err == nil {
		host = addr.String()
	}
	for _, k := range []banKey{{BanClientID, clientID}, {BanUsername, username}, {BanHost, host}} {
		if b := hit(k); b != nil && k.who != "" {
			return b
		}
	}
	for k, network := range s.nets {
		if b := hit(k); b != nil && err == nil && network.Contains(addr) {
			return b
		}
	}
	for k, re := range s.regex {
		name := clientID
		if k.kind == BanUsernameMatch {
			name = username
		}
		if b := hit(k); b != nil && name != "" && re.MatchString(name) {
			return b
		}
	}
	return nil
}

// hostOf is an address without its port, if it has one.
func hostOf(remote string) string {
	if host, _, err := net.SplitHostPort(remote); err == nil {
		return host
	}
	return remote
}

// Banned returns the ban, if there is one, that keeps out a client of this id,
// user name ("" for none) and address without port.
func (a *Auth) Banned(clientID, username, host string) (Ban, bool) {
	if !a.bans.some.Load() {
		return Ban{}, false
	}
	if b := a.bans.find(clientID, username, host, a.now()); b != nil {
		return *b, true
	}
	return Ban{}, false
}

// barred is Banned for a login, which it counts as refused.
func (a *Auth) barred(clientID, username, remoteAddr string) bool {
	_, banned := a.Banned(clientID, username, hostOf(remoteAddr))
	if banned {
		a.refusals.add(ErrBanned.Error())
	}
	return banned
}

// Bans lists the bans in force by kind and name.
func (a *Auth) Bans() []Ban {
	now := a.now()
	return slices.DeleteFunc(a.bans.list(), func(b Ban) bool { return b.over(now) })
}

// AddBan puts a ban in force. When it returns nil the ban is on disk, and
// Generation has grown. At is now where it is zero. The errors are ErrExists,
// InvalidError and LimitError.
func (a *Auth) AddBan(ctx context.Context, b Ban) (Ban, error) {
	if b.At.IsZero() {
		b.At = a.now()
	}
	b.At, b.Until = b.At.UTC().Truncate(time.Second), b.Until.UTC().Truncate(time.Second)
	if err := b.check(); err != nil {
		return Ban{}, err
	}
	err := a.inTurn(ctx, func() error { return a.storeBan(ctx, &b) })
	return b, err
}

// storeBan stores a ban that was checked. The caller has the turn.
func (a *Auth) storeBan(ctx context.Context, b *Ban) error {
	if err := a.sweepBans(ctx); err != nil {
		return err
	}
	at := a.revision(b.storeKey())
	if a.bans.get(banKey{b.Kind, b.Who}) != nil {
		return ErrExists
	}
	if err := a.bans.room(); err != nil {
		return err
	}
	target := string(b.Kind) + ":" + b.Who
	if err := a.put(ctx, b.storeKey(), b, at); err != nil {
		return a.failed(ctx, ClientBanned, target, err)
	}
	a.log.Info().Str("kind", string(b.Kind)).Msg("clients banned")
	a.Audit(ctx, Event{What: ClientBanned, Target: target, Reason: b.Reason})
	return nil
}

// room refuses more bans than there may be.
func (s *bans) room() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case len(s.all) >= maxBans:
		return &LimitError{What: "bans", Max: maxBans}
	case len(s.regex)+len(s.nets) >= maxBanPatterns:
		return &LimitError{What: "bans by expression or network", Max: maxBanPatterns}
	}
	return nil
}

// RemoveBan lifts a ban. The error is ErrNotFound where there is none.
func (a *Auth) RemoveBan(ctx context.Context, kind BanKind, who string) error {
	b := Ban{Kind: kind, Who: who}
	if err := b.check(); err != nil {
		return ErrNotFound
	}
	return a.inTurn(ctx, func() error {
		old := a.bans.get(banKey{b.Kind, b.Who})
		if old == nil {
			return ErrNotFound
		}
		if err := a.liftBan(ctx, old); err != nil {
			return err
		}
		if old.over(a.now()) {
			return ErrNotFound
		}
		return nil
	})
}

// RemoveBans lifts all bans.
func (a *Auth) RemoveBans(ctx context.Context) error {
	return a.inTurn(ctx, func() error {
		for _, b := range a.bans.list() {
			if err := a.liftBan(ctx, &b); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *Auth) liftBan(ctx context.Context, b *Ban) error {
	target := string(b.Kind) + ":" + b.Who
	if err := a.remove(ctx, b.storeKey()); err != nil {
		return a.failed(ctx, BanLifted, target, err)
	}
	a.Audit(ctx, Event{What: BanLifted, Target: target})
	return nil
}

// sweepBans forgets the bans that are over. The caller has the turn.
func (a *Auth) sweepBans(ctx context.Context) error {
	for _, b := range a.bans.ended(a.now()) {
		if err := a.remove(ctx, b.storeKey()); err != nil {
			return err
		}
	}
	return nil
}

// ended lists the bans that are over, and looks for them only if there may be some.
func (s *bans) ended(now time.Time) (over []*Ban) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next.IsZero() || s.next.After(now) {
		return nil
	}
	s.next = time.Time{}
	for _, b := range s.all {
		switch {
		case b.over(now):
			over = append(over, b)
		case !b.Until.IsZero() && (s.next.IsZero() || b.Until.Before(s.next)):
			s.next = b.Until
		}
	}
	return over
}

// loadBan reads a stored ban, whose key says whom it is about.
func loadBan(rest string, value []byte) (*Ban, error) {
	kind, who, _ := strings.Cut(rest, "/")
	b := &Ban{Kind: BanKind(kind), Who: who}
	if err := json.Unmarshal(value, b); err != nil {
		return nil, err
	}
	return b, b.check()
}
