package emqx

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// MQTT reason codes that answers to a publish carry.
const (
	noMatchingSubscribers = 0x10
	implementationError   = 0x83
	topicNameInvalid      = 0x90
	quotaExceeded         = 0x97 // EMQX answers it to a payload that is too large
	formatInvalid         = 0x99
)

// maxEntries bounds a bulk publish.
const maxEntries = 10_000

// refusedError is a refusal of a publish, which has a reason code besides.
type refusedError struct {
	problem
	reason int
}

func (e *refusedError) Unwrap() error { return &e.problem }

// receipt is the answer to one publish: the id, or why there is none.
type receipt struct {
	id      broker.ID
	reason  int // 0 = there is an id
	message string
	code    code
	text    string
}

// append writes a receipt; what it has not is left out, as EMQX does.
func (p *receipt) append(dst []byte) []byte {
	if p.reason == 0 {
		return append(appendMessageID(append(dst, `{"id":"`...), p.id), `"}`...)
	}
	dst = strconv.AppendInt(append(dst, `{"reason_code":`...), int64(p.reason), 10)
	for _, member := range [...]struct{ name, value string }{{"message", p.message}, {"code", string(p.code)}, {"reason", p.text}} {
		if member.value != "" {
			dst = append(append(append(dst, `,"`...), member.name...), `":`...)
			dst = httpx.AppendString(dst, member.value)
		}
	}
	return append(dst, '}')
}

func (p *receipt) answer(w http.ResponseWriter, r *httpx.Request, status int) error {
	return httpx.WriteJSON(w, r, status, p.append(r.Buffer()))
}

// answerEach answers so many receipts.
func answerEach(w http.ResponseWriter, r *httpx.Request, status, n int, one func(i int) receipt) error {
	body := append(r.Buffer(), '[')
	for i := range n {
		if i > 0 {
			body = append(body, ',')
		}
		p := one(i)
		body = p.append(body)
	}
	return httpx.WriteJSON(w, r, status, append(body, ']'))
}

func (a *api) publish(w http.ResponseWriter, r *httpx.Request) error {
	var m *broker.Message
	err := readBody(r, httpx.MaxJSON, func(d *httpx.Decoder) (err error) {
		m, err = a.readMessage(d, publisher(r))
		return err
	})
	if err != nil {
		return refusePublish(w, r, err)
	}
	delayed := strings.HasPrefix(m.Topic, "$delayed/") // the broker rewrites it
	p, err := a.broker.Publish(r.Context(), m)
	if err != nil {
		return refusePublish(w, r, dispatchError(err))
	}
	httpx.SetDurability(w, p.Durability)
	status, out := published(&p, delayed)
	return out.answer(w, r, status)
}

// publishBulk publishes all entries in one commit, or none.
func (a *api) publishBulk(w http.ResponseWriter, r *httpx.Request) error {
	var ms []*broker.Message
	var delayed []bool
	err := readBody(r, httpx.MaxBatch, func(d *httpx.Decoder) error {
		return d.Array(func(i int) error {
			if i == maxEntries {
				return bad("there are more than %d entries", maxEntries)
			}
			m, err := a.readMessage(d, publisher(r))
			if err != nil {
				return err
			}
			ms, delayed = append(ms, m), append(delayed, strings.HasPrefix(m.Topic, "$delayed/"))
			return a.checkTopic(m.Topic)
		})
	})
	switch {
	case err != nil:
		return refusePublish(w, r, err)
	case len(ms) == 0:
		return bad("the array is empty, there is nothing to publish")
	}
	ps, err := a.broker.PublishBatch(r.Context(), ms)
	if err != nil {
		return a.refuseBulk(w, r, dispatchError(err), len(ms))
	}
	overall := http.StatusOK
	for i := range ps {
		if status, _ := published(&ps[i], delayed[i]); status != http.StatusOK {
			overall = status
		}
	}
	httpx.SetDurability(w, a.broker.Durability(""))
	return answerEach(w, r, overall, len(ps), func(i int) receipt {
		_, out := published(&ps[i], delayed[i])
		return out
	})
}

// refuseBulk answers a batch of which nothing was sent. An entry that cannot be
// makes one answer, a failure to store an answer for each.
func (a *api) refuseBulk(w http.ResponseWriter, r *httpx.Request, err error, n int) error {
	e, ok := errors.AsType[*refusedError](err)
	if !ok || e.status != http.StatusServiceUnavailable {
		return refusePublish(w, r, err)
	}
	w.Header().Set("Retry-After", "1")
	return answerEach(w, r, e.status, n, func(int) receipt { return e.receipt() })
}

// published is what EMQX answers to a publish that was taken: 202 when nobody
// was there for it. A queue or a stream counts as somebody, and so does the
// wait of a delayed message.
func published(p *broker.Published, delayed bool) (int, receipt) {
	if p.Matched == (broker.Matched{}) && !delayed && !p.Duplicate {
		return http.StatusAccepted, receipt{reason: noMatchingSubscribers, message: "no_matching_subscribers"}
	}
	return http.StatusOK, receipt{id: p.ID}
}

func (e *refusedError) receipt() receipt {
	return receipt{reason: e.reason, message: e.message(), code: e.code, text: e.text}
}

// message is EMQX's word where it has one.
func (e *refusedError) message() string {
	switch {
	case e.status == http.StatusServiceUnavailable:
		return "failed_to_dispatch"
	case e.reason == quotaExceeded:
		return "packet_too_large"
	}
	return e.text
}

