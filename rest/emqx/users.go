package emqx

import (
	"net/http"

	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// EMQX keeps the users of its dashboard and the users of MQTT apart. Here is
// one kind, which both of its lists show: a superuser is an administrator after
// a login, everybody else a client.

type userView struct {
	Username    string `json:"username"`
	Role        string `json:"role"`
	Description string `json:"description"`
	Backend     string `json:"backend"`
}

func viewUser(u *auth.UserInfo) userView {
	role := auth.Client
	if u.Superuser {
		role = auth.Administrator
	}
	return userView{u.Name, role.String(), u.Description, "local"}
}

func (a *api) listUsers(w http.ResponseWriter, r *httpx.Request) error {
	views := []userView{}
	for _, u := range a.auth.Users() {
		views = append(views, viewUser(&u))
	}
	return answer(w, r, views)
}

// superuserOf reads a role: users have no others.
func superuserOf(role string) (bool, error) {
	switch role {
	case "administrator", "superuser":
		return true, nil
	case "client":
		return false, nil
	}
	return false, bad("role is %q, a user is administrator or client; viewers and publishers are API keys", httpx.Clip(role))
}

// createUser makes an administrator unless a role is given: whoever logs in to
// EMQX administers it.
func (a *api) createUser(w http.ResponseWriter, r *httpx.Request) error {
	var name, password, description string
	role := "administrator"
	err := readBody(r, maxBody, fields{
		"username": text(&name), "password": text(&password), "role": text(&role), "description": text(&description),
	}.read)
	if err != nil {
		return err
	}
	superuser, err := superuserOf(role)
	switch {
	case err != nil:
		return err
	case name == "" || password == "":
		return bad("username and password are needed")
	}
	if err := a.auth.AddUser(r.Context(), auth.UserSpec{Username: name, Password: password, Superuser: superuser, Description: description}); err != nil {
		return userError(err, "user "+name)
	}
	return a.answerUser(w, r, name)
}

func (a *api) answerUser(w http.ResponseWriter, r *httpx.Request, name string) error {
	u, err := a.auth.User(name)
	if err != nil {
		return userError(err, "user "+name)
	}
	a.setDurability(w)
	return answer(w, r, viewUser(&u))
}

func (a *api) changeUser(w http.ResponseWriter, r *httpx.Request) error {
	name := r.Param("username")
	var role *string
	var c auth.UserChange
	if err := readBody(r, maxBody, fields{"role": given(&role, text), "description": given(&c.Description, text)}.read); err != nil {
		return err
	}
	if role != nil {
		superuser, err := superuserOf(*role)
		if err != nil {
			return err
		}
		c.Superuser = &superuser
	}
	if err := a.auth.ChangeUser(r.Context(), name, c); err != nil {
		return userError(err, "user "+name)
	}
	return a.answerUser(w, r, name)
}

// deleteUser deletes anyone but who asks, as in EMQX.
func (a *api) deleteUser(w http.ResponseWriter, r *httpx.Request) error {
	name := r.Param("username")
	if name == auth.From(r.Context()).Name {
		return problemf(http.StatusBadRequest, badRequest, "nobody can delete the user of the own login")
	}
	if err := a.auth.DeleteUser(r.Context(), name); err != nil {
		return userError(err, "user "+name)
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}

// changePassword asks for the old password, also of an administrator.
func (a *api) changePassword(w http.ResponseWriter, r *httpx.Request) error {
	name := r.Param("username")
	var old, password string
	if err := readBody(r, maxBody, fields{"old_pwd": text(&old), "new_pwd": text(&password)}.read); err != nil {
		return err
	}
	if _, err := a.auth.User(name); err != nil {
		return userError(err, "user "+name)
	}
	p, err := a.auth.LoginPassword(r.Context(), name, old, r.RemoteAddr)
	if err != nil {
		return loginError(err)
	}
	if err := a.auth.ChangeOwnPassword(auth.WithPrincipal(r.Context(), p), p, password); err != nil {
		return userError(err, "user "+name)
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}
