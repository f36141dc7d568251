package flowmq

import (
	"net/http"
	"time"

	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// keyView is an API key as it may be shown. Only the answers that make a secret
// hold one.
type keyView struct {
	ID          string   `json:"id"`
	Secret      string   `json:"secret,omitempty"`
	Name        string   `json:"name"`
	Owner       string   `json:"owner"`
	Description string   `json:"description"`
	Role        string   `json:"role"`
	Scopes      []string `json:"scopes"`
	Disabled    bool     `json:"disabled"`
	Secrets     int      `json:"secrets"`
	CreatedAt   string   `json:"created_at"`
	ExpiresAt   *string  `json:"expires_at"`
	LastUsedAt  *string  `json:"last_used_at"`
}

func viewKey(k *auth.KeyInfo) keyView {
	return keyView{
		ID: k.ID, Name: k.Name, Owner: k.Owner, Description: k.Description, Role: k.Role.String(),
		Scopes: append([]string{}, k.Scopes...), Disabled: k.Disabled, Secrets: k.Secrets,
		CreatedAt: timestamp(k.Created), ExpiresAt: timeOrNull(k.Expires), LastUsedAt: timeOrNull(k.LastUsed),
	}
}

func timeOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := timestamp(t)
	return &s
}

// administer refuses whoever may not do act to the broker as a whole: accounts
// and rules belong to it.
func (a *api) administer(r *httpx.Request, act auth.Action) error {
	return a.broker.May(r.Context(), act, auth.Server)
}

// readKeyBody reads the body of POST, into s, or of PATCH, into c alone.
func readKeyBody(r *httpx.Request, s *auth.KeySpec, c *auth.KeyChange) error {
	return r.ReadJSON(httpx.MaxJSON, httpx.RefuseUnknown, s != nil, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) (err error) {
			switch string(name) {
			case "name":
				c.Name, err = pointer(d.String())
			case "owner":
				c.Owner, err = pointer(d.String())
			case "description":
				c.Description, err = pointer(d.String())
			case "role":
				c.Role, err = pointer(readText(d))
			case "scopes":
				c.Scopes, err = pointer(readTexts(d))
			case "disabled":
				c.Disabled, err = pointer(d.Bool())
			case "expires_at":
				c.Expires, err = pointer(orNone(d, time.Time{}, func() (time.Time, error) { return readTime(d) }))
			case "id", "secret":
				if s == nil {
					return httpx.Problem("cannot be changed")
				}
				if name[0] == 'i' {
					s.ID, err = readText(d)
				} else {
					s.Secret, err = readText(d)
				}
			default:
				err = d.Unknown()
			}
			return err
		})
	})
}

func pointer[T any](v T, err error) (*T, error) { return &v, err }

func orZero[T any](v *T) (zero T) {
	if v == nil {
		return zero
	}
	return *v
}

func readTexts(d *httpx.Decoder) (all []string, err error) {
	return all, d.Array(func(int) error {
		s, err := readText(d)
		all = append(all, s)
		return err
	})
}

func readTime(d *httpx.Decoder) (time.Time, error) {
	s, err := d.String()
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.IsZero() {
		return time.Time{}, httpx.Problem("must be a time as in 2030-01-31T12:00:00Z")
	}
	return t, nil
}

// createKey makes an API key; its secret is in this answer and never again.
func (a *api) createKey(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.Manage); err != nil {
		return err
	}
	var s auth.KeySpec
	var c auth.KeyChange
	if err := readKeyBody(r, &s, &c); err != nil {
		return err
	}
	s.Name, s.Owner, s.Description, s.Role = orZero(c.Name), orZero(c.Owner), orZero(c.Description), orZero(c.Role)
	s.Scopes, s.Disabled, s.Expires = orZero(c.Scopes), orZero(c.Disabled), orZero(c.Expires)
	id, secret, err := a.broker.Auth().AddKey(r.Context(), s)
	if err != nil {
		return httpx.AccountError(err, "key "+s.ID)
	}
	return a.answerKey(w, r, http.StatusCreated, id, secret)
}

func (a *api) answerKey(w http.ResponseWriter, r *httpx.Request, status int, id, secret string) error {
	k, err := a.broker.Auth().KeyInfo(id)
	if err != nil {
		return httpx.AccountError(err, "key "+id)
	}
	v := viewKey(&k)
	v.Secret = secret
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		a.setDurability(w, r)
	}
	return answer(w, r, status, v)
}

func (a *api) listKeys(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.View); err != nil {
		return err
	}
	page, err := httpx.ReadPage(r)
	if err != nil {
		return err
	}
	all, views := a.broker.Auth().Keys(), []keyView{}
	for _, k := range httpx.PageOf(all, page) {
		views = append(views, viewKey(&k))
	}
	return answer(w, r, http.StatusOK, struct {
		Keys   []keyView `json:"keys"`
		Total  int       `json:"total"`
		Limit  int       `json:"limit"`
		Offset int       `json:"offset"`
	}{views, len(all), page.Limit, page.Offset})
}

func (a *api) getKey(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.View); err != nil {
		return err
	}
	return a.answerKey(w, r, http.StatusOK, r.Param("key"), "")
}

func (a *api) changeKey(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.Manage); err != nil {
		return err
	}
	var c auth.KeyChange
	if err := readKeyBody(r, nil, &c); err != nil {
		return err
	}
	id := r.Param("key")
	if err := a.broker.Auth().ChangeKey(r.Context(), id, c); err != nil {
		return httpx.AccountError(err, "key "+id)
	}
	return a.answerKey(w, r, http.StatusOK, id, "")
}

func (a *api) deleteKey(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.Manage); err != nil {
		return err
	}
	id := r.Param("key")
	if err := a.broker.Auth().DeleteKey(r.Context(), id); err != nil {
		return httpx.AccountError(err, "key "+id)
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, struct {
		ID      string `json:"id"`
		Deleted bool   `json:"deleted"`
	}{id, true})
}

// addSecret begins a rotation: both secrets are good until the first is retired.
func (a *api) addSecret(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.Manage); err != nil {
		return err
	}
	given := ""
	err := r.ReadJSON(httpx.MaxJSON, httpx.RefuseUnknown, true, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) (err error) {
			if string(name) != "secret" {
				return d.Unknown()
			}
			given, err = readText(d)
			return err
		})
	})
	if err != nil {
		return err
	}
	id := r.Param("key")
	secret, err := a.broker.Auth().AddSecret(r.Context(), id, given)
	if err != nil {
		return httpx.AccountError(err, "key "+id)
	}
	return a.answerKey(w, r, http.StatusCreated, id, secret)
}

// retireSecret ends a rotation, and what came with the older secret.
func (a *api) retireSecret(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.Manage); err != nil {
		return err
	}
	id := r.Param("key")
	if err := a.broker.Auth().RetireSecret(r.Context(), id); err != nil {
		return httpx.AccountError(err, "key "+id)
	}
	return a.answerKey(w, r, http.StatusOK, id, "")
}
