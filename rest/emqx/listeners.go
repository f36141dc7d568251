package emqx

import (
	"net/http"
	"slices"

	"millrace/rest/internal/httpx"
)

// Listener is one address at which MQTT is served.
type Listener struct {
	ID          string // TYPE:NAME
	Type        string // tcp, ssl, ws, wss
	Name        string
	Bind        string
	Running     bool
	Connections int
	MaxAccepted int // connections at once; 0 = no limit
}

// Listeners are what the MQTT edge listens on.
type Listeners interface {
	Listeners() []Listener
	// StartListener opens one that was stopped.
	StartListener(id string) error
	// StopListener closes one; its connections go on.
	StopListener(id string) error
}

type listenerView struct {
	ID         string               `json:"id"`
	Type       string               `json:"type"`
	Name       string               `json:"name"`
	Enable     bool                 `json:"enable"`
	Bind       string               `json:"bind"`
	Number     int                  `json:"number"`
	Status     listenerStatus       `json:"status"`
	NodeStatus []listenerNodeStatus `json:"node_status"`
}

type listenerStatus struct {
	Running     any `json:"running"` // a bool, or inconsistent where nodes differ
	Connections int `json:"current_connections"`
	Max         any `json:"max_connections"` // a number, or infinity
}

const inconsistent = "inconsistent"

// add adds the status of another listener.
func (s *listenerStatus) add(o *listenerStatus) {
	if s.Running != o.Running {
		s.Running = inconsistent
	}
	s.Connections += o.Connections
	mine, limited := s.Max.(float64)
	other, also := o.Max.(float64)
	if s.Max = infinity; limited && also {
		s.Max = mine + other
	}
}

type listenerNodeStatus struct {
	Node   string         `json:"node"`
	Status listenerStatus `json:"status"`
}

func (a *api) viewListener(l *Listener) listenerView {
	s := listenerStatus{l.Running, l.Connections, orInfinity(int64(l.MaxAccepted), 0)}
	return listenerView{l.ID, l.Type, l.Name, l.Running, l.Bind, 1, s, []listenerNodeStatus{{a.options.Node, s}}}
}

func (v listenerView) key() string { return v.ID }

// sumListeners puts together what nodes have under one id.
func sumListeners(nodes []listenerView) listenerView {
	v := nodes[0]
	for _, n := range nodes[1:] {
		v.Enable = v.Enable || n.Enable
		v.Number += n.Number
		v.Status.add(&n.Status)
		v.NodeStatus = append(v.NodeStatus, n.NodeStatus...)
	}
	return v
}

func (a *api) allListeners() []Listener {
	if a.options.Listeners == nil {
		return nil
	}
	return a.options.Listeners.Listeners()
}

func (a *api) listListeners(w http.ResponseWriter, r *httpx.Request) error {
	kind, err := r.Query("type")
	if err != nil {
		return badQuery(err)
	}
	views := []listenerView{}
	for _, l := range a.allListeners() {
		if kind == "" || kind == l.Type {
			views = append(views, a.viewListener(&l))
		}
	}
	return answer(w, r, views)
}

// listener finds the listener of a path.
func (a *api) listener(r *httpx.Request) (Listener, error) {
	id := r.Param("id")
	for _, l := range a.allListeners() {
		if l.ID == id {
			return l, nil
		}
	}
	return Listener{}, missing(badListenerID, "there is no listener %q", httpx.Clip(id))
}

func (a *api) getListener(w http.ResponseWriter, r *httpx.Request) error {
	l, err := a.listener(r)
	if err != nil {
		return err
	}
	return answer(w, r, a.viewListener(&l))
}

// operateListener starts, stops or restarts a listener. Connections that are
// open stay.
func (a *api) operateListener(w http.ResponseWriter, r *httpx.Request) error {
	l, err := a.listener(r)
	if err != nil {
		return err
	}
	switch r.Param("operation") {
	case "start":
		if !l.Running {
			err = a.options.Listeners.StartListener(l.ID)
		}
	case "stop":
		if l.Running {
			err = a.options.Listeners.StopListener(l.ID)
		}
	case "restart":
		if l.Running {
			err = a.options.Listeners.StopListener(l.ID)
		}
		if err == nil {
			err = a.options.Listeners.StartListener(l.ID)
		}
	default:
		return httpx.ErrNoRoute
	}
	if err != nil {
		return problemf(http.StatusBadRequest, updateFailed, "the listener did not %s: %v", r.Param("operation"), err)
	}
	return httpx.WriteNothing(w)
}

// typeView is what listeners of one type do together.
type typeView struct {
	Type   string         `json:"type"`
	Enable bool           `json:"enable"`
	IDs    []string       `json:"ids"`
	Status listenerStatus `json:"status"`
}

// add adds the listeners of another node.
func (v *typeView) add(o *typeView) {
	for _, id := range o.IDs {
		if !slices.Contains(v.IDs, id) {
			v.IDs = append(v.IDs, id)
		}
	}
	v.Enable = v.Enable || o.Enable
	v.Status.Running = v.Enable
	v.Status.Connections += o.Status.Connections
}

func sumTypes(nodes []typeView) typeView {
	v := typeView{Type: nodes[0].Type, Status: listenerStatus{Max: infinity}}
	for i := range nodes {
		v.add(&nodes[i])
	}
	return v
}

func (v typeView) key() string { return v.Type }

func (a *api) listenersStatus(w http.ResponseWriter, r *httpx.Request) error {
	each := []typeView{}
	for _, l := range a.allListeners() {
		each = append(each, typeView{l.Type, l.Running, []string{l.ID}, listenerStatus{l.Running, l.Connections, infinity}})
	}
	return answer(w, r, merged(sumTypes)([][]typeView{each}))
}
