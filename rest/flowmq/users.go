package flowmq

import (
	"net/http"

	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

type userView struct {
	Username    string  `json:"username"`
	Superuser   bool    `json:"superuser"`
	Disabled    bool    `json:"disabled"`
	CreatedAt   string  `json:"created_at"`
	LastLoginAt *string `json:"last_login_at"`
}

func viewUser(u *auth.UserInfo) userView {
	return userView{u.Name, u.Superuser, u.Disabled, timestamp(u.Created), timeOrNull(u.LastLogin)}
}

// readUserBody reads the body of POST, with the username, or of PATCH.
func readUserBody(r *httpx.Request, username *string, c *auth.UserChange) error {
	return r.ReadJSON(httpx.MaxJSON, httpx.RefuseUnknown, false, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) (err error) {
			switch string(name) {
			case "username":
				if username == nil {
					return httpx.Problem("cannot be changed")
				}
				*username, err = readText(d)
			case "password":
				c.Password, err = pointer(d.String())
			case "superuser":
				c.Superuser, err = pointer(d.Bool())
			case "disabled":
				if username != nil {
					return d.Unknown()
				}
				c.Disabled, err = pointer(d.Bool())
			default:
				err = d.Unknown()
			}
			return err
		})
	})
}

func (a *api) createUser(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.Manage); err != nil {
		return err
	}
	var name string
	var c auth.UserChange
	if err := readUserBody(r, &name, &c); err != nil {
		return err
	}
	switch {
	case name == "":
		return httpx.FieldError("username", "is missing")
	case c.Password == nil:
		return httpx.FieldError("password", "is missing")
	}
	s := auth.UserSpec{Username: name, Password: *c.Password, Superuser: orZero(c.Superuser)}
	if err := a.broker.Auth().AddUser(r.Context(), s); err != nil {
		return httpx.AccountError(err, "user "+name)
	}
	return a.answerUser(w, r, http.StatusCreated, name)
}

func (a *api) answerUser(w http.ResponseWriter, r *httpx.Request, status int, name string) error {
	u, err := a.broker.Auth().User(name)
	if err != nil {
		return httpx.AccountError(err, "user "+name)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		a.setDurability(w, r)
	}
	return answer(w, r, status, viewUser(&u))
}

func (a *api) listUsers(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.View); err != nil {
		return err
	}
	page, err := httpx.ReadPage(r)
	if err != nil {
		return err
	}
	all, views := a.broker.Auth().Users(), []userView{}
	for _, u := range httpx.PageOf(all, page) {
		views = append(views, viewUser(&u))
	}
	return answer(w, r, http.StatusOK, struct {
		Users  []userView `json:"users"`
		Total  int        `json:"total"`
		Limit  int        `json:"limit"`
		Offset int        `json:"offset"`
	}{views, len(all), page.Limit, page.Offset})
}

func (a *api) getUser(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.View); err != nil {
		return err
	}
	return a.answerUser(w, r, http.StatusOK, r.Param("user"))
}

func (a *api) changeUser(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.Manage); err != nil {
		return err
	}
	var c auth.UserChange
	if err := readUserBody(r, nil, &c); err != nil {
		return err
	}
	name := r.Param("user")
	if err := a.broker.Auth().ChangeUser(r.Context(), name, c); err != nil {
		return httpx.AccountError(err, "user "+name)
	}
	return a.answerUser(w, r, http.StatusOK, name)
}

func (a *api) deleteUser(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.Manage); err != nil {
		return err
	}
	name := r.Param("user")
	if err := a.broker.Auth().DeleteUser(r.Context(), name); err != nil {
		return httpx.AccountError(err, "user "+name)
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, struct {
		Username string `json:"username"`
		Deleted  bool   `json:"deleted"`
	}{name, true})
}
