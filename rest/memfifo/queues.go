package memfifo

import (
	"net/http"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

func (a *api) createQueue(w http.ResponseWriter, r *httpx.Request) error {
	text, err := readBody(r)
	if err != nil {
		return err
	}
	d := definition{attributes: defaults}
	if err := d.read(text); err != nil {
		return err
	}
	switch {
	case d.name == "":
		return httpx.FieldError("name", "is missing")
	case d.driver == "":
		return httpx.FieldError("driver", "is missing")
	}
	q, err := a.broker.CreateQueue(r.Context(), d.config())
	if err != nil {
		return err
	}
	httpx.SetDurability(w, q.Durability)
	return answerQueue(w, r, &q)
}

// readBody reads a definition, which has to say that it is JSON.
func readBody(r *httpx.Request) ([]byte, error) {
	if !r.IsJSON() {
		return nil, &broker.Error{Kind: broker.Invalid, Message: "the Content-Type must be application/json"}
	}
	return r.ReadBody(httpx.MaxJSON)
}

// listQueues leaves out what was made through other doors.
func (a *api) listQueues(w http.ResponseWriter, r *httpx.Request) error {
	all, err := a.broker.Queues(r.Context())
	if err != nil {
		return err
	}
	body := append(r.Buffer(), '[')
	for i := range all {
		if all[i].Maker != maker {
			continue
		}
		if len(body) > 1 {
			body = append(body, ',')
		}
		body = appendQueue(body, &all[i])
	}
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, ']'))
}

func (a *api) getQueue(w http.ResponseWriter, r *httpx.Request) error {
	q, err := a.broker.Queue(r.Context(), r.Param("queue"))
	if err != nil {
		return err
	}
	if err := ours(&q.QueueConfig); err != nil {
		return err
	}
	return answerQueue(w, r, &q)
}

// ours answers for queues that were made through other doors as for those that
// do not exist.
func ours(c *broker.QueueConfig) error {
	if c.Maker == maker {
		return nil
	}
	return &broker.Error{Kind: broker.NotFound, Subject: broker.QueueSubject, Message: `queue "` + c.Name + `" does not exist; create it first`}
}

// our returns the settings of a queue of ours that the caller may do act to.
func (a *api) our(r *httpx.Request, act auth.Action) (broker.QueueConfig, error) {
	c, err := a.broker.Settings(r.Context(), act, r.Param("queue"))
	if err != nil {
		return c, err
	}
	return c, ours(&c)
}

// replaceAttributes gives those that are left out their defaults; changeAttributes keeps them.
func (a *api) replaceAttributes(w http.ResponseWriter, r *httpx.Request) error {
	return a.update(w, r, func(*broker.QueueConfig) attributes { return defaults })
}

func (a *api) changeAttributes(w http.ResponseWriter, r *httpx.Request) error {
	return a.update(w, r, attributesOf)
}

func (a *api) update(w http.ResponseWriter, r *httpx.Request, from func(*broker.QueueConfig) attributes) error {
	text, err := readBody(r)
	if err != nil {
		return err
	}
	var scratch definition // a bad body is told before a missing queue
	if err := scratch.read(text); err != nil {
		return err
	}
	q, err := a.broker.UpdateQueue(r.Context(), r.Param("queue"), func(c *broker.QueueConfig) error {
		if err := ours(c); err != nil {
			return err
		}
		d := definition{attributes: from(c)}
		if err := d.read(text); err != nil {
			return err
		}
		return d.change(c)
	})
	if err != nil {
		return err
	}
	httpx.SetDurability(w, q.Durability)
	return answerQueue(w, r, &q)
}

func (a *api) deleteQueue(w http.ResponseWriter, r *httpx.Request) error {
	c, err := a.our(r, auth.Manage)
	if err != nil {
		return err
	}
	if err := a.broker.DeleteQueue(r.Context(), c.Name); err != nil {
		return err
	}
	httpx.SetDurability(w, a.durability(&c))
	return httpx.WriteJSON(w, r, http.StatusOK, append(r.Buffer(), '{', '}'))
}
