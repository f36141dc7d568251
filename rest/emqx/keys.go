package emqx

import (
	"cmp"
	"net/http"
	"regexp"
	"slices"
	"time"

	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// keyView is an API key as EMQX shows it. Only the answer that makes a secret
// holds one.
type keyView struct {
	Name      string   `json:"name"`
	APIKey    string   `json:"api_key"`
	APISecret string   `json:"api_secret,omitempty"`
	Desc      string   `json:"desc"`
	Enable    bool     `json:"enable"`
	Role      string   `json:"role"`
	Scopes    []string `json:"scopes"`
	CreatedAt *string  `json:"created_at"`
	ExpiredAt string   `json:"expired_at"`
	Expired   bool     `json:"expired"`
}

func viewKey(k *auth.KeyInfo) keyView {
	v := keyView{
		Name: keyName(k), APIKey: k.ID, Desc: k.Description, Enable: !k.Disabled, Role: k.Role.String(),
		Scopes: append([]string{}, k.Scopes...), CreatedAt: timestamp(k.Created), ExpiredAt: infinity,
	}
	if !k.Expires.IsZero() {
		v.ExpiredAt, v.Expired = *timestamp(k.Expires), !k.Expires.After(time.Now())
	}
	return v
}

// keyName is the name of a key: that of its maker, else its id.
func keyName(k *auth.KeyInfo) string {
	if k.Name != "" {
		return k.Name
	}
	return k.ID
}

// findKey finds a key by its name; keys made elsewhere may share one, then the
// first by id is meant.
func (a *api) findKey(name string) (auth.KeyInfo, bool) {
	for _, k := range a.auth.Keys() {
		if keyName(&k) == name {
			return k, true
		}
	}
	return auth.KeyInfo{}, false
}

func (a *api) listKeys(w http.ResponseWriter, r *httpx.Request) error {
	views := []keyView{}
	for _, k := range a.auth.Keys() {
		views = append(views, viewKey(&k))
	}
	slices.SortStableFunc(views, func(x, y keyView) int { return cmp.Compare(x.Name, y.Name) })
	return answer(w, r, views)
}

func (a *api) getKey(w http.ResponseWriter, r *httpx.Request) error {
	k, ok := a.findKey(r.Param("name"))
	if !ok {
		return noKey(r)
	}
	return answer(w, r, viewKey(&k))
}

func noKey(r *httpx.Request) error {
	return missing(notFound, "there is no API key %q", httpx.Clip(r.Param("name")))
}

// readKey reads the body of POST and PUT.
func readKey(r *httpx.Request, name *string) (c auth.KeyChange, err error) {
	var enable *bool
	err = readBody(r, maxBody, fields{
		"name":       text(name),
		"desc":       given(&c.Description, text),
		"enable":     given(&enable, flag),
		"role":       given(&c.Role, text),
		"expired_at": given(&c.Expires, readWhen),
		"scopes":     given(&c.Scopes, texts),
	}.read)
	if enable != nil {
		c.Disabled = new(bool)
		*c.Disabled = !*enable
	}
	return c, err
}

func texts(v *[]string) func(d *httpx.Decoder) error {
	return into(v, func(d *httpx.Decoder) (all []string, err error) {
		return all, d.Array(func(int) error {
			s, err := d.String()
			all = append(all, s)
			return err
		})
	})
}

var keyNames = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,255}$`)

// createKey makes a key, for an administrator unless a role is given, as EMQX
// does. Its secret is in this answer and never again.
func (a *api) createKey(w http.ResponseWriter, r *httpx.Request) error {
	name := ""
	c, err := readKey(r, &name)
	switch {
	case err != nil:
		return err
	case !keyNames.MatchString(name):
		return bad("name is %q, it must be a letter, then letters, digits, - and _, at most 256", httpx.Clip(name))
	}
	if _, taken := a.findKey(name); taken {
		return problemf(http.StatusConflict, alreadyExists, "there is an API key %q already", name)
	}
	s := auth.KeySpec{
		Name: name, Description: orZero(c.Description), Role: auth.Administrator.String(), Scopes: orZero(c.Scopes),
		Disabled: orZero(c.Disabled), Expires: orZero(c.Expires),
	}
	if c.Role != nil {
		s.Role = *c.Role
	}
	id, secret, err := a.auth.AddKey(r.Context(), s)
	if err != nil {
		return httpx.AccountError(err, "API key "+name)
	}
	k, err := a.auth.KeyInfo(id)
	if err != nil {
		return httpx.AccountError(err, "API key "+name)
	}
	v := viewKey(&k)
	v.APISecret = secret
	a.setDurability(w)
	return answer(w, r, v)
}

func (a *api) changeKey(w http.ResponseWriter, r *httpx.Request) error {
	name := ""
	c, err := readKey(r, &name)
	if err != nil {
		return err
	}
	k, ok := a.findKey(r.Param("name"))
	switch {
	case !ok:
		return noKey(r)
	case name != "" && name != keyName(&k):
		return bad("the name of an API key cannot be changed")
	}
	if err := a.auth.ChangeKey(r.Context(), k.ID, c); err != nil {
		return httpx.AccountError(err, "API key "+k.ID)
	}
	a.setDurability(w)
	if k, err = a.auth.KeyInfo(k.ID); err != nil {
		return noKey(r)
	}
	return answer(w, r, viewKey(&k))
}

func (a *api) deleteKey(w http.ResponseWriter, r *httpx.Request) error {
	k, ok := a.findKey(r.Param("name"))
	if !ok {
		return noKey(r)
	}
	if err := a.auth.DeleteKey(r.Context(), k.ID); err != nil {
		return httpx.AccountError(err, "API key "+k.ID)
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}
