package flowmq

import (
	"net/http"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// maxLogin bounds what a client that nobody knows yet may send.
const maxLogin = 16 << 10

type tokensView struct {
	AccessToken      string `json:"access_token"`
	TokenType        string `json:"token_type"`
	AccessExpiresAt  string `json:"access_expires_at"`
	RefreshToken     string `json:"refresh_token"`
	RefreshExpiresAt string `json:"refresh_expires_at"`
}

func answerTokens(w http.ResponseWriter, r *httpx.Request, t *auth.Tokens) error {
	return answer(w, r, http.StatusOK, tokensView{
		t.Access, "Bearer", timestamp(t.AccessExpires), t.Refresh, timestamp(t.RefreshExpires),
	})
}

// readLogin proves the name and password in a body, which next may be a part
// of: the password that takes its place.
func (a *api) readLogin(r *httpx.Request, next *string) (*auth.Principal, error) {
	var name, password string
	err := r.ReadJSON(maxLogin, httpx.RefuseUnknown, false, func(d *httpx.Decoder) error {
		return d.Object(func(member []byte) (err error) {
			switch {
			case string(member) == "username":
				name, err = readText(d)
			case string(member) == "password":
				password, err = readText(d)
			case string(member) == "new_password" && next != nil:
				*next, err = readText(d)
			default:
				err = d.Unknown()
			}
			return err
		})
	})
	switch {
	case err != nil:
		return nil, err
	case name == "":
		return nil, httpx.FieldError("username", "is missing")
	case password == "":
		return nil, httpx.FieldError("password", "is missing")
	case next != nil && *next == "":
		return nil, httpx.FieldError("new_password", "is missing")
	}
	p, err := a.broker.Auth().LoginPassword(r.Context(), name, password, r.RemoteAddr)
	return p, httpx.AccountError(err, "the user")
}

// ownPassword lets a user change the password, by the old one. All logins end.
func (a *api) ownPassword(w http.ResponseWriter, r *httpx.Request) error {
	var next string
	p, err := a.readLogin(r, &next)
	if err != nil {
		return err
	}
	if err := a.broker.Auth().ChangeOwnPassword(auth.WithPrincipal(r.Context(), p), p, next); err != nil {
		return httpx.AccountError(err, "the user")
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, struct {
		Changed bool `json:"changed"`
	}{true})
}

// login takes the password of a user for an access token and a refresh token.
func (a *api) login(w http.ResponseWriter, r *httpx.Request) error {
	p, err := a.readLogin(r, nil)
	if err != nil {
		return err
	}
	t, err := a.broker.Auth().Issue(auth.WithPrincipal(r.Context(), p), p, auth.Grant{Audience: []string{httpx.UserAudience}})
	if err != nil {
		return httpx.AccountError(err, "the user")
	}
	return answerTokens(w, r, &t)
}

// readRefresh reads a body that holds a refresh token, and everywhere where it may.
func readRefresh(r *httpx.Request, everywhere *bool) (token string, err error) {
	return token, r.ReadJSON(maxLogin, httpx.RefuseUnknown, everywhere != nil, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) (err error) {
			switch {
			case string(name) == "refresh_token":
				token, err = readText(d)
			case string(name) == "everywhere" && everywhere != nil:
				*everywhere, err = d.Bool()
			default:
				err = d.Unknown()
			}
			return err
		})
	})
}

// refresh takes a refresh token for the next two.
func (a *api) refresh(w http.ResponseWriter, r *httpx.Request) error {
	token, err := readRefresh(r, nil)
	if err != nil {
		return err
	}
	if token == "" {
		return httpx.FieldError("refresh_token", "is missing")
	}
	t, err := a.broker.Auth().Refresh(r.Context(), httpx.UserAudience, token)
	if err != nil {
		return httpx.AccountError(err, "the login")
	}
	return answerTokens(w, r, &t)
}

// logout ends the login of the access token in the header, or of the refresh
// token in the body; with everywhere all logins of the user.
func (a *api) logout(w http.ResponseWriter, r *httpx.Request) error {
	everywhere := false
	token, err := readRefresh(r, &everywhere)
	if err != nil {
		return err
	}
	accounts := a.broker.Auth()
	if token != "" {
		if everywhere {
			return httpx.FieldError("everywhere", "needs the access token in the header, and no refresh token")
		}
		err = accounts.RevokeRefresh(r.Context(), httpx.UserAudience, token)
		return a.answerLogout(w, r, err)
	}
	p, err := httpx.KeyOrToken(accounts, httpx.UserAudience, r)
	if err != nil {
		return err
	}
	ctx := auth.WithPrincipal(r.Context(), p)
	switch {
	case p.Expires().IsZero():
		err = &broker.Error{Kind: broker.Invalid, Message: "an API key has no login to end: send an access token, or a refresh token in the body"}
	case everywhere:
		err = accounts.RevokeUser(ctx, p.Name)
	default:
		err = accounts.Revoke(ctx, p)
	}
	return a.answerLogout(w, r, err)
}

func (a *api) answerLogout(w http.ResponseWriter, r *httpx.Request, err error) error {
	if err != nil {
		return httpx.AccountError(err, "the login")
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, struct {
		LoggedOut bool `json:"logged_out"`
	}{true})
}
