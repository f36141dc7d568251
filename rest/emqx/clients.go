package emqx

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/broker"
	"millrace/broker/clients"
	"millrace/rest/internal/httpx"
)

// readQuery reads what GET /clients is asked for.
func (a *api) readQuery(r *httpx.Request) (q clients.Query, err error) {
	if err := a.checkNode(r); err != nil {
		return q, err
	}
	if q.IDs, err = r.QueryAll("clientid"); err == nil {
		q.Usernames, err = r.QueryAll("username")
	}
	for name, v := range map[string]*string{"ip_address": &q.Host, "like_clientid": &q.LikeID, "like_username": &q.LikeUsername} {
		if err == nil {
			*v, err = r.Query(name)
		}
	}
	if err != nil {
		return q, badQuery(err)
	}
	for name, v := range map[string]*time.Time{
		"gte_created_at": &q.CreatedFrom, "lte_created_at": &q.CreatedUntil,
		"gte_connected_at": &q.ConnectFrom, "lte_connected_at": &q.ConnectedUntil,
	} {
		if err := queryTime(r, name, v); err != nil {
			return q, err
		}
	}
	if clean, asked, err := queryBool(r, "clean_start"); err != nil {
		return q, err
	} else if asked {
		q.CleanStart = &clean
	}
	version, err := r.QueryInt("proto_ver", 0, 3, 5)
	if err != nil {
		return q, badQuery(err)
	}
	q.Version = byte(version)
	return q, queryState(r, &q)
}

func queryTime(r *httpx.Request, name string, v *time.Time) error {
	s, err := r.Query(name)
	if err != nil || s == "" {
		return badQuery(err)
	}
	t, ok := readTime(s)
	if !ok {
		return problemf(http.StatusBadRequest, invalidParameter, "%s is %q, it must be a time as in 2030-01-31T12:00:00Z, or milliseconds", name, httpx.Clip(s))
	}
	*v = t
	return nil
}

// queryState reads conn_state. A client is never idle here: one that has not
// sent its CONNECT is no client yet.
func queryState(r *httpx.Request, q *clients.Query) error {
	s, err := r.Query("conn_state")
	if err != nil {
		return badQuery(err)
	}
	connected := s == "connected"
	switch s {
	case "":
		return nil
	case "idle":
		nobody := time.Unix(0, 1)
		q.CreatedUntil = nobody
		return nil
	case "connected", "disconnected":
		q.Connected = &connected
		return nil
	}
	return problemf(http.StatusBadRequest, invalidParameter, "conn_state is %q, it must be connected, idle or disconnected", httpx.Clip(s))
}

// checkNode refuses a question about a node that is not there.
func (a *api) checkNode(r *httpx.Request) error {
	node, err := r.Query("node")
	if err != nil {
		return badQuery(err)
	}
	if node != "" && node != a.options.Node {
		return problemf(http.StatusInternalServerError, badRPC, "there is no node %q, only %s", httpx.Clip(node), a.names())
	}
	return nil
}

func (a *api) listClients(w http.ResponseWriter, r *httpx.Request) error {
	q, err := a.readQuery(r)
	if err != nil {
		return err
	}
	p, err := readPage(r)
	if err != nil {
		return err
	}
	found := a.clients.List(&q, clients.Page{Skip: p.skip(), Limit: p.limit})
	return a.answerClients(w, r, found.Items, p.meta(found.Count, found.More))
}

// maxExamined bounds the clients that a page by cursor passes over.
const maxExamined = 10_000

// listClientsFrom is GET /clients_v2: pages by cursor, which stay right while
// clients come and go. A page costs the same whatever it is asked for: where few
// clients are wanted it may be short, or empty, and have a cursor all the same.
func (a *api) listClientsFrom(w http.ResponseWriter, r *httpx.Request) error {
	q, err := a.readQuery(r)
	if err != nil {
		return err
	}
	after, limit, err := readCursor(r)
	if err != nil {
		return err
	}
	found := a.clients.List(&q, clients.Page{After: after, Limit: limit, Examine: max(limit, maxExamined)})
	m := meta{HasNext: found.More}
	if found.Count >= 0 {
		m.Count = &found.Count
	}
	if found.More {
		m.Cursor = cursor(found.Next)
	}
	return a.answerClients(w, r, found.Items, m)
}