// refusePublish writes the refusals that carry a reason code, and returns the others.
func refusePublish(w http.ResponseWriter, r *httpx.Request, err error) error {
	e, ok := errors.AsType[*refusedError](err)
	if !ok {
		return err
	}
	if e.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	out := e.receipt()
	return out.answer(w, r, e.status)
}

// dispatchError gives an error of the broker its reason code.
func dispatchError(err error) error {
	p := classify(err)
	if b, ok := errors.AsType[*broker.BatchError](err); ok {
		p.text = fmt.Sprintf("[%d]: %s", b.Index, p.text)
	}
	e, _ := errors.AsType[*broker.Error](err)
	switch {
	case e == nil, e.Subject == broker.RateSubject:
		return err
	case e.Kind == broker.TooLarge && e.Subject == broker.PayloadSubject:
		return &refusedError{problem{http.StatusBadRequest, badRequest, p.text}, quotaExceeded}
	case e.Subject == broker.TopicSubject:
		return &refusedError{problem{http.StatusBadRequest, badTopic, p.text}, topicNameInvalid}
	case e.Subject == broker.LimitSubject:
		return &refusedError{problem{http.StatusServiceUnavailable, unavailable, p.text}, quotaExceeded}
	case e.Kind == broker.Full, e.Kind == broker.Unavailable, e.Kind == broker.Unknown, e.Kind == broker.Damaged:
		return &refusedError{problem{http.StatusServiceUnavailable, unavailable, p.text}, implementationError}
	}
	return err
}

// checkTopic refuses a topic before anything is sent.
func (a *api) checkTopic(topic string) error {
	if err := a.broker.CheckPublishTopic(topic); err != nil {
		return &refusedError{problem{http.StatusBadRequest, badTopic, err.Error()}, topicNameInvalid}
	}
	return nil
}

func publisher(r *httpx.Request) string { return auth.From(r.Context()).Name }

// readMessage reads the body of a publish. clientid is deprecated and not
// looked at, as in EMQX: the publisher is who asks.
func (a *api) readMessage(d *httpx.Decoder, from string) (*broker.Message, error) {
	m, given, encoding := &broker.Message{Publisher: from}, false, "plain"
	err := d.Object(func(name []byte) (err error) {
		switch string(name) {
		case "topic":
			err = readInto(d, &m.Topic, (*httpx.Decoder).String)
		case "payload":
			given = given || d.Peek() != 'n'
			err = readInto(d, &m.Payload, (*httpx.Decoder).Bytes)
		case "payload_encoding", "encoding":
			err = readInto(d, &encoding, (*httpx.Decoder).String)
		case "qos":
			err = readInto(d, &m.QoS, readQoS)
		case "retain":
			err = readInto(d, &m.Retain, readFlag)
		case "properties":
			err = a.readProperties(d, m)
		default:
			err = d.Skip()
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case m.Topic == "":
		return nil, httpx.Problem("has no topic")
	case !given:
		return nil, httpx.Problem("has no payload")
	}
	switch encoding {
	case "plain":
	case "base64":
		if m.Payload, err = base64.StdEncoding.AppendDecode(nil, m.Payload); err != nil {
			return nil, &refusedError{problem{http.StatusBadRequest, badRequest, "the payload is not base64, which payload_encoding says it is"}, implementationError}
		}
	default:
		return nil, httpx.FieldError("payload_encoding", "is %q, it must be plain or base64", httpx.Clip(encoding))
	}
	if m.UTF8 && !utf8.Valid(m.Payload) {
		return nil, &refusedError{problem{http.StatusBadRequest, badRequest, "the payload is not UTF-8, which payload_format_indicator says it is"}, formatInvalid}
	}
	return m, nil
}

func readQoS(d *httpx.Decoder) (byte, error) {
	n, err := readWhole(d, 0, 2)
	return byte(n), err
}

func (a *api) readProperties(d *httpx.Decoder, m *broker.Message) error {
	if d.Null() {
		return nil
	}
	var expiry *uint32
	var correlation string
	err := fields{
		"payload_format_indicator": func(d *httpx.Decoder) error {
			var n byte
			err := whole(&n, 0, 1)(d)
			m.UTF8 = n == 1
			return err
		},
		"message_expiry_interval": given(&expiry, func(v *uint32) func(*httpx.Decoder) error { return whole(v, 0, math.MaxUint32) }),
		"response_topic":          text(&m.ResponseTopic),
		"correlation_data":        text(&correlation),
		"content_type":            text(&m.ContentType),
		"user_properties":         func(d *httpx.Decoder) error { return readUserProperties(d, m) },
	}.read(d)
	if expiry != nil {
		m.Expires = a.broker.Now().Add(time.Duration(*expiry) * time.Second).UnixMilli()
	}
	if correlation != "" {
		m.Correlation = []byte(correlation)
	}
	if err == nil && strings.ContainsAny(m.ResponseTopic, "+#") {
		err = httpx.FieldError("response_topic", "has wildcards")
	}
	return err
}

// readUserProperties takes a string, or a list of strings for a name that is
// there more than once.
func readUserProperties(d *httpx.Decoder, m *broker.Message) error {
	if d.Null() {
		return nil
	}
	return d.Object(func(name []byte) error {
		p := broker.Property{Name: string(name)}
		one := func() (err error) {
			p.Value, err = d.String()
			m.Properties = append(m.Properties, p)
			return err
		}
		if d.Peek() == '[' {
			return d.Array(func(int) error { return one() })
		}
		return one()
	})
}
