package fastqueue

import (
	"context"
	"errors"
	"net/http"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// credentials are the body of every call about an account; each takes some of them.
type credentials struct {
	username, password, oldPassword, newPassword, refreshToken string
}

// readCredentials reads a body which must hold all the named members.
func readCredentials(r *httpx.Request, names ...string) (c credentials, err error) {
	given := map[string]*string{
		"username": &c.username, "password": &c.password, "old_password": &c.oldPassword,
		"new_password": &c.newPassword, "refresh_token": &c.refreshToken,
	}
	const maxCredentials = 64 << 10
	err = r.ReadJSON(maxCredentials, httpx.IgnoreUnknown, false, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) (err error) {
			into, ok := given[string(name)]
			if !ok {
				return d.Unknown()
			}
			*into, err = d.String()
			return err
		})
	})
	for _, name := range names {
		if err == nil && *given[name] == "" {
			err = httpx.FieldError(name, "is missing")
		}
	}
	return c, err
}

// from tells the audit log who asks, before anyone has proved to be someone.
func from(r *httpx.Request) context.Context {
	return auth.WithPrincipal(r.Context(), &auth.Principal{Kind: auth.Anonymous})
}

func (a *api) register(w http.ResponseWriter, r *httpx.Request) error {
	if !a.options.Registration {
		return &broker.Error{Kind: broker.Forbidden, Message: "Registration is off: fastqueue.registration switches it on."}
	}
	c, err := readCredentials(r, "username", "password")
	if err != nil {
		return err
	}
	err = a.auth.AddUser(from(r), auth.UserSpec{Username: c.username, Password: c.password, Door: Door, Distinct: true})
	if err != nil {
		return accountError(err)
	}
	a.setDurability(w)
	return answerName(w, r, c.username)
}

func (a *api) login(w http.ResponseWriter, r *httpx.Request) error {
	c, err := readCredentials(r, "username", "password")
	if err != nil {
		return err
	}
	p, err := a.auth.LoginAccount(from(r), Door, c.username, c.password, r.RemoteAddr)
	if err != nil {
		return accountError(err)
	}
	t, err := a.auth.Issue(auth.WithPrincipal(from(r), p), p, auth.Grant{Audience: []string{Door}})
	if err != nil {
		return accountError(err)
	}
	return a.answerTokens(w, r, t)
}

// refresh asks for no access token: the one it replaces may have ended.
func (a *api) refresh(w http.ResponseWriter, r *httpx.Request) error {
	c, err := readCredentials(r, "refresh_token")
	if err != nil {
		return err
	}
	t, err := a.auth.Refresh(from(r), Door, c.refreshToken)
	if err != nil {
		return accountError(err)
	}
	return a.answerTokens(w, r, t)
}

// changePassword and deleteAccount ask for the password, as FastQueue does, and
// for no token: who lost one has been told to do just this.
func (a *api) changePassword(w http.ResponseWriter, r *httpx.Request) error {
	c, err := readCredentials(r, "username", "old_password", "new_password")
	if err != nil {
		return err
	}
	p, err := a.auth.LoginAccount(from(r), Door, c.username, c.oldPassword, r.RemoteAddr)
	if err != nil {
		return accountError(err)
	}
	if err := a.auth.ChangeOwnPassword(auth.WithPrincipal(from(r), p), p, c.newPassword); err != nil {
		return accountError(err)
	}
	a.setDurability(w)
	return answerName(w, r, c.username)
}

func (a *api) deleteAccount(w http.ResponseWriter, r *httpx.Request) error {
	c, err := readCredentials(r, "username", "password")
	if err != nil {
		return err
	}
	p, err := a.auth.LoginAccount(from(r), Door, c.username, c.password, r.RemoteAddr)
	if err != nil {
		return accountError(err)
	}
	if err := a.auth.DeleteOwn(auth.WithPrincipal(from(r), p), p); err != nil {
		return accountError(err)
	}
	a.setDurability(w)
	return answerText(w, r, "User deleted successfully")
}

// setDurability says what the answer about an account means: they are kept with
// the broker's own records.
func (a *api) setDurability(w http.ResponseWriter) {
	httpx.SetDurability(w, a.broker.Durability(""))
}

func (a *api) answerTokens(w http.ResponseWriter, r *httpx.Request, t auth.Tokens) error {
	a.setDurability(w)
	body := httpx.AppendString(append(r.Buffer(), `{"access_token":`...), t.Access)
	body = httpx.AppendString(append(body, `,"refresh_token":`...), t.Refresh)
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, `,"token_type":"bearer"}`...))
}

// accountError words what auth refuses in FastQueue's terms.
func accountError(err error) error {
	if e, ok := errors.AsType[*auth.InvalidError](err); ok {
		return httpx.FieldError(e.Field, "%s", e.Reason)
	}
	if e, ok := errors.AsType[*auth.LimitError](err); ok {
		return &broker.Error{Kind: broker.Full, Message: "There may be no more " + e.What + ".", Err: err}
	}
	if errors.Is(err, auth.ErrExists) { // 400, as FastQueue's server answers
		return httpx.FieldError("username", "is taken")
	}
	return httpx.AccountError(err, "")
}
