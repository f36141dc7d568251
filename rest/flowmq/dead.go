package flowmq

import (
	"math"
	"net/http"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// listDead shows the parked messages of a queue: those whose attempts are used
// up and which no dead-letter topic took.
func (a *api) listDead(w http.ResponseWriter, r *httpx.Request) error {
	page, err := httpx.ReadPage(r)
	if err != nil {
		return err
	}
	ds, err := a.broker.Browse(r.Context(), r.Param("queue"), broker.Dead, page.Offset, min(page.Limit, maxPeek))
	if err != nil {
		return err
	}
	return answerShown(w, r, ds)
}

// redrive gives parked messages back to their queue, or publishes them to a topic.
func (a *api) redrive(w http.ResponseWriter, r *httpx.Request) error {
	return a.moveFrom(w, r, broker.Dead)
}

// move publishes waiting messages to a topic, or gives dead letters back to the
// queues they came from.
func (a *api) move(w http.ResponseWriter, r *httpx.Request) error {
	return a.moveFrom(w, r, broker.Ready|broker.Delayed)
}

func (a *api) moveFrom(w http.ResponseWriter, r *httpx.Request, states broker.EntryState) error {
	o := broker.Move{States: states}
	err := r.ReadJSON(httpx.MaxJSON, httpx.RefuseUnknown, true, func(d *httpx.Decoder) error { return readMove(d, &o) })
	if err != nil {
		return err
	}
	m, err := a.broker.Move(r.Context(), r.Param("queue"), o)
	if err != nil {
		return err
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, struct {
		Matched int `json:"matched"`
		Moved   int `json:"moved"`
	}{m.Matched, m.Moved})
}

func readMove(d *httpx.Decoder, o *broker.Move) error {
	return d.Object(func(name []byte) (err error) {
		var n int64
		switch string(name) {
		case "to":
			o.To, err = orNone(d, "", d.String)
		case "topic_filter":
			o.Filter, err = orNone(d, "", d.String)
		case "limit":
			n, err = orNone(d, 0, func() (int64, error) { return readWhole(d, 1, math.MaxInt32) })
			o.Limit = int(n)
		case "rate":
			n, err = orNone(d, 0, func() (int64, error) { return readWhole(d, 1, math.MaxInt32) })
			o.Rate = float64(n)
		case "dry_run":
			o.DryRun, err = d.Bool()
		default:
			err = d.Unknown()
		}
		return err
	})
}

// pause stops the handing out of a queue; what is published still goes in.
func (a *api) pause(w http.ResponseWriter, r *httpx.Request) error { return a.setPaused(w, r, true) }

// resume undoes pause.
func (a *api) resume(w http.ResponseWriter, r *httpx.Request) error { return a.setPaused(w, r, false) }

func (a *api) setPaused(w http.ResponseWriter, r *httpx.Request, paused bool) error {
	if err := noBody(r); err != nil {
		return err
	}
	q, err := a.broker.UpdateQueue(r.Context(), r.Param("queue"), func(c *broker.QueueConfig) error {
		c.Paused = paused
		return nil
	})
	if err != nil {
		return err
	}
	httpx.SetDurability(w, q.Durability)
	return answer(w, r, http.StatusOK, viewQueue(&q))
}
