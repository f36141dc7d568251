package emqx

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// peers are the nodes of a cluster as this dialect sees them. Every handler is
// written for one node. A request about another node, or about a client that is
// on one, goes there as it is and is answered by the dialect of that node alone;
// one about all nodes is answered by each, and their answers are put together
// (clusterlists.go, clustersums.go). Who may ask is decided where the request came in.
type peers struct {
	broker.Cluster
	alone http.Handler // the dialect of this node, as if there were no other
}

// askKind is what nodes ask each other.
const askKind = "emqx"

// askWait is how long a node may take to answer; one that has something to do
// for a client has kickWait besides.
const askWait = 500 * time.Millisecond

// partialHeader names the nodes that an answer lacks, because they did not answer.
const partialHeader = "Millrace-Partial"

// question is a request as a node asks it of another.
type question struct {
	Method string      `json:"method"`
	Path   string      `json:"path"` // escaped
	Query  string      `json:"query,omitempty"`
	Header http.Header `json:"header,omitempty"`
	Body   []byte      `json:"body,omitempty"`
}

// reply is the answer. It is the http.ResponseWriter of a request that came as a question.
type reply struct {
	Status int         `json:"status"`
	Head   http.Header `json:"header"`
	Body   []byte      `json:"body,omitempty"`
}

// Header implements http.ResponseWriter.
func (p *reply) Header() http.Header { return p.Head }

// WriteHeader implements http.ResponseWriter.
func (p *reply) WriteHeader(status int) { p.Status = status }

// Write implements http.ResponseWriter.
func (p *reply) Write(b []byte) (int, error) {
	p.Body = append(p.Body, b...)
	return len(b), nil
}

// send gives the reply to who sent the request.
func (p *reply) send(w http.ResponseWriter) error {
	maps.Copy(w.Header(), p.Head)
	w.WriteHeader(p.Status)
	if len(p.Body) > 0 {
		_, _ = w.Write(p.Body) // an error means that the client has gone
	}
	return nil
}

// join begins to ask the other nodes, and to answer them.
func (a *api) join(c broker.Cluster, s *httpx.Shared) {
	alone := *a
	p := &peers{c, httpx.NewMux(s, httpx.Dialect{
		Name: Door + "-nodes",
		Routes: slices.Concat(alone.clientRoutes(), alone.figureRoutes(), []httpx.Route{
			{Method: http.MethodGet, Path: exporterPath, Handler: alone.export},
			{Method: http.MethodGet, Path: authenticatorPath + "/:part", Handler: alone.authenticatorPart},
		}),
		Authenticate: func(*httpx.Request) (*auth.Principal, error) {
			return &auth.Principal{Kind: auth.System, Name: "node"}, nil
		},
		RenderError: renderError,
	})}
	c.Answer(askKind, func(ctx context.Context, _ string, body []byte) ([]byte, error) {
		var q question
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, &broker.Error{Kind: broker.Invalid, Message: "a node asked what this release does not understand", Err: err}
		}
		return httpx.AppendJSON(nil, p.answer(ctx, &q)), nil
	})
	a.peers = p
}

// answer has the dialect of this node answer a question.
func (p *peers) answer(ctx context.Context, q *question) (got *reply) {
	got = &reply{Head: http.Header{}}
	defer func() {
		if v := recover(); v == http.ErrAbortHandler { //nolint:errorlint,err113 // as net/http compares it
			got = &reply{Status: http.StatusInternalServerError, Head: http.Header{}}
		} else if v != nil {
			panic(v)
		}
	}()
	target := q.Path
	if q.Query != "" {
		target += "?" + q.Query
	}
	r, err := http.NewRequestWithContext(ctx, q.Method, target, bytes.NewReader(q.Body))
	if err != nil {
		got.Status = http.StatusBadRequest
		return got
	}
	maps.Copy(r.Header, q.Header)
	p.alone.ServeHTTP(got, r)
	return got
}

