package emqx

import (
	"net/http"
	"strings"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// maxShownPayload is the largest retained payload that is shown.
const maxShownPayload = 1 << 20

// messageView is a message in a list.
type messageView struct {
	MsgID        string  `json:"msgid"`
	Topic        string  `json:"topic"`
	QoS          byte    `json:"qos"`
	PublishAt    *string `json:"publish_at"`
	FromClientID string  `json:"from_clientid"`
	FromUsername *string `json:"from_username"`
	Payload      *string `json:"payload,omitempty"`
}

func viewMessage(m *broker.Message) messageView {
	return messageView{
		MsgID: messageID(m.ID), Topic: m.Topic, QoS: m.QoS,
		PublishAt: timestamp(broker.Time(m.Published)), FromClientID: m.Publisher,
	}
}

func (a *api) retainer(w http.ResponseWriter, r *httpx.Request) error {
	return answer(w, r, struct {
		Enable           bool   `json:"enable"`
		MaxPayloadSize   int    `json:"max_payload_size"`
		ExpiryInterval   string `json:"msg_expiry_interval"`
		StopPublishClear bool   `json:"stop_publish_clear_msg"`
	}{true, a.options.MaxPayload, "0s", false})
}

// listRetained answers a page of the retained messages that a filter matches.
func (a *api) listRetained(w http.ResponseWriter, r *httpx.Request) error {
	p, err := readPage(r)
	if err != nil {
		return err
	}
	filter, err := r.Query("topic")
	if err != nil {
		return badQuery(err)
	}
	count := -1
	var ms []*broker.Message
	var more bool
	if filter == "" {
		count = a.broker.RetainedCount()
		ms, more, err = a.broker.AllRetained(r.Context(), p.skip(), p.limit)
	} else {
		ms, more, err = a.broker.RetainedPage(r.Context(), filter, p.skip(), p.limit)
	}
	if err != nil {
		return err
	}
	l := list[messageView]{[]messageView{}, p.meta(count, more)}
	for _, m := range ms {
		l.Data = append(l.Data, viewMessage(m))
	}
	return answer(w, r, l)
}

func (a *api) clearAllRetained(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.broker.ClearAllRetained(r.Context()); err != nil {
		return err
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}

// getRetained answers the first retained message that the topic of the path,
// which may be a filter, matches.
func (a *api) getRetained(w http.ResponseWriter, r *httpx.Request) error {
	ms, _, err := a.broker.RetainedPage(r.Context(), r.Param("topic"), 0, 1)
	if err != nil {
		return err
	}
	if len(ms) == 0 {
		return noRetained(r)
	}
	v := viewMessage(ms[0])
	if len(ms[0].Payload) <= maxShownPayload {
		v.Payload = encoded(ms[0].Payload)
	}
	return answer(w, r, v)
}

func noRetained(r *httpx.Request) error {
	return missing(notFound, "no topic that %q matches has a retained message", httpx.Clip(r.Param("topic")))
}

func (a *api) clearRetained(w http.ResponseWriter, r *httpx.Request) error {
	n, err := a.broker.ClearRetained(r.Context(), r.Param("topic"))
	if err != nil {
		return err
	}
	if n == 0 {
		return noRetained(r)
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}

// hasWildcard reports whether a topic is a filter.
func hasWildcard(topic string) bool { return strings.ContainsAny(topic, "+#") }
