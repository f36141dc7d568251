package emqx

import (
	"errors"
	"net/http"
	"time"

	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// audience names this dialect in tokens. Those of its login are good for the
// broker's own API and for Pulsar's too.
const audience = "emqx"

var audiences = []string{audience, httpx.UserAudience}

// tokenLife is how long a login lasts, as in EMQX.
const tokenLife = time.Hour

// maxLogin bounds what a client that nobody knows yet may send.
const maxLogin = 16 << 10

// authenticate takes Basic with key and secret, or Bearer with the token of a
// login or <id>.<secret>; never a user's password.
func (a *api) authenticate(r *httpx.Request) (*auth.Principal, error) {
	return httpx.KeyOrToken(a.auth, audience, r)
}

// view lets those through that may look at the broker.
func (a *api) view(h httpx.Handler) httpx.Handler { return a.guard(auth.View, h) }

// manage lets administrators through.
func (a *api) manage(h httpx.Handler) httpx.Handler { return a.guard(auth.Manage, h) }

func (a *api) guard(act auth.Action, h httpx.Handler) httpx.Handler {
	return func(w http.ResponseWriter, r *httpx.Request) error {
		if a.broker.May(r.Context(), act, auth.Server) != nil {
			return problemf(http.StatusForbidden, unauthorizedRole, "%s may not %s the server", auth.From(r.Context()), act)
		}
		return h(w, r)
	}
}

// noViewer refuses those who only look, whatever they send. Who else may publish
// what is asked of each topic.
func (a *api) noViewer(h httpx.Handler) httpx.Handler {
	return func(w http.ResponseWriter, r *httpx.Request) error {
		if p := auth.From(r.Context()); p.Role == auth.Viewer {
			return problemf(http.StatusForbidden, unauthorizedRole, "%s may not publish", p)
		}
		return h(w, r)
	}
}

// loggedIn guards what EMQX lets users do and no key: make keys and users.
func (a *api) loggedIn(h httpx.Handler) httpx.Handler {
	return func(w http.ResponseWriter, r *httpx.Request) error {
		if auth.From(r.Context()).Kind != auth.User {
			return problemf(http.StatusUnauthorized, keyNotAllowed, "an API key may not do this: send the token of POST /login")
		}
		return h(w, r)
	}
}

type loginView struct {
	Token   string  `json:"token"`
	Version string  `json:"version"`
	License license `json:"license"`
	Role    string  `json:"role"`
}

type license struct {
	Edition string `json:"edition"`
}

// login takes the password of a user for a token.
func (a *api) login(w http.ResponseWriter, r *httpx.Request) error {
	var name, password string
	if err := readBody(r, maxLogin, fields{"username": text(&name), "password": text(&password)}.read); err != nil {
		return err
	}
	if name == "" || password == "" {
		return bad("username and password are needed")
	}
	p, err := a.auth.LoginPassword(r.Context(), name, password, r.RemoteAddr)
	if err != nil {
		return loginError(err)
	}
	t, err := a.auth.Issue(auth.WithPrincipal(r.Context(), p), p, auth.Grant{Audience: audiences, Access: tokenLife, NoRefresh: true})
	if err != nil {
		return loginError(err)
	}
	return answer(w, r, loginView{t.Access, a.options.Version, license{edition}, p.Role.String()})
}

// lockedError tells a client that the brake holds it, and for how long.
type lockedError struct {
	problem
	wait error
}

func (e *lockedError) Unwrap() []error { return []error{&e.problem, e.wait} }

func loginError(err error) error {
	if _, ok := errors.AsType[*auth.DelayedError](err); ok {
		return &lockedError{problem{http.StatusUnauthorized, loginLocked, "too many wrong passwords, wait and try again"}, err}
	}
	if errors.Is(err, auth.ErrUnauthenticated) {
		return problemf(http.StatusUnauthorized, wrongLogin, "the user name or the password is wrong")
	}
	return httpx.AccountError(err, "the user")
}

// logout ends the login of the token in the header.
func (a *api) logout(w http.ResponseWriter, r *httpx.Request) error {
	name := ""
	if r.ContentLength != 0 {
		if err := readBody(r, maxLogin, fields{"username": text(&name)}.read); err != nil {
			return err
		}
	}
	p := auth.From(r.Context())
	if name != "" && name != p.Name {
		return problemf(http.StatusUnauthorized, wrongLogin, "the token is not one of this user")
	}
	if err := a.auth.Revoke(r.Context(), p); err != nil {
		return httpx.AccountError(err, "the login")
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}

// setDurability says what a positive answer about users, keys and rules means.
func (a *api) setDurability(w http.ResponseWriter) { httpx.SetDurability(w, a.broker.Durability("")) }

// userError is an error about a user in this dialect's words.
func userError(err error, user string) error {
	if errors.Is(err, auth.ErrNotFound) {
		return missing(userNotFound, "%s does not exist", user)
	}
	return httpx.AccountError(err, user)
}