// answerClients writes clients, with the members that are asked for.
func (a *api) answerClients(w http.ResponseWriter, r *httpx.Request, found []*clients.Client, m meta) error {
	only, err := r.Query("fields")
	if err != nil {
		return badQuery(err)
	}
	views := make([]clientView, len(found))
	for i, c := range found {
		views[i] = a.viewClient(c)
	}
	if only == "" || only == "all" {
		return answer(w, r, list[clientView]{views, m})
	}
	names := strings.Split(only, ",")
	picked := make([]map[string]json.RawMessage, len(views))
	for i := range views {
		var all map[string]json.RawMessage
		if err := json.Unmarshal(httpx.AppendJSON(nil, views[i]), &all); err != nil {
			return err
		}
		picked[i] = map[string]json.RawMessage{}
		for _, name := range names {
			v, ok := all[strings.TrimSpace(name)]
			if !ok {
				return problemf(http.StatusBadRequest, invalidParameter, "fields: clients have no %q", httpx.Clip(name))
			}
			picked[i][strings.TrimSpace(name)] = v
		}
	}
	return answer(w, r, list[map[string]json.RawMessage]{picked, m})
}

// client finds the client of a path.
func (a *api) client(r *httpx.Request) (*clients.Client, error) {
	id := r.Param("clientid")
	c, ok := a.clients.Get(id)
	if !ok {
		return nil, missing(clientIDNotFound, "Client id not found")
	}
	return c, nil
}

// getClient answers a missing client as the page shows it; everything else
// about clients has a code of its own for that.
func (a *api) getClient(w http.ResponseWriter, r *httpx.Request) error {
	c, err := a.client(r)
	if err != nil {
		return missing(resourceNotFound, "Client id not found")
	}
	return answer(w, r, a.viewClient(c))
}

// kick ends the connection of a client and its session.
func (a *api) kick(w http.ResponseWriter, r *httpx.Request) error {
	c, err := a.client(r)
	if err != nil {
		return err
	}
	return a.kicked(w, r, c.Kick())
}

// kickWait is how long an answer waits for the end of what was kicked.
const kickWait = 10 * time.Second

// kicked answers when all has ended, so that who asks next finds it gone.
func (a *api) kicked(w http.ResponseWriter, r *httpx.Request, ends ...<-chan struct{}) error {
	ctx, cancel := context.WithTimeout(r.Context(), kickWait)
	defer cancel()
	for _, done := range ends {
		select {
		case <-done:
		case <-ctx.Done():
			return problemf(http.StatusInternalServerError, clientNotResponse, "the end of a connection takes long; it was told to end")
		}
	}
	return httpx.WriteNothing(w)
}

// clientAction serves POST /clients/:clientid/:action. /clients/kickout/bulk
// looks like an action of a client "kickout".
func (a *api) clientAction(w http.ResponseWriter, r *httpx.Request) error {
	switch id, action := r.Param("clientid"), r.Param("action"); {
	case id == "kickout" && action == "bulk":
		return a.everywhere(a.kickMany, 0)(w, r)
	case action == "subscribe":
		return a.onClient(a.subscribe)(w, r)
	case action == "unsubscribe":
		return a.onClient(a.unsubscribe)(w, r)
	}
	return httpx.ErrNoRoute
}

// clientActions serves POST /clients/:clientid/:action/bulk.
func (a *api) clientActions(w http.ResponseWriter, r *httpx.Request) error {
	switch action := r.Param("action"); {
	case r.Param("sub") != "bulk":
	case action == "subscribe":
		return a.subscribeMany(w, r)
	case action == "unsubscribe":
		return a.unsubscribeMany(w, r)
	}
	return httpx.ErrNoRoute
}

// kickMany ends all clients of a list; those that are not there are passed over.
func (a *api) kickMany(w http.ResponseWriter, r *httpx.Request) error {
	var ids []string
	if err := readBody(r, maxBody, texts(&ids)); err != nil {
		return err
	}
	var ends []<-chan struct{}
	for _, id := range ids {
		if c, ok := a.clients.Get(id); ok {
			ends = append(ends, c.Kick())
		}
	}
	return a.kicked(w, r, ends...)
}

// setKeepAlive changes the keep alive of a connection.
func (a *api) setKeepAlive(w http.ResponseWriter, r *httpx.Request) error {
	c, err := a.client(r)
	if err != nil {
		return err
	}
	interval := -1
	switch err := readBody(r, maxBody, fields{"interval": whole(&interval, 0, 65_535)}.read); {
	case err != nil:
		return err
	case interval < 0:
		return bad("interval is needed: 0 to 65535 seconds")
	}
	if err := c.SetKeepAlive(uint16(interval)); err != nil {
		return offline(err)
	}
	return answer(w, r, a.viewClient(c))
}

// offline words that a client has no connection that could answer.
func offline(err error) error {
	if errors.Is(err, clients.ErrOffline) {
		return missing(clientNotFound, "the client is not connected")
	}
	return err
}

