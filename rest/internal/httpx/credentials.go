package httpx

import (
	"encoding/base64"
	"net/http"
	"strings"

	"millrace/broker"
	"millrace/broker/auth"
)

// UserAudience names in tokens the doors that a user's login is for.
const UserAudience = "api"

// KeyOrToken authenticates a request by its Authorization header: Bearer
// <id>.<secret> or an access token for audience, or Basic id:secret of an API
// key. Without that header a client is the user whom its certificate names.
// There is no other place for credentials, and no second header.
func KeyOrToken(a *auth.Auth, audience string, r *Request) (*auth.Principal, error) {
	if name, err := r.certified(); name != "" || err != nil {
		if err != nil {
			return nil, unauthenticated(err.Error())
		}
		p, err := a.Certificate(r.Context(), name)
		return p, AccountError(err, "")
	}
	scheme, value, err := authorization(r.Header)
	if err != nil {
		return nil, err
	}
	var p *auth.Principal
	if strings.EqualFold(scheme, "Basic") {
		id, secret, ok := basic(value)
		if !ok {
			return nil, unauthenticated("the Basic credentials are malformed: base64 of id:secret is expected")
		}
		p, err = a.Key(r.Context(), id, secret)
	} else {
		p, err = a.BearerOrAccess(r.Context(), audience, value)
	}
	return p, AccountError(err, "")
}

// certified is the name in the certificate of a client that has said no other.
func (r *Request) certified() (string, error) {
	if r.TLS == nil || r.shared.Identity == nil || len(r.Header["Authorization"]) > 0 {
		return "", nil
	}
	return r.shared.Identity(*r.TLS)
}

// Bearer returns what follows Bearer in a request, for dialects that take nothing else.
func Bearer(r *Request) (string, error) {
	scheme, value, err := authorization(r.Header)
	if err == nil && !strings.EqualFold(scheme, "Bearer") {
		err = unauthenticated("Bearer is expected, not " + scheme)
	}
	return value, err
}

func authorization(h http.Header) (scheme, value string, err error) {
	switch v := h["Authorization"]; len(v) {
	case 0:
		return "", "", unauthenticated("credentials are missing: send Authorization: Bearer <id>.<secret>")
	case 1:
		scheme, value, _ = strings.Cut(v[0], " ")
	default:
		return "", "", unauthenticated("there is more than one Authorization header")
	}
	value = strings.TrimSpace(value)
	if value == "" || !strings.EqualFold(scheme, "Bearer") && !strings.EqualFold(scheme, "Basic") {
		return "", "", unauthenticated("the Authorization header is malformed: Bearer or Basic is expected")
	}
	return scheme, value, nil
}

func basic(value string) (id, secret string, ok bool) {
	b, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return "", "", false
	}
	id, secret, ok = strings.Cut(string(b), ":")
	return id, secret, ok && id != "" && secret != "" && !strings.ContainsRune(string(b), 0)
}

func unauthenticated(text string) error {
	return &broker.Error{Kind: broker.Unauthenticated, Message: text}
}
