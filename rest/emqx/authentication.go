package emqx

import (
	"net/http"
	"strings"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// authenticatorID names the one authenticator there is: the users of the broker.
const authenticatorID = "password_based:built_in_database"

const authenticatorPath = Prefix + "/authentication/:id"

type authenticatorView struct {
	ID         string        `json:"id"`
	Mechanism  string        `json:"mechanism"`
	Backend    string        `json:"backend"`
	Enable     bool          `json:"enable"`
	UserIDType string        `json:"user_id_type"`
	Hash       algorithmView `json:"password_hash_algorithm"`
}

type algorithmView struct {
	Name string `json:"name"`
}

var authenticator = authenticatorView{
	ID: authenticatorID, Mechanism: "password_based", Backend: "built_in_database", Enable: true,
	UserIDType: "username", Hash: algorithmView{"argon2id"},
}

func (a *api) listAuthenticators(w http.ResponseWriter, r *httpx.Request) error {
	return answer(w, r, []authenticatorView{authenticator})
}

func (a *api) getAuthenticator(w http.ResponseWriter, r *httpx.Request) error {
	if err := checkAuthenticator(r); err != nil {
		return err
	}
	return answer(w, r, authenticator)
}

func checkAuthenticator(r *httpx.Request) error {
	if id := r.Param("id"); id != authenticatorID {
		return missing(notFound, "there is no authenticator %q, only %s", httpx.Clip(id), authenticatorID)
	}
	return nil
}

// authenticatorPart answers what lies one level below an authenticator.
func (a *api) authenticatorPart(w http.ResponseWriter, r *httpx.Request) error {
	if err := checkAuthenticator(r); err != nil {
		return err
	}
	switch r.Param("part") {
	case "users":
		return a.listAuthUsers(w, r)
	case "status":
		return summed(a, a.authenticatorStatus, sumStatuses)(w, r)
	}
	return httpx.ErrNoRoute
}

type authUserView struct {
	UserID    string `json:"user_id"`
	Superuser bool   `json:"is_superuser"`
}

func (a *api) listAuthUsers(w http.ResponseWriter, r *httpx.Request) error {
	p, err := readPage(r)
	if err != nil {
		return err
	}
	like, err := r.Query("like_user_id")
	if err != nil {
		return badQuery(err)
	}
	super, asked, err := queryBool(r, "is_superuser")
	if err != nil {
		return err
	}
	views := []authUserView{}
	for _, u := range a.auth.Users() {
		if strings.Contains(u.Name, like) && (!asked || u.Superuser == super) {
			views = append(views, authUserView{u.Name, u.Superuser})
		}
	}
	l := pageOf(views, p)
	if like != "" {
		l.Meta.Count = nil
	}
	return answer(w, r, l)
}

// queryBool reads true or false from the query; asked says whether it was there.
func queryBool(r *httpx.Request, name string) (v, asked bool, err error) {
	s, err := r.Query(name)
	if err != nil {
		return false, false, badQuery(err)
	}
	switch s {
	case "":
		return false, false, nil
	case "true", "false":
		return s == "true", true, nil
	}
	return false, false, problemf(http.StatusBadRequest, invalidParameter, "%s is %q, it must be true or false", name, httpx.Clip(s))
}

func readAuthUser(r *httpx.Request, id *string, c *auth.UserChange) error {
	return readBody(r, maxBody, fields{
		"user_id": text(id), "password": given(&c.Password, text), "is_superuser": given(&c.Superuser, flag),
	}.read)
}

// createAuthUser is POST /authentication/:id/users.
func (a *api) createAuthUser(w http.ResponseWriter, r *httpx.Request) error {
	if err := checkAuthenticator(r); err != nil {
		return err
	}
	if r.Param("part") != "users" {
		return httpx.ErrNoRoute
	}
	var name string
	var c auth.UserChange
	if err := readAuthUser(r, &name, &c); err != nil {
		return err
	}
	if name == "" || c.Password == nil {
		return bad("user_id and password are needed")
	}
	s := auth.UserSpec{Username: name, Password: *c.Password, Superuser: orZero(c.Superuser)}
	if err := a.auth.AddUser(r.Context(), s); err != nil {
		return userError(err, "user "+name)
	}
	a.setDurability(w)
	return answerStatus(w, r, http.StatusCreated, authUserView{name, s.Superuser})
}

// authUser finds the user of a path below an authenticator.
func (a *api) authUser(r *httpx.Request) (auth.UserInfo, error) {
	if err := checkAuthenticator(r); err != nil {
		return auth.UserInfo{}, err
	}
	if r.Param("part") != "users" {
		return auth.UserInfo{}, httpx.ErrNoRoute
	}
	u, err := a.auth.User(r.Param("user"))
	return u, userError(err, "user "+httpx.Clip(r.Param("user")))
}

func (a *api) getAuthUser(w http.ResponseWriter, r *httpx.Request) error {
	u, err := a.authUser(r)
	if err != nil {
		return err
	}
	return answer(w, r, authUserView{u.Name, u.Superuser})
}

func (a *api) changeAuthUser(w http.ResponseWriter, r *httpx.Request) error {
	u, err := a.authUser(r)
	if err != nil {
		return err
	}
	var c auth.UserChange
	id := u.Name
	switch err := readAuthUser(r, &id, &c); {
	case err != nil:
		return err
	case id != u.Name:
		return bad("user_id cannot be changed")
	}
	if err := a.auth.ChangeUser(r.Context(), u.Name, c); err != nil {
		return userError(err, "user "+u.Name)
	}
	a.setDurability(w)
	if c.Superuser != nil {
		u.Superuser = *c.Superuser
	}
	return answer(w, r, authUserView{u.Name, u.Superuser})
}

func (a *api) deleteAuthUser(w http.ResponseWriter, r *httpx.Request) error {
	u, err := a.authUser(r)
	if err != nil {
		return err
	}
	if err := a.auth.DeleteUser(r.Context(), u.Name); err != nil {
		return userError(err, "user "+u.Name)
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}

type authMetrics struct {
	Total   int64 `json:"total"`
	Success int64 `json:"success"`
	Failed  int64 `json:"failed"`
	NoMatch int64 `json:"nomatch"`
}

type authenticatorStatusView struct {
	Status      string            `json:"status"`
	Metrics     authMetrics       `json:"metrics"`
	NodeMetrics []nodeAuthMetrics `json:"node_metrics"`
	NodeStatus  []nodeStatusView  `json:"node_status"`
	NodeError   []string          `json:"node_error"`
}

type nodeAuthMetrics struct {
	Node    string      `json:"node"`
	Metrics authMetrics `json:"metrics"`
}

type nodeStatusView struct {
	Node   string `json:"node"`
	Status string `json:"status"`
}

func (a *api) authenticatorStatus(w http.ResponseWriter, r *httpx.Request) error {
	n := a.counters()
	m := authMetrics{Success: n["mqtt.login.accepted"] - n["mqtt.login.anonymous"], Failed: n["mqtt.login.refused"], NoMatch: n["mqtt.login.anonymous"]}
	m.Total = m.Success + m.Failed + m.NoMatch
	return answer(w, r, authenticatorStatusView{
		Status: "connected", Metrics: m, NodeMetrics: []nodeAuthMetrics{{a.options.Node, m}},
		NodeStatus: []nodeStatusView{{a.options.Node, "connected"}}, NodeError: []string{},
	})
}

// sumStatuses is the authenticator of all nodes.
func sumStatuses(nodes []authenticatorStatusView) authenticatorStatusView {
	v := nodes[0]
	for _, n := range nodes[1:] {
		v.Metrics.Total += n.Metrics.Total
		v.Metrics.Success += n.Metrics.Success
		v.Metrics.Failed += n.Metrics.Failed
		v.Metrics.NoMatch += n.Metrics.NoMatch
		v.NodeMetrics = append(v.NodeMetrics, n.NodeMetrics...)
		v.NodeStatus = append(v.NodeStatus, n.NodeStatus...)
	}
	return v
}

// createAuthenticator answers that there is one, and can be no other.
func (a *api) createAuthenticator(_ http.ResponseWriter, r *httpx.Request) error {
	var mechanism, backend string
	if err := readBody(r, maxBody, fields{"mechanism": text(&mechanism), "backend": text(&backend)}.read); err != nil {
		return err
	}
	if mechanism+":"+backend == authenticatorID {
		return problemf(http.StatusConflict, alreadyExists, "%s is there already", authenticatorID)
	}
	return &broker.Error{Kind: broker.Invalid, Message: "the only authenticator is " + authenticatorID}
}
