package auth

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

const (
	accessType    = "at+jwt"
	refreshType   = "rt+jwt"
	tokenSkew     = time.Minute // clocks may differ
	maxTokenBytes = 4 << 10
)

// claims are what a token says.
type claims struct {
	jwt.RegisteredClaims
	Session string `json:"sid"` // the token family
	Version string `json:"ver"` // of the user's tokens
}

// verify reads a token of one type and returns what it says. Nothing but the
// key table is looked up by what is not proved yet. The errors are errWrongToken
// and, where only its time is over, ErrExpired along with the claims.
func (a *Auth) verify(typ, audience, token string, now time.Time) (*claims, error) {
	head, payload, ok := wellFormed(token)
	if !ok {
		return nil, errWrongToken
	}
	s := a.signers.Load().find(head, typ, now)
	if s == nil {
		return nil, errWrongToken
	}
	var c claims
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{s.method.Alg()}), jwt.WithStrictDecoding(),
		jwt.WithIssuer(a.issuer), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(tokenSkew), jwt.WithTimeFunc(func() time.Time { return now }),
	)
	_, err := parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return s.public, nil })
	late := errors.Is(err, jwt.ErrTokenExpired) && c.inOrder(typ, audience, a.issuer)
	if err != nil && !late || !c.inOrder(typ, audience, a.issuer) || !onceEach(payload) {
		return nil, errWrongToken
	}
	if late {
		return &c, ErrExpired
	}
	return &c, nil
}

// inOrder asks for what the parser takes as optional, and for a life that is
// given here.
func (c *claims) inOrder(typ, audience, issuer string) bool {
	longest := maxAccessLife
	if typ == refreshType {
		longest = maxRefreshLife
	}
	if c.IssuedAt == nil || c.ExpiresAt == nil || c.Issuer != issuer || c.Subject == "" || c.ID == "" || c.Session == "" {
		return false
	}
	life := c.ExpiresAt.Sub(c.IssuedAt.Time)
	return life > 0 && life <= longest && slices.Contains(c.Audience, audience)
}

// wellFormed looks at the form of a token before anything is split or decoded
// that could be large, and takes it apart.
func wellFormed(token string) (head, payload string, ok bool) {
	if len(token) > maxTokenBytes || strings.Count(token, ".") != 2 || strings.ContainsFunc(token, notBase64) {
		return "", "", false
	}
	head, rest, _ := strings.Cut(token, ".")
	payload, _, _ = strings.Cut(rest, ".")
	return head, payload, true
}

// notBase64 is true for what no token holds. The decoder would pass over line
// ends, and so take many texts for one token.
func notBase64(r rune) bool {
	return r != '.' && r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

// onceEach reports whether no claim comes twice: readers differ on which one
// counts. Ours takes names in any case, so names are compared that way, and
// those with other characters than ASCII or with escapes are refused. The
// payload is known to be JSON.
func onceEach(payload string) bool {
	text, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return false
	}
	seen := make([]string, 0, 16)
	depth, begin, name := 0, -1, false // begin is that of a string, name says that it is one of a claim
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case begin >= 0 && c == '"':
			if name {
				seen = append(seen, strings.ToLower(string(text[begin:i])))
			}
			begin = -1
		case begin >= 0:
			if name && (c == '\\' || c >= utf8.RuneSelf) {
				return false
			}
			if c == '\\' {
				i++ // what follows ends no string
			}
		case c == '"':
			begin = i + 1
		case c == '{' || c == '[':
			depth++
			name = depth == 1
		case c == '}' || c == ']':
			depth--
		case c == ',':
			name = depth == 1
		case c == ':':
			name = false
		}
	}
	slices.Sort(seen)
	return len(slices.Compact(slices.Clone(seen))) == len(seen)
}
