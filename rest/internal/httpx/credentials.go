package httpx

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"millrace/broker"
	"millrace/broker/auth"
)

// KeyOrToken authenticates a request by its Authorization header: Bearer
// <id>.<secret> or a token, or Basic id:secret of an API key. There is no
// other place for credentials, and no second header.
func KeyOrToken(a *auth.Auth, r *Request) (*auth.Principal, error) {
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
		p, err = a.Bearer(r.Context(), value)
	}
	return p, AuthError(err)
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

// AuthError gives the errors of logins and credentials their kind.
func AuthError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, auth.ErrBusy):
		return &broker.Error{Kind: broker.Unavailable, Message: "too many logins at once, try again", Err: err}
	}
	if _, ok := errors.AsType[*auth.DelayedError](err); ok { // is ErrUnauthenticated too
		return &broker.Error{Kind: broker.Unavailable, Message: "too many wrong passwords, wait and try again", Err: err}
	}
	if errors.Is(err, auth.ErrUnauthenticated) {
		return unauthenticated("the credentials are unknown or wrong")
	}
	return err
}
