package auth

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"math/bits"
	"testing"
)

// Cheap makes password hashes cost next to nothing.
func Cheap(o *Options) { o.cost = cost{memory: 8, time: 1, threads: 1} }

// HoldHashing takes all runs of the hasher until release is called.
func HoldHashing(t testing.TB, a *Auth) (release func()) {
	t.Helper()
	var free []func()
	for range hashRuns {
		f, err := a.hasher.slot(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		free = append(free, f)
	}
	return func() {
		for _, f := range free {
			f()
		}
	}
}

// BrakeCounters tells how many pairs and addresses are counted.
func BrakeCounters(a *Auth) (pairs, addrs int) {
	a.brake.mu.Lock()
	defer a.brake.mu.Unlock()
	return len(a.brake.pairs), len(a.brake.addrs)
}

const (
	HashWaiting = hashWaiting
	MaxCounters = maxCounters
)

// CountFailure counts a wrong password without hashing one.
func CountFailure(a *Auth, name, addr string) { a.brake.failed(name, address(addr), a.now()) }

// ReadPattern says whether s is a filter for rules and scopes, and what it is
// of.
func ReadPattern(s string) (kind ResourceKind, text, reason string) {
	pt, reason := parsePattern(s)
	return pt.kind, pt.text, reason
}

var (
	Match     = match
	Covers    = covers
	Overlaps  = overlaps
	Intersect = intersect
	Glob      = glob
	Address   = address
	ReadPHC   = func(s string) error { _, err := parsePHC(s); return err }
)

// Cost makes password hashes take that much memory, in KiB.
func Cost(memory uint32) func(*Options) {
	return func(o *Options) { o.cost = cost{memory: memory, time: 1, threads: 1} }
}

// Forge signs any header and payload with the present signing key. A nil kid is
// that of the key.
func Forge(t testing.TB, a *Auth, header map[string]any, payload string) string {
	t.Helper()
	s := a.signers.Load().present()
	if kid, ok := header["kid"]; ok && kid == nil {
		header["kid"] = s.id
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	body := b64(text) + "." + b64([]byte(payload))
	return body + "." + b64(ed25519.Sign(s.private, []byte(body)))
}

// PublicKey is that of the present signing key, and its id.
func PublicKey(a *Auth) (kid string, public ed25519.PublicKey) {
	s := a.signers.Load().present()
	return s.id, s.public
}

// Remembered tells how many verified tokens are remembered.
func Remembered(a *Auth) int {
	a.verified.mu.Lock()
	defer a.verified.mu.Unlock()
	return len(a.verified.byHash)
}

// Forget empties the memory of verified tokens.
func Forget(a *Auth) {
	a.verified.mu.Lock()
	defer a.verified.mu.Unlock()
	clear(a.verified.byHash)
}

// Remember fills the memory of verified tokens.
func Remember(a *Auth, n int) {
	for i := range n {
		a.verified.keep([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}, rememberedToken{})
	}
}

const (
	MaxRemembered = maxRemembered
	MaxSamples    = maxSamples
	MaxCandidates = maxCandidates
)

var PlainText = plainText

// Unsynced reports whether something waits to be synced.
func Unsynced(f *AuditFile) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.timer != nil
}

// LineHash is what the line after this one in an audit log holds.
var LineHash = lineHash

// MaxMeters bounds Meters, which tells how many identities are counted.
const MaxMeters = maxMeters

func Meters(a *Auth) int { return len(a.meters.Load().byID) }

// SetMaxSheets changes how much room sheets have.
func (a *Auth) SetMaxSheets(bytes int64) { a.maxSheets = bytes }

// SheetsFilled is how many decisions about readers are on the sheets of the present term.
func (a *Auth) SheetsFilled() int { return a.kept(func(s *sheet) *verdicts { return &s.readers }) }

// PublishersKept is the same of publishers.
func (a *Auth) PublishersKept() int {
	return a.kept(func(s *sheet) *verdicts { return &s.writers })
}

func (a *Auth) kept(of func(*sheet) *verdicts) (n int) {
	const known = 0x5555555555555555
	table := *a.policy.Load().term.Load().table.Load()
	for i := range table {
		s := table[i].Load()
		if s == nil {
			continue
		}
		for w, words := 0, of(s).all(); w < len(words); w++ {
			n += bits.OnesCount64(words[w].Load() & known)
		}
	}
	return n
}
