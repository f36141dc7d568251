package fastqueue

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// send stores a message in one queue, past all filters.
func (a *api) send(w http.ResponseWriter, r *httpx.Request, c *call) error {
	if err := c.checkMessage(); err != nil {
		return err
	}
	key, err := r.IdempotencyKey()
	if err != nil {
		return err
	}
	m := c.message(r, key, a.broker.Now())
	ps, err := a.broker.Send(r.Context(), r.Param("queue"), &m)
	if err != nil {
		return err
	}
	httpx.SetDurability(w, ps[0].Durability)
	body := appendID(append(r.Buffer(), `{"MessageId":`...), ps[0].ID)
	body = appendMD5(append(body, `,"status":"sent","MD5OfMessageBody":`...), c.body)
	if ps[0].Duplicate {
		body = append(body, `,"duplicate":true`...)
	}
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, '}'))
}

// message makes the message of a call or of an entry of a batch, which is sent now.
func (m *outgoing) message(r *httpx.Request, key string, now time.Time) broker.Message {
	out := broker.Message{
		Payload: m.body, Properties: m.attributes, QoS: 1, UTF8: true,
		ContentType: "text/plain", Publisher: auth.From(r.Context()).Name, DedupKey: key,
	}
	if m.delay > 0 {
		out.NotBefore = now.Add(m.delay).UnixMilli()
	}
	return out
}

// sendMany stores all entries or none, so that none of them can fail alone.
func (a *api) sendMany(w http.ResponseWriter, r *httpx.Request, c *call) error {
	if err := c.checkEntries(func(e *entry) error { return e.checkMessage() }); err != nil {
		return err
	}
	key, err := r.IdempotencyKey()
	if err != nil {
		return err
	}
	// In one piece: no subscriber keeps a part of what is sent to a queue alone.
	all, ms := make([]broker.Message, len(c.entries)), make([]*broker.Message, len(c.entries))
	entryKey, now := httpx.EntryKeys(key), a.broker.Now()
	for i := range c.entries {
		all[i] = c.entries[i].message(r, entryKey(i), now)
		ms[i] = &all[i]
	}
	ps, err := a.broker.Send(r.Context(), r.Param("queue"), ms...)
	if err != nil {
		return err
	}
	body := append(r.Buffer(), `{"Successful":[`...)
	for i := range ps {
		if i > 0 {
			body = append(body, ',')
		}
		body = httpx.AppendString(append(body, `{"Id":`...), c.entries[i].id)
		body = appendID(append(body, `,"MessageId":`...), ps[i].ID)
		body = appendMD5(append(body, `,"MD5OfMessageBody":`...), c.entries[i].body)
		if ps[i].Duplicate {
			body = append(body, `,"duplicate":true`...)
		}
		body = append(body, '}')
	}
	a.setQueueDurability(w, r)
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, `],"Failed":[]}`...))
}

// receive leases messages. Who waits is answered when the first one is there.
func (a *api) receive(w http.ResponseWriter, r *httpx.Request, c *call) error {
	ctx := r.Context()
	if c.wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = r.Poll()
		defer cancel()
	}
	got, err := a.broker.ReceiveAttempt(ctx, r.Param("queue"), r.AttemptID(), broker.ReceiveOptions{Max: int(c.most), Wait: c.wait, Lease: c.visibility})
	if err != nil && (ctx.Err() == nil || !r.Drained()) {
		return err
	}
	attempt := r.AttemptID()
	if r.Context().Err() != nil {
		if attempt == "" {
			a.broker.GiveBack(got)
		}
		return r.Context().Err()
	}
	body := append(r.Buffer(), `{"Messages":[`...)
	for i := range got {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendReceived(body, &got[i])
	}
	err = httpx.WriteJSON(w, r, http.StatusOK, append(body, ']', '}'))
	if r.Lost() && attempt == "" {
		a.broker.HandBack(got)
	}
	return err
}

// errNoMessage is the answer to a handle of a message that is gone.
var errNoMessage = &broker.Error{Kind: broker.NotFound, Subject: broker.MessageSubject}

// remove deletes a message. The handle alone says which.
func (a *api) remove(w http.ResponseWriter, r *httpx.Request, c *call) error {
	if err := c.checkReceipt(); err != nil {
		return err
	}
	state, err := a.broker.Ack(r.Context(), r.Param("queue"), a.broker.ReceiptID(c.receipt), c.receipt)
	if err == nil && state == broker.Gone {
		err = errNoMessage
	}
	if err != nil {
		return err
	}
	a.setQueueDurability(w, r)
	return answerText(w, r, "Message deleted successfully")
}

