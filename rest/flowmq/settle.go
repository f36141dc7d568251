package flowmq

import (
	"net/http"
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// source is what the path names: a queue, or a subscription on a stream.
func (a *api) source(r *httpx.Request) (broker.Source, error) {
	if ofStream(r) {
		return a.broker.FromSubscription(r.Context(), r.Param("stream"), r.Param("subscription"))
	}
	return a.broker.FromQueue(r.Context(), r.Param("queue"))
}

// ofStream reports whether the path names a stream, and not a queue.
func ofStream(r *httpx.Request) bool { return r.Param("stream") != "" }

// receipt is the body of ack, nack and extend.
type receipt struct {
	handle string
	delay  time.Duration // of nack
	lease  time.Duration // of extend
}

// readReceipt reads receipt_handle and, by its name, what else the call takes.
func readReceipt(r *httpx.Request, extra string) (receipt, error) {
	rec := receipt{delay: broker.Backoff, lease: broker.DefaultLease}
	err := r.ReadJSON(httpx.MaxJSON, httpx.RefuseUnknown, false, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) (err error) {
			switch s := string(name); {
			case s == "receipt_handle":
				rec.handle, err = d.String()
			case s != extra:
				err = d.Unknown()
			case s == "delay_seconds":
				rec.delay, err = readSeconds(d)
			default:
				rec.lease, err = readSeconds(d)
			}
			return err
		})
	})
	if err == nil && rec.handle == "" {
		err = httpx.FieldError("receipt_handle", "is missing")
	}
	return rec, err
}

func (a *api) ack(w http.ResponseWriter, r *httpx.Request) error {
	rec, err := readReceipt(r, "")
	if err != nil {
		return err
	}
	from, err := a.source(r)
	if err != nil {
		return err
	}
	state, err := from.Ack(r.Context(), parseID(r.Param("message")), rec.handle)
	if err != nil {
		return err
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, ackView{r.Param("message"), state})
}

type ackView struct {
	MessageID string          `json:"message_id"`
	State     broker.AckState `json:"state"`
}

func (a *api) nack(w http.ResponseWriter, r *httpx.Request) error {
	rec, err := readReceipt(r, "delay_seconds")
	if err != nil {
		return err
	}
	from, err := a.source(r)
	if err != nil {
		return err
	}
	delay, err := from.Nack(r.Context(), parseID(r.Param("message")), rec.handle, rec.delay)
	if err != nil {
		return err
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, struct {
		MessageID    string  `json:"message_id"`
		DelaySeconds float64 `json:"delay_seconds"`
	}{r.Param("message"), delay.Seconds()})
}

func (a *api) extend(w http.ResponseWriter, r *httpx.Request) error {
	rec, err := readReceipt(r, "visibility_timeout_seconds")
	if err != nil {
		return err
	}
	if rec.lease == broker.DefaultLease {
		return httpx.FieldError("visibility_timeout_seconds", "is missing")
	}
	from, err := a.source(r)
	if err != nil {
		return err
	}
	until, err := from.Extend(r.Context(), parseID(r.Param("message")), rec.handle, rec.lease)
	if err != nil {
		return err
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, struct {
		MessageID    string `json:"message_id"`
		VisibleUntil string `json:"visible_until"`
	}{r.Param("message"), timestamp(until)})
}

// setDurability says what the answer about the queue in the path means.
func (a *api) setDurability(w http.ResponseWriter, r *httpx.Request) {
	httpx.SetDurability(w, a.broker.Durability(r.Param("queue")))
}

// ackMany acks a batch; each entry has a result of its own.
func (a *api) ackMany(w http.ResponseWriter, r *httpx.Request) error {
	text, err := r.ReadBody(httpx.MaxBatch)
	if err != nil {
		return err
	}
	ids, settlements, err := readAcks(text)
	if err != nil {
		return err
	}
	from, err := a.source(r)
	if err != nil {
		return err
	}
	results, err := from.AckBatch(r.Context(), settlements)
	if err != nil {
		return err
	}
	body := append(r.Buffer(), envelopeHead+`{"results":[`...)
	for i := range results {
		if i > 0 {
			body = append(body, ',')
		}
		body = httpx.AppendString(append(body, `{"message_id":`...), ids[i])
		if results[i].Err != nil {
			_, p := classify(results[i].Err)
			body = append(httpx.AppendJSON(append(body, `,"error":`...), p), '}')
			continue
		}
		body = append(append(append(body, `,"state":"`...), results[i].State...), '"', '}')
	}
	a.setDurability(w, r)
	return httpx.WriteJSON(w, r, http.StatusOK, append(append(body, ']', '}'), envelopeTail...))
}

// readAcks reads {"messages": [{message_id, receipt_handle}]}.
func readAcks(text []byte) (ids []string, ss []broker.Settlement, err error) {
	err = readEntries(text, func(d *httpx.Decoder) error {
		var id string
		var s broker.Settlement
		err := d.Object(func(name []byte) (err error) {
			switch string(name) {
			case "message_id":
				id, err = d.String()
			case "receipt_handle":
				s.Receipt, err = d.String()
			default:
				err = d.Unknown()
			}
			return err
		})
		switch {
		case err != nil:
			return err
		case id == "":
			return httpx.FieldError("message_id", "is missing")
		case s.Receipt == "":
			return httpx.FieldError("receipt_handle", "is missing")
		}
		s.ID = parseID(id)
		ids, ss = append(ids, id), append(ss, s)
		return nil
	})
	return ids, ss, err
}
