package emqx

import (
	"encoding/base64"
	"net/http"
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// maxDelayedPayload is the largest payload of a delayed message that is shown,
// and payloadTooLarge is what stands for others.
const (
	maxDelayedPayload = 2048
	payloadTooLarge   = "PAYLOAD_TO_LARGE" // as EMQX spells it
)

type delayedView struct {
	MsgID        string  `json:"msgid"`
	Node         string  `json:"node"`
	Topic        string  `json:"topic"`
	QoS          byte    `json:"qos"`
	PublishAt    *string `json:"publish_at"`
	Interval     int64   `json:"delayed_interval"`
	Remaining    int64   `json:"delayed_remaining"`
	ExpectedAt   *string `json:"expected_at"`
	FromClientID string  `json:"from_clientid"`
	FromUsername *string `json:"from_username"`
	Payload      *string `json:"payload,omitempty"`
}

func (a *api) viewDelayed(m *broker.Message) delayedView {
	due := broker.Time(m.NotBefore)
	return delayedView{
		MsgID: messageID(m.ID), Node: a.options.Node, Topic: m.Topic, QoS: m.QoS,
		PublishAt: timestamp(broker.Time(m.Published)), FromClientID: m.Publisher,
		Interval:   (m.NotBefore - m.Published) / 1000,
		Remaining:  max(0, int64(due.Sub(a.broker.Now())/time.Second)),
		ExpectedAt: timestamp(due),
	}
}

func encoded(b []byte) *string {
	s := base64.StdEncoding.EncodeToString(b)
	return &s
}

func (a *api) delayed(w http.ResponseWriter, r *httpx.Request) error {
	return answer(w, r, struct {
		Enable bool `json:"enable"`
		Max    int  `json:"max_delayed_messages"`
	}{true, 0})
}

// setDelayed takes what is so: delayed publishing cannot be switched off, nor
// counted out.
func (a *api) setDelayed(w http.ResponseWriter, r *httpx.Request) error {
	enable, limit := true, int64(0)
	err := readBody(r, maxBody, fields{
		"enable": flag(&enable), "max_delayed_messages": whole(&limit, 0, maxPage),
	}.read)
	switch {
	case err != nil:
		return problemf(http.StatusBadRequest, badConfigSchema, "%s", classify(err).text)
	case !enable:
		return problemf(http.StatusBadRequest, updateFailed, "delayed publishing cannot be switched off; an access rule can deny it")
	case limit != 0:
		return problemf(http.StatusBadRequest, updateFailed, "max_delayed_messages is %d, only 0 is possible: the disk is the limit", limit)
	}
	return a.delayed(w, r)
}

func (a *api) listDelayed(w http.ResponseWriter, r *httpx.Request) error {
	p, err := readPage(r)
	if err != nil {
		return err
	}
	count, err := a.broker.DelayedCount(r.Context())
	if err != nil {
		return err
	}
	ds, err := a.broker.DelayedPage(r.Context(), p.skip(), p.limit)
	if err != nil {
		return err
	}
	l := list[delayedView]{[]delayedView{}, p.meta(count, p.skip()+len(ds) < count)}
	for i := range ds {
		l.Data = append(l.Data, a.viewDelayed(&ds[i].Message))
	}
	return answer(w, r, l)
}

// delayedID reads node and id of a path.
func (a *api) delayedID(r *httpx.Request) (id broker.ID, err error) {
	if node := r.Param("a"); node != a.options.Node && !a.isOther(node) {
		return id, problemf(http.StatusBadRequest, badNodeName, "there is no node %q, only %s", httpx.Clip(node), a.names())
	}
	id, ok := readMessageID(r.Param("b"))
	if !ok {
		return id, problemf(http.StatusBadRequest, messageIDSchema, "%q is no message id: 32 hex digits", httpx.Clip(r.Param("b")))
	}
	return id, nil
}

func (a *api) getDelayed(w http.ResponseWriter, r *httpx.Request) error {
	id, err := a.delayedID(r)
	if err != nil {
		return err
	}
	d, err := a.broker.DelayedMessage(r.Context(), id)
	if err != nil {
		return delayedError(err)
	}
	v := a.viewDelayed(&d.Message)
	if v.Payload = encoded(d.Payload); len(d.Payload) > maxDelayedPayload {
		marker := payloadTooLarge
		v.Payload = &marker
	}
	return answer(w, r, v)
}

func delayedError(err error) error {
	if broker.KindOf(err) == broker.NotFound {
		return missing(messageIDNotFound, "no delayed message has this id: it was delivered, or it never was")
	}
	return err
}

func (a *api) deleteDelayed(w http.ResponseWriter, r *httpx.Request) error {
	id, err := a.delayedID(r)
	if err != nil {
		return err
	}
	n, err := a.broker.CancelDelayed(r.Context(), func(m *broker.Message) bool { return m.ID == id })
	if err == nil && n == 0 {
		err = &broker.Error{Kind: broker.NotFound}
	}
	if err != nil {
		return delayedError(err)
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}

// deleteDelayedTopic deletes all delayed messages of one topic.
func (a *api) deleteDelayedTopic(w http.ResponseWriter, r *httpx.Request) error {
	topic := r.Param("a")
	if hasWildcard(topic) || a.broker.CheckTopic(topic) != nil {
		return problemf(http.StatusBadRequest, badTopic, "%q is no topic: name one, without wildcards", httpx.Clip(topic))
	}
	n, err := a.broker.CancelDelayed(r.Context(), func(m *broker.Message) bool { return m.Topic == topic })
	if err != nil {
		return err
	}
	if n == 0 {
		return missing(messageIDNotFound, "no delayed message of %q waits", httpx.Clip(topic))
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}
