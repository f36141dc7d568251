package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	rotateEvery = 90 * 24 * time.Hour
	maxSigners  = 8 // with those that only old refresh tokens need
)

// signer is a key of tokens, and the algorithm it is for.
type signer struct {
	id      string
	method  *jwt.SigningMethodEd25519
	public  ed25519.PublicKey
	private ed25519.PrivateKey // nil once another key signs
	heads   map[string]string  // the first part of its tokens, by type
	record  signerRecord
}

// signerRecord is a signer on disk. Its private half is thrown away when
// another key signs.
type signerRecord struct {
	ID      string        `json:"id"`
	Seed    []byte        `json:"seed,omitempty"`
	Public  []byte        `json:"public"`
	Made    time.Time     `json:"made"`
	Longest time.Duration `json:"longest"`          // life of an access token it signed
	Access  time.Time     `json:"access,omitzero"`  // verifies access tokens until
	Refresh time.Time     `json:"refresh,omitzero"` // verifies refresh tokens until
}

// ring holds the signers, the present one first. It is never changed.
type ring struct{ signers []*signer }

func (r *ring) present() *signer {
	if len(r.signers) == 0 {
		return nil
	}
	return r.signers[0]
}

// find returns the signer whose tokens of that type begin with head, if it may
// verify them now. The head must be, byte for byte, the one that is written
// here: so the algorithm is that of the key, whatever a token says, and jku,
// x5u, jwk and crit are never even read.
func (r *ring) find(head, typ string, now time.Time) *signer {
	for i, s := range r.signers {
		if s.heads[typ] != head {
			continue
		}
		until := s.record.Access
		if typ == refreshType {
			until = s.record.Refresh
		}
		if i == 0 || now.Before(until) {
			return s
		}
	}
	return nil
}

func newSigner(now time.Time) *signer {
	public, private, _ := ed25519.GenerateKey(rand.Reader) // cannot fail
	r := signerRecord{ID: randomText(12), Seed: private.Seed(), Public: public, Made: now.UTC()}
	s := signerOf(r)
	s.private = private
	return s
}

// signerOf is a signer that only verifies.
func signerOf(r signerRecord) *signer {
	s := &signer{id: r.ID, method: jwt.SigningMethodEdDSA, public: r.Public, record: r, heads: make(map[string]string)}
	for _, typ := range []string{accessType, refreshType} {
		text, _ := json.Marshal(s.header(typ)) // strings only, cannot fail
		s.heads[typ] = base64.RawURLEncoding.EncodeToString(text)
	}
	return s
}

func (s *signer) header(typ string) map[string]any {
	return map[string]any{"alg": s.method.Alg(), "typ": typ, "kid": s.id}
}

// readRing reads what is stored.
func readRing(value []byte) (*ring, error) {
	var records []signerRecord
	if err := json.Unmarshal(value, &records); err != nil {
		return nil, err
	}
	r := &ring{}
	for i, rec := range records {
		if rec.ID == "" || len(rec.Public) != ed25519.PublicKeySize || (len(rec.Seed) == ed25519.SeedSize) != (i == 0) {
			return nil, errors.New("not a signing key")
		}
		s := signerOf(rec)
		if i == 0 {
			s.private = ed25519.NewKeyFromSeed(rec.Seed)
			if !s.public.Equal(s.private.Public()) {
				return nil, errors.New("not a pair of keys")
			}
		}
		r.signers = append(r.signers, s)
	}
	return r, nil
}

// SigningKey is what may be shown of a key of tokens.
type SigningKey struct {
	ID       string
	Made     time.Time
	Verifies time.Time // access tokens until then; zero for the key that signs
}

// SigningKeys lists the keys that access tokens are verified with, the one that
// signs first. There is none before the first login.
func (a *Auth) SigningKeys() []SigningKey {
	var keys []SigningKey
	for i, s := range a.signers.Load().signers {
		if i == 0 || a.now().Before(s.record.Access) {
			keys = append(keys, SigningKey{ID: s.id, Made: s.record.Made, Verifies: s.record.Access})
		}
	}
	return keys
}

// RotateSigningKey makes a new key for tokens. Access tokens of the key before
// are good until the longest-lived of them ends, those of the key before that
// end now: rotate twice to end all. Refresh tokens go on, because what they
// prove is in the store and no signing key can make it.
func (a *Auth) RotateSigningKey(ctx context.Context) error {
	return a.inTurn(ctx, func() error { return a.rotate(ctx, a.revision(signersKey)) })
}

// rotate does it for who has the turn, and decided on it at a revision: a key that
// another node has made since is not rotated away.
func (a *Auth) rotate(ctx context.Context, at uint64) error {
	now := a.now()
	next := &ring{signers: []*signer{newSigner(now)}}
	for i, s := range a.signers.Load().signers {
		r := s.record
		r.Seed = nil
		if i == 0 {
			r.Access = now.Add(r.Longest + tokenSkew).UTC()
			r.Refresh = now.Add(maxRefreshLife + tokenSkew).UTC()
		} else {
			r.Access = time.Time{}
		}
		if len(next.signers) < maxSigners && now.Before(r.Refresh) {
			next.signers = append(next.signers, signerOf(r))
		}
	}
	if err := a.putRing(ctx, next, at); err != nil {
		return a.failed(ctx, SignerRotated, "", err)
	}
	a.log.Info().Msg("signing key of tokens made")
	a.Audit(ctx, Event{What: SignerRotated})
	return nil
}

// signerFor returns the key for an access token of that life: made at first
// use, and anew when it is old. The caller has the turn.
func (a *Auth) signerFor(ctx context.Context, life time.Duration) (*signer, error) {
	at := a.revision(signersKey)
	s := a.signers.Load().present()
	if s == nil || a.now().Sub(s.record.Made) >= rotateEvery {
		if err := a.rotate(ctx, at); err != nil {
			return nil, err
		}
		return a.signerFor(ctx, life)
	}
	if life <= s.record.Longest {
		return s, nil
	}
	longer := *s // told before it is used, so that a rotation knows how long to wait
	longer.record.Longest = life
	next := &ring{signers: append([]*signer{&longer}, a.signers.Load().signers[1:]...)}
	if err := a.putRing(ctx, next, at); err != nil {
		return nil, err
	}
	return &longer, nil
}

func (a *Auth) putRing(ctx context.Context, r *ring, at uint64) error {
	records := make([]signerRecord, len(r.signers))
	for i, s := range r.signers {
		records[i] = s.record
	}
	return a.put(ctx, signersKey, records, at)
}

// sign makes a token.
func (s *signer) sign(typ string, c *claims) (string, error) {
	t := jwt.NewWithClaims(s.method, c)
	t.Header = s.header(typ)
	text, err := t.SignedString(s.private)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return text, nil
}