// clientPart serves GET /clients/:clientid/:part.
func (a *api) clientPart(w http.ResponseWriter, r *httpx.Request) error {
	c, err := a.client(r)
	if err != nil {
		return err
	}
	switch r.Param("part") {
	case "subscriptions":
		views := []subscriptionView{}
		for _, s := range c.Subscriptions() {
			views = append(views, a.viewSubscription(&s))
		}
		return answer(w, r, views)
	case "mqueue_messages":
		return a.listHeld(w, r, c.Waiting)
	case "inflight_messages":
		return a.listHeld(w, r, c.Inflight)
	}
	return httpx.ErrNoRoute
}

// authorizationCache answers that there is none: every decision comes from memory.
func (a *api) authorizationCache(w http.ResponseWriter, r *httpx.Request) error {
	if r.Param("part") != "authorization" || r.Param("sub") != "cache" {
		return httpx.ErrNoRoute
	}
	if _, err := a.client(r); err != nil {
		return err
	}
	if r.Method == http.MethodDelete {
		return httpx.WriteNothing(w)
	}
	return answer(w, r, []struct{}{})
}

// sessionsCount is the number of sessions that are connected, or were since a time.
func (a *api) sessionsCount(w http.ResponseWriter, r *httpx.Request) error {
	since := time.Now()
	s, err := r.Query("since")
	if err != nil {
		return badQuery(err)
	}
	if s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return problemf(http.StatusBadRequest, invalidParameter, "since is %q, it must be Unix time in seconds", httpx.Clip(s))
		}
		if since = time.Unix(n, 0); n == 0 {
			since = time.Time{}
		}
	}
	return httpx.WriteText(w, r, "text/plain; charset=utf-8", strconv.AppendInt(nil, int64(a.clients.Since(since)), 10))
}

// The limits of a list of messages that a session holds.
const (
	defaultHeldPayload = 1 << 20
	maxHeldPayload     = 100 << 20
)

// heldView is such a message.
type heldView struct {
	messageView
	InsertedAt *string `json:"inserted_at"`
}

type heldMeta struct {
	Start    string `json:"start"`
	Position string `json:"position"`
}

// listHeld answers a part of the messages that wait or are in flight. Payloads
// of up to max_payload_bytes come along, and at least one.
func (a *api) listHeld(w http.ResponseWriter, r *httpx.Request, read func(uint64, int) []clients.Held) error {
	limit, err := r.QueryInt("limit", defaultLimit, 1, maxLimit)
	if err != nil {
		return badQuery(err)
	}
	most, err := r.QueryInt("max_payload_bytes", defaultHeldPayload, 1, maxHeldPayload)
	if err != nil {
		return badQuery(err)
	}
	form, err := r.Query("payload")
	switch {
	case err != nil:
		return badQuery(err)
	case form == "":
		form = "base64"
	case !slices.Contains([]string{"none", "base64", "plain"}, form):
		return problemf(http.StatusBadRequest, invalidParameter, "payload is %q, it must be none, base64 or plain", httpx.Clip(form))
	}
	after, err := readPosition(r)
	if err != nil {
		return err
	}
	held := read(after, limit)
	if form != "none" {
		held = cutHeld(held, most)
	}
	out := struct {
		Data []heldView `json:"data"`
		Meta heldMeta   `json:"meta"`
	}{[]heldView{}, heldMeta{"none", "none"}}
	for i := range held {
		out.Data = append(out.Data, viewHeld(&held[i], form))
	}
	if n := len(held); n > 0 {
		out.Meta = heldMeta{strconv.FormatUint(held[0].Position, 10), strconv.FormatUint(held[n-1].Position, 10)}
	}
	return answer(w, r, out)
}

// readPosition reads where a list goes on.
func readPosition(r *httpx.Request) (uint64, error) {
	s, err := r.Query("position")
	if err != nil || s == "" || s == "none" {
		return 0, badQuery(err)
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, problemf(http.StatusBadRequest, invalidParameter, "position is %q, it must be one of an answer here, or none", httpx.Clip(s))
	}
	return n, nil
}

// cutHeld leaves what fits into most bytes of payload, and at least one message.
func cutHeld(held []clients.Held, most int) []clients.Held {
	for i := range held {
		if most -= len(held[i].Message.Payload); most < 0 && i > 0 {
			return held[:i]
		}
	}
	return held
}

func viewHeld(h *clients.Held, form string) heldView {
	v := heldView{viewMessage(h.Message), timestamp(broker.Time(h.Message.Published))}
	v.QoS = h.QoS
	switch form {
	case "base64":
		v.Payload = encoded(h.Message.Payload)
	case "plain":
		s := strings.ToValidUTF8(string(h.Message.Payload), "\uFFFD")
		v.Payload = &s
	}
	return v
}
