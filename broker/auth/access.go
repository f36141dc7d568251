package auth

import (
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
)

const maxRemembered = 8_192 // verified tokens; beyond it an arbitrary one goes

// rememberedToken is a token that proved right under one policy.
type rememberedToken struct {
	policy    *policy
	audience  []string
	principal *Principal
}

// remembered saves the price of a signature for tokens that come again.
type remembered struct {
	mu     sync.Mutex
	byHash map[[sha256.Size]byte]rememberedToken
}

func newRemembered() *remembered {
	return &remembered{byHash: make(map[[sha256.Size]byte]rememberedToken)}
}

func (r *remembered) find(hash [sha256.Size]byte, now *policy) (rememberedToken, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, ok := r.byHash[hash]
	if ok && t.policy != now {
		delete(r.byHash, hash)
		ok = false
	}
	return t, ok
}

func (r *remembered) keep(hash [sha256.Size]byte, t rememberedToken) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, there := r.byHash[hash]; !there && len(r.byHash) >= maxRemembered {
		for other := range r.byHash { // in random order
			delete(r.byHash, other)
			break
		}
	}
	r.byHash[hash] = t
}

// Access returns the principal of an access token that audience may take: the
// user of its login, with the rights the user has now. It answers from memory.
// The error is ErrUnauthenticated, also as ErrExpired.
func (a *Auth) Access(ctx context.Context, audience, token string) (*Principal, error) {
	p, subject, err := a.access(audience, token)
	if err != nil {
		a.noteRefusal(ctx, "user:", subject, err)
		return nil, asUnauthenticated(err)
	}
	return p, nil
}

func (a *Auth) access(audience, token string) (p *Principal, subject account, err error) {
	if len(token) > maxTokenBytes {
		return nil, account{}, errWrongToken
	}
	policy, now := a.policy.Load(), a.now()
	hash := sha256.Sum256([]byte(token))
	if t, ok := a.verified.find(hash, policy); ok && now.Before(t.principal.session.until) && slices.Contains(t.audience, audience) {
		return t.principal, account{}, nil
	}
	c, err := a.verify(accessType, audience, token, now)
	if err != nil {
		return nil, account{}, err
	}
	f := a.findFamily(c.Session)
	u := a.stands(f)
	if u == nil || c.Subject != u.name || c.Version != u.record.Tokens {
		return nil, a.subject(c), errTokenRevoked
	}
	p = u.principal("")
	p.session = &session{family: f, until: c.ExpiresAt.Add(tokenSkew)}
	a.verified.keep(hash, rememberedToken{policy: policy, audience: c.Audience, principal: p})
	return p, account{}, nil
}

// subject names whose token this is, also after its login has ended. The door
// of an account is the first that its tokens are for.
func (a *Auth) subject(c *claims) account {
	if n := (account{c.Audience[0], c.Subject}); a.findUser(n) != nil {
		return n
	}
	return ofBroker(c.Subject)
}

// BearerOrAccess takes what follows Bearer in a request: an API key
// <id>.<secret>, or an access token that audience may take. No key id is as
// long as the first part of a token, so nothing is both.
func (a *Auth) BearerOrAccess(ctx context.Context, audience, text string) (*Principal, error) {
	if id, _, _ := strings.Cut(text, "."); strings.Count(text, ".") == 2 && len(id) > maxKeyIDBytes {
		return a.Access(ctx, audience, text)
	}
	return a.Bearer(ctx, text)
}
