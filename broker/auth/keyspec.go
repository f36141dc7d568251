package auth

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxScopes     = 100
	maxKeyIDBytes = 64
	minSecret     = 16
	maxSecret     = 256
	maxSecrets    = 2
	secretBytes   = 32 // random, of those made here
)

// KeySpec describes an API key to be made. An empty ID or Secret is made up,
// an empty Role is client, no Scopes are everything, a zero Expires is never.
type KeySpec struct {
	ID          string
	Secret      string `json:"-"`
	Name        string // for people, as the next two
	Owner       string // default: the principal of the context
	Description string
	Role        string
	Scopes      []string
	Disabled    bool
	Expires     time.Time
}

// String leaves the secret out.
func (s KeySpec) String() string { return "key:" + s.ID }

// GoString leaves the secret out.
func (s KeySpec) GoString() string { return s.String() }

func (s KeySpec) check() (Role, error) {
	if !validKeyID(s.ID) {
		return 0, &InvalidError{Field: "id", Reason: "must have 1 to 64 of the characters A-Z, a-z, 0-9, _ and -"}
	}
	if err := validSecret(s.Secret); err != nil {
		return 0, err
	}
	texts := keyRecord{Name: s.Name, Owner: s.Owner, Description: s.Description}
	if err := texts.validTexts(); err != nil {
		return 0, err
	}
	role, err := ParseRole(s.Role)
	if err != nil {
		return 0, err
	}
	return role, validScopes(role, s.Scopes)
}

func validSecret(secret string) error {
	unprintable := func(r rune) bool { return r < ' ' || r > '~' }
	if len(secret) < minSecret || len(secret) > maxSecret || strings.ContainsFunc(secret, unprintable) {
		return &InvalidError{Field: "secret", Reason: "must have 16 to 256 printable ASCII characters"}
	}
	return nil
}

func (r *keyRecord) validTexts() error {
	for _, t := range []struct{ field, text string }{{"name", r.Name}, {"owner", r.Owner}, {"description", r.Description}} {
		if err := validText(t.field, t.text); err != nil {
			return err
		}
	}
	return nil
}

// validText is the rule for what people write about keys and users.
func validText(field, text string) error {
	if len(text) > maxNameBytes || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return &InvalidError{Field: field, Reason: "must have at most 256 bytes of UTF-8 without control characters"}
	}
	return nil
}

func validScopes(role Role, scopes []string) error {
	if len(scopes) > maxScopes {
		return &InvalidError{Field: "scopes", Reason: fmt.Sprintf("there may be at most %d", maxScopes)}
	}
	for i, s := range scopes {
		if role == Administrator && s != "#" && s != "queue:*" && s != "stream:*" {
			return &InvalidError{Field: fmt.Sprintf("scopes[%d]", i), Reason: "an administrator has every right, scopes cannot narrow it"}
		}
		if _, reason := parsePattern(s); reason != "" {
			return &InvalidError{Field: fmt.Sprintf("scopes[%d]", i), Reason: reason}
		}
	}
	return nil
}

func validKeyID(id string) bool {
	odd := func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}
	return id != "" && len(id) <= maxKeyIDBytes && !strings.ContainsFunc(id, odd)
}

// newKeyID makes an id of 72 random bits that no command line takes for a flag.
func newKeyID() string {
	for {
		if id := randomText(9); id[0] != '-' {
			return id
		}
	}
}

// randomText returns n random bytes in base64url.
func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, it ends the process instead
	return base64.RawURLEncoding.EncodeToString(b)
}
