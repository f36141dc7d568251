package flowmq

import (
	"net/http"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
	"millrace/router"
)

// question is the body of POST /access/explain.
type question struct {
	who, clientID string
	action        auth.Action
	about         []auth.Resource // one, if it was asked well
	asked         bool            // for an action
}

type resourceView struct {
	Topic  *string `json:"topic,omitempty"`
	Queue  *string `json:"queue,omitempty"`
	Stream *string `json:"stream,omitempty"`
}

type candidateView struct {
	Rule    string  `json:"rule"`
	Index   *int    `json:"index"`
	Place   string  `json:"place"`
	Effect  string  `json:"effect"`
	Matches string  `json:"matches"`
	Why     *string `json:"why"`
}

type explanationView struct {
	Allowed    bool            `json:"allowed"`
	Rule       string          `json:"rule"`
	Index      *int            `json:"index"`
	Place      string          `json:"place"`
	Overlap    bool            `json:"overlap"`
	Judged     resourceView    `json:"judged"`
	Candidates []candidateView `json:"candidates"`
	Omitted    int             `json:"omitted"`
}

// explain answers what somebody may do, and which rule says so.
func (a *api) explain(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.administer(r, auth.Manage); err != nil {
		return err
	}
	var q question
	if err := r.ReadJSON(httpx.MaxJSON, httpx.RefuseUnknown, false, q.read); err != nil {
		return err
	}
	if err := q.check(); err != nil {
		return err
	}
	p, err := a.broker.Auth().Identity(r.Context(), q.who, q.clientID)
	if err != nil {
		return httpx.AccountError(err, q.who)
	}
	e := a.broker.Auth().Explain(p, q.action, q.about[0])
	v := explanationView{
		Allowed: e.Allowed, Rule: e.Rule, Index: orNull(e.Index, -1), Place: e.Place, Overlap: e.Overlap,
		Candidates: []candidateView{}, Omitted: e.Omitted,
	}
	switch e.Meant.Kind {
	case auth.Queue:
		v.Judged.Queue = &e.Meant.Name
	case auth.Stream:
		v.Judged.Stream = &e.Meant.Name
	default:
		v.Judged.Topic = &e.Meant.Name
	}
	for _, c := range e.Candidates {
		v.Candidates = append(v.Candidates, candidateView{
			c.Rule, orNull(c.Index, -1), c.Place, either(c.Allows, "allow", "deny"), c.Matches, orNull(c.Why, ""),
		})
	}
	return answer(w, r, http.StatusOK, v)
}

func (q *question) read(d *httpx.Decoder) error {
	return d.Object(func(member []byte) (err error) {
		var name string
		switch string(member) {
		case "who":
			q.who, err = readText(d)
		case "client_id":
			q.clientID, err = readText(d)
		case "action":
			q.asked = true
			q.action, err = readAction(d)
		case "topic":
			name, err = readText(d)
			q.about = append(q.about, auth.TopicResource(name))
		case "queue":
			name, err = readText(d)
			q.about = append(q.about, auth.QueueResource(name))
		case "stream":
			name, err = readText(d)
			q.about = append(q.about, auth.StreamResource(name))
		default:
			err = d.Unknown()
		}
		return err
	})
}

func readAction(d *httpx.Decoder) (auth.Action, error) {
	s, err := d.String()
	if err != nil {
		return 0, err
	}
	for act := auth.Publish; act <= auth.Manage; act++ {
		if act.String() == s {
			return act, nil
		}
	}
	return 0, httpx.Problem("must be publish, subscribe, consume, view or manage")
}

// check refuses questions that no door would ask.
func (q *question) check() error {
	switch {
	case q.who == "":
		return httpx.FieldError("who", "is missing")
	case !q.asked:
		return httpx.FieldError("action", "is missing")
	case len(q.about) != 1:
		return &broker.Error{Kind: broker.Invalid, Message: "one of topic, queue and stream is needed, and only one"}
	}
	about := q.about[0]
	if about.Kind != auth.Topic {
		return nil
	}
	err := router.ValidFilter(about.Name)
	if q.action == auth.Publish {
		err = router.ValidTopic(about.Name)
	}
	switch {
	case err != nil:
		return &broker.Error{Kind: broker.Invalid, Subject: broker.TopicSubject, Message: "topic: " + err.Error()}
	case q.action == auth.Consume:
		return httpx.FieldError("action", "consume is about a queue or a stream, topics are subscribed to")
	}
	return nil
}
