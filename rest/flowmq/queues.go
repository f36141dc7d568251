package flowmq

import (
	"net/http"
	"strconv"
	"strings"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

func (a *api) createQueue(w http.ResponseWriter, r *httpx.Request) error {
	text, err := r.ReadBody(httpx.MaxJSON)
	if err != nil {
		return err
	}
	c, err := DecodeQueue(text)
	if err != nil {
		return err
	}
	q, err := a.broker.CreateQueue(r.Context(), c)
	if err != nil {
		return err
	}
	httpx.SetDurability(w, q.Durability)
	httpx.SetETag(w, q.QueueConfig)
	return answer(w, r, http.StatusCreated, viewQueue(&q))
}

// DecodeQueue reads the body of POST /queues, which is also an entry of a
// bootstrap file.
func DecodeQueue(text []byte) (broker.QueueConfig, error) {
	// The defaults depend on the name and the filter, so these are read first.
	var given broker.QueueConfig
	if err := readQueue(text, &given, true); err != nil {
		return given, err
	}
	switch {
	case given.Name == "":
		return given, httpx.FieldError("name", "is missing")
	case given.Filter == "":
		return given, httpx.FieldError("topic_filter", "is missing")
	}
	c := broker.NewQueueConfig(given.Name, given.Filter)
	return c, readQueue(text, &c, true)
}

func (a *api) listQueues(w http.ResponseWriter, r *httpx.Request) error {
	page, err := httpx.ReadPage(r)
	if err != nil {
		return err
	}
	all, err := a.broker.Queues(r.Context())
	if err != nil {
		return err
	}
	views := []queueView{}
	for _, q := range httpx.PageOf(all, page) {
		views = append(views, viewQueue(&q))
	}
	return answer(w, r, http.StatusOK, struct {
		Queues []queueView `json:"queues"`
		Total  int         `json:"total"`
		Limit  int         `json:"limit"`
		Offset int         `json:"offset"`
	}{views, len(all), page.Limit, page.Offset})
}

func (a *api) getQueue(w http.ResponseWriter, r *httpx.Request) error {
	q, err := a.broker.Queue(r.Context(), r.Param("queue"))
	if err != nil {
		return err
	}
	httpx.SetETag(w, q.QueueConfig)
	return answer(w, r, http.StatusOK, viewQueue(&q))
}

func (a *api) changeQueue(w http.ResponseWriter, r *httpx.Request) error {
	text, err := r.ReadBody(httpx.MaxJSON)
	if err != nil {
		return err
	}
	var scratch broker.QueueConfig // a bad body is told before a missing queue
	if err := readQueue(text, &scratch, false); err != nil {
		return err
	}
	q, err := a.broker.UpdateQueue(r.Context(), r.Param("queue"), func(c *broker.QueueConfig) error {
		if err := r.Precondition(*c); err != nil {
			return err
		}
		return readQueue(text, c, false)
	})
	if err != nil {
		return err
	}
	httpx.SetDurability(w, q.Durability)
	httpx.SetETag(w, q.QueueConfig)
	return answer(w, r, http.StatusOK, viewQueue(&q))
}

type deletedView struct {
	Name    string `json:"name"`
	Deleted bool   `json:"deleted"`
}

func (a *api) deleteQueue(w http.ResponseWriter, r *httpx.Request) error {
	name := r.Param("queue")
	if err := a.broker.DeleteQueue(r.Context(), name); err != nil {
		return err
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, deletedView{name, true})
}

// purge removes what is ready and delayed, with ?all=true everything.
func (a *api) purge(w http.ResponseWriter, r *httpx.Request) error {
	s, err := r.Query("all")
	if err != nil {
		return err
	}
	all := false
	if s != "" {
		if all, err = strconv.ParseBool(s); err != nil {
			return httpx.FieldError("all", "is %q, it must be true or false", s)
		}
	}
	if err := noBody(r); err != nil {
		return err
	}
	n, err := a.broker.Purge(r.Context(), r.Param("queue"), all)
	if err != nil {
		return err
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, struct {
		Purged int `json:"purged"`
	}{n})
}

// noBody takes an empty body or {}, so that a setting sent to a call that has
// none is not taken for obeyed.
func noBody(r *httpx.Request) error {
	return r.ReadJSON(httpx.MaxJSON, httpx.RefuseUnknown, true, func(d *httpx.Decoder) error {
		return d.Object(func([]byte) error { return d.Unknown() })
	})
}

// maxPeek bounds what is shown at once: payloads come along.
const maxPeek = 100

// peek shows messages without leasing them or counting an attempt.
func (a *api) peek(w http.ResponseWriter, r *httpx.Request) error {
	limit, err := r.QueryInt("limit", 10, 1, maxPeek)
	if err != nil {
		return err
	}
	offset, err := r.QueryInt("offset", 0, 0, 1<<31-1)
	if err != nil {
		return err
	}
	states, err := readStates(r)
	if err != nil {
		return err
	}
	from, err := a.source(r)
	if err != nil {
		return err
	}
	ds, err := from.Browse(r.Context(), states, offset, limit)
	if err != nil {
		return err
	}
	return answerShown(w, r, ds)
}

// answerShown answers messages that are shown and not leased.
func answerShown(w http.ResponseWriter, r *httpx.Request, ds []broker.Delivery) error {
	body := append(r.Buffer(), envelopeHead+`{"messages":[`...)
	for i := range ds {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendDelivery(body, &ds[i], ofStream(r), "")
	}
	body = appendInt(append(body, `],"count":`...), len(ds))
	return httpx.WriteJSON(w, r, http.StatusOK, append(append(body, '}'), envelopeTail...))
}

// readStates reads ?state=ready,delayed; ready alone is the default.
func readStates(r *httpx.Request) (states broker.EntryState, err error) {
	list, err := r.Query("state")
	if err != nil {
		return 0, err
	}
	if list == "" {
		return broker.Ready, nil
	}
	for s := range strings.SplitSeq(list, ",") {
		state := stateNamed(s)
		if state == 0 {
			return 0, httpx.FieldError("state", "is %q, it must be a list of ready, delayed, leased and dead", s)
		}
		states |= state
	}
	return states, nil
}

func stateNamed(name string) broker.EntryState {
	for s, n := range stateNames {
		if n == name {
			return s
		}
	}
	return 0
}