// ask has a node answer a question. Errors are those of broker.Cluster.
func (p *peers) ask(ctx context.Context, node string, q *question) (*reply, error) {
	if node == p.Self() {
		return p.answer(ctx, q), nil
	}
	wait := askWait
	if q.Method != http.MethodGet && q.Method != http.MethodHead {
		wait += kickWait
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	body, err := p.Ask(ctx, node, askKind, httpx.AppendJSON(nil, q))
	if err != nil {
		return nil, err
	}
	got := &reply{}
	return got, json.Unmarshal(body, got)
}

// members are the nodes by name, this one among them also while it is cut off.
func (p *peers) members() []broker.Node {
	all := p.Nodes()
	if at, here := slices.BinarySearchFunc(all, p.Self(), func(n broker.Node, name string) int { return strings.Compare(n.Name, name) }); !here {
		all = slices.Insert(all, at, broker.Node{Name: p.Self()})
	}
	return all
}

// answered is what one node answered; reply is nil if it did not.
type answered struct {
	broker.Node
	*reply
}

// askAll asks every node at once, and returns the answers by name of the node.
func (p *peers) askAll(ctx context.Context, q *question) []answered {
	var all []answered
	for _, n := range p.members() {
		all = append(all, answered{Node: n})
	}
	asked := make(chan struct{})
	for i := range all {
		go func() {
			if got, err := p.ask(ctx, all[i].Name, q); err == nil {
				all[i].reply = got
			}
			asked <- struct{}{}
		}()
	}
	for range all {
		<-asked
	}
	return all
}

// silent names those that did not answer.
func silent(all []answered) (names []string) {
	for _, n := range all {
		if n.reply == nil {
			names = append(names, n.Name)
		}
	}
	return names
}

// mark says in the answer whose part it lacks.
func mark(w http.ResponseWriter, missing []string) {
	if len(missing) > 0 {
		w.Header().Set(partialHeader, strings.Join(missing, ", "))
	}
}

// get is a question about something else than the request, for the same client.
func get(r *httpx.Request, path, query string) *question {
	return &question{Method: http.MethodGet, Path: path, Query: query, Header: http.Header{"X-Request-Id": {r.ID()}}}
}

// same is the request as a question.
func same(r *httpx.Request) (*question, error) {
	body, err := r.ReadBody(maxBody)
	if err != nil {
		return nil, err
	}
	q := get(r, r.URL.EscapedPath(), r.URL.RawQuery)
	q.Method, q.Body = r.Method, body
	if kind := r.Header.Get("Content-Type"); kind != "" {
		q.Header.Set("Content-Type", kind)
	}
	return q, nil
}

// forward has another node answer the request.
func (a *api) forward(w http.ResponseWriter, r *httpx.Request, node string) error {
	q, err := same(r)
	if err != nil {
		return err
	}
	got, err := a.peers.ask(r.Context(), node, q)
	if err != nil {
		return err
	}
	return got.send(w)
}

// isOther reports whether a name is that of another node that is there.
func (a *api) isOther(node string) bool {
	if a.peers == nil || node == a.options.Node {
		return false
	}
	return slices.ContainsFunc(a.peers.Nodes(), func(n broker.Node) bool { return n.Name == node })
}

// nodeNames are the names of all nodes.
func (a *api) nodeNames() []string {
	if a.peers == nil {
		return []string{a.options.Node}
	}
	var all []string
	for _, n := range a.peers.members() {
		all = append(all, n.Name)
	}
	return all
}

// names are the same, in words.
func (a *api) names() string { return strings.Join(a.nodeNames(), ", ") }

// onNode has a request answered by the node that its path names.
func (a *api) onNode(h httpx.Handler) httpx.Handler {
	return func(w http.ResponseWriter, r *httpx.Request) error {
		if node := r.Param("node"); a.isOther(node) {
			return a.forward(w, r, node)
		}
		return h(w, r)
	}
}

// onAll has a request answered by all, unless its query names a node: then by that
// one. A name that no node has is h's to answer, and so is all of it on a lone node.
func (a *api) onAll(h, all httpx.Handler) httpx.Handler {
	if a.peers == nil {
		return h
	}
	return func(w http.ResponseWriter, r *httpx.Request) error {
		node, err := r.Query("node")
		switch {
		case err != nil:
			return badQuery(err)
		case a.isOther(node):
			return a.forward(w, r, node)
		case node != "":
			return h(w, r)
		}
		return all(w, r)
	}
}

// everywhere has every node do what is asked, and answers as this one does, or as
// one that refused. A node that answers with the status absent does not have what
// it is about: no matter while another one has. 0 is that all have it.
func (a *api) everywhere(h httpx.Handler, absent int) httpx.Handler {
	if a.peers == nil {
		return h
	}
	return func(w http.ResponseWriter, r *httpx.Request) error {
		all, err := a.doAll(r)
		if err != nil {
			return err
		}
		have := slices.DeleteFunc(slices.Clone(all), func(n answered) bool { return n.Status == absent })
		if len(have) == 0 {
			have = all
		}
		return a.worst(have).send(w)
	}
}

// doAll has every node do what is asked. It is an error if one did not answer.
func (a *api) doAll(r *httpx.Request) ([]answered, error) {
	q, err := same(r)
	if err != nil {
		return nil, err
	}
	all := a.peers.askAll(r.Context(), q)
	if lost := silent(all); len(lost) > 0 {
		return nil, &broker.Error{Kind: broker.Unknown, Message: "done on the other nodes; it is unknown whether on " + strings.Join(lost, ", ") + ", which did not answer: ask again"}
	}
	return all, nil
}

// worst is the answer of a node that refused, else this node's own, else any.
func (a *api) worst(all []answered) (got *reply) {
	for _, n := range all {
		switch {
		case n.reply == nil:
		case n.Status >= http.StatusBadRequest:
			return n.reply
		case got == nil, n.Name == a.options.Node:
			got = n.reply
		}
	}
	return got
}

// onClient has a request answered by the node that the client of its path is on:
// where it is connected, else where its session is.
func (a *api) onClient(h httpx.Handler) httpx.Handler {
	if a.peers == nil {
		return h
	}
	return func(w http.ResponseWriter, r *httpx.Request) error {
		id := r.Param("clientid")
		c, here := a.clients.Get(id)
		if here && c.Facts.Connected {
			return h(w, r)
		}
		node, err := a.find(r, id)
		if err != nil {
			return err
		}
		if node == "" || node == a.options.Node {
			return h(w, r)
		}
		return a.forward(w, r, node)
	}
}

// find asks all nodes for a client. It is "" if none has it, and an error if none
// of those that answered has.
func (a *api) find(r *httpx.Request, id string) (node string, err error) {
	all := a.peers.askAll(r.Context(), get(r, Prefix+"/clients/"+url.PathEscape(id), ""))
	for _, n := range all {
		if n.reply == nil || n.Status != http.StatusOK {
			continue
		}
		var v struct {
			Connected bool `json:"connected"`
		}
		if err := json.Unmarshal(n.Body, &v); err != nil {
			return "", err
		}
		if v.Connected {
			return n.Name, nil
		}
		if node == "" || n.Name == a.options.Node {
			node = n.Name
		}
	}
	if lost := silent(all); node == "" && len(lost) > 0 {
		return "", &broker.Error{Kind: broker.Unavailable, Message: "the client is on no node that answered; " + strings.Join(lost, ", ") + " did not: ask again"}
	}
	return node, nil
}