// removeMany deletes a batch; each entry has a result of its own.
func (a *api) removeMany(w http.ResponseWriter, r *httpx.Request, c *call) error {
	if err := c.checkEntries(func(e *entry) error { return e.checkReceipt() }); err != nil {
		return err
	}
	ss := make([]broker.Settlement, len(c.entries))
	for i := range c.entries {
		ss[i] = broker.Settlement{ID: a.broker.ReceiptID(c.entries[i].receipt), Receipt: c.entries[i].receipt}
	}
	results, err := a.broker.AckBatch(r.Context(), r.Param("queue"), ss)
	if err != nil {
		return err
	}
	a.setQueueDurability(w, r)
	return a.answerEach(w, r, c, func(i int) error {
		if results[i].Err == nil && results[i].State == broker.Gone {
			return errNoMessage
		}
		return results[i].Err
	})
}

// answerEach answers a batch whose entries succeed or fail alone.
func (a *api) answerEach(w http.ResponseWriter, r *httpx.Request, c *call, result func(i int) error) error {
	body := append(r.Buffer(), `{"Successful":[`...)
	var failed []byte
	first := true
	for i := range c.entries {
		err := result(i)
		if err == nil {
			if !first {
				body = append(body, ',')
			}
			first = false
			body = append(httpx.AppendString(append(body, `{"Id":`...), c.entries[i].id), '}')
			continue
		}
		if len(failed) > 0 {
			failed = append(failed, ',')
		}
		rep := classify(err)
		failed = httpx.AppendString(append(failed, `{"Id":`...), c.entries[i].id)
		failed = strconv.AppendBool(append(failed, `,"SenderFault":`...), rep.status < http.StatusInternalServerError)
		failed = appendInt(append(failed, `,"Code":"`...), int64(rep.status))
		failed = append(httpx.AppendString(append(failed, `","Message":`...), rep.detail), '}')
	}
	body = append(append(body, `],"Failed":[`...), failed...)
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, ']', '}'))
}

// changeVisibility moves the end of a lease; 0 gives the message back now.
func (a *api) changeVisibility(w http.ResponseWriter, r *httpx.Request, c *call) error {
	if err := c.checkReceipt(); err != nil {
		return err
	}
	if c.visibility == broker.DefaultLease {
		return httpx.FieldError("VisibilityTimeout", "is missing")
	}
	_, err := a.broker.Extend(r.Context(), r.Param("queue"), a.broker.ReceiptID(c.receipt), c.receipt, c.visibility)
	if err != nil {
		return err
	}
	a.setQueueDurability(w, r)
	return answerText(w, r, "Message visibility changed successfully")
}

// purge empties a queue, with what is leased and delayed, as SQS does.
func (a *api) purge(w http.ResponseWriter, r *httpx.Request, _ *call) error {
	if _, err := a.broker.Purge(r.Context(), r.Param("queue"), true); err != nil {
		return err
	}
	a.setQueueDurability(w, r)
	return answerText(w, r, "Queue purged successfully")
}

// setQueueDurability says what the answer about the queue in the path means.
func (a *api) setQueueDurability(w http.ResponseWriter, r *httpx.Request) {
	httpx.SetDurability(w, a.broker.Durability(r.Param("queue")))
}

// attributes shows a queue in the names of SQS, whose values are all strings.
func (a *api) attributes(w http.ResponseWriter, r *httpx.Request, c *call) error {
	q, err := a.broker.Queue(r.Context(), r.Param("queue"))
	if err != nil {
		return err
	}
	body, first := append(r.Buffer(), `{"Attributes":{`...), true
	for _, at := range []struct {
		name  string
		value int64
	}{
		{"ApproximateNumberOfMessages", q.Ready},
		{"ApproximateNumberOfMessagesNotVisible", q.Leased},
		{"ApproximateNumberOfMessagesDelayed", q.Delayed},
		{"CreatedTimestamp", q.Created.Unix()},
		{"DelaySeconds", int64(q.Delay / time.Second)},
		{"MaximumQueueLength", q.MaxMessages},
		{"VisibilityTimeout", int64(q.Lease / time.Second)},
	} {
		if !c.wants(at.name) {
			continue
		}
		if !first {
			body = append(body, ',')
		}
		first = false
		body = append(append(append(body, '"'), at.name...), `":"`...)
		body = append(appendInt(body, at.value), '"')
	}
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, '}', '}'))
}
