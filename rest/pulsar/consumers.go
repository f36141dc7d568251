package pulsar

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// joinRequest is the body of the creation of a consumer. All of it is optional.
type joinRequest struct {
	schema     schemaRequest
	id, name   string
	earliest   bool
	ackTimeout int64 // milliseconds, or keepTimeout
}

const keepTimeout = -1

func readJoin(r *httpx.Request) (*joinRequest, error) {
	q := &joinRequest{schema: schemaRequest{version: noVersion}, ackTimeout: keepTimeout}
	err := r.ReadJSON(httpx.MaxJSON, httpx.IgnoreUnknown, true, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) error {
			switch string(name) {
			case "id":
				return readOptional(d, &q.id)
			case "name", "consumerName":
				return readOptional(d, &q.name)
			case "position", "subscriptionInitialPosition":
				return readPositionWord(d, &q.earliest)
			case "ack_timeout_ms", "ackTimeoutMillis":
				return readWhole(d, &q.ackTimeout, 0, int64(maxAckTimeout/time.Millisecond))
			}
			if known, err := q.schema.read(d, name); known {
				return err
			}
			return d.Unknown()
		})
	})
	if err == nil && len(q.name) > maxProducer {
		err = httpx.FieldError("name", "is of %d bytes; it may have %d", len(q.name), maxProducer)
	}
	return q, err
}

// maxAckTimeout is the longest lease that there is.
const maxAckTimeout = 12 * time.Hour

func readPositionWord(d *httpx.Decoder, earliest *bool) error {
	word := ""
	if err := readOptional(d, &word); err != nil {
		return err
	}
	switch strings.ToLower(word) {
	case "earliest":
		*earliest = true
	case "latest", "":
	default:
		return httpx.Problem("is %q, it must be earliest or latest", httpx.Clip(word))
	}
	return nil
}

// join makes a consumer, and the subscription if it is not there yet.
func (a *api) join(w http.ResponseWriter, r *httpx.Request, at *place) error {
	q, err := readJoin(r)
	if err != nil {
		return err
	}
	note, err := a.schemaOfConsumer(r, at, &q.schema)
	if err != nil {
		return err
	}
	s, err := a.subscribe(r, at, q)
	if err != nil {
		return err
	}
	m, err := a.broker.Join(r.Context(), at.stream, at.subscription, broker.JoinOptions{ID: q.id, Name: q.name, Note: note})
	if err != nil {
		return err
	}
	httpx.SetDurability(w, s.Durability)
	body := httpx.AppendString(append(r.Buffer(), `{"id":`...), m.ID())
	body = httpx.AppendString(append(body, `,"base_uri":`...), a.baseURI(r, at, m.ID()))
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, '}'))
}

// schemaOfConsumer is for messages that name no schema, as those that came over
// MQTT: the consumer knows what they are.
func (a *api) schemaOfConsumer(r *httpx.Request, at *place, q *schemaRequest) ([]byte, error) {
	c, err := q.compile()
	switch {
	case err != nil:
		return nil, err
	case c == plain:
		return nil, nil
	case c != nil:
		return c.info.registered(), nil
	}
	text, err := a.broker.Schema(r.Context(), at.stream, q.version)
	if e := broker.KindOf(err); err != nil && e == broker.NotFound && !isNoTopic(err) {
		return nil, httpx.FieldError("schema_version", "is %d, and the topic has no such schema", q.version)
	}
	return text, err
}

func isNoTopic(err error) bool {
	code, _ := classify(err)
	return code == noTopic
}

// subscribe finds the subscription or makes it: where Pulsar's begin, at the
// latest message, unless the request says otherwise.
func (a *api) subscribe(r *httpx.Request, at *place, q *joinRequest) (broker.SubscriptionInfo, error) {
	timeout := time.Duration(q.ackTimeout) * time.Millisecond
	s, err := a.broker.Subscription(r.Context(), at.stream, at.subscription)
	switch {
	case err == nil && (q.ackTimeout == keepTimeout || s.MQTTLease == timeout):
		return s, nil
	case err == nil:
		return a.broker.UpdateSubscription(r.Context(), at.stream, at.subscription, func(c *broker.SubscriptionConfig) error {
			c.MQTTLease = timeout
			return nil
		})
	case broker.KindOf(err) != broker.NotFound || isNoTopic(err):
		return s, err
	}
	c := broker.NewSubscriptionConfig(at.stream, at.subscription)
	if q.ackTimeout != keepTimeout {
		c.MQTTLease = timeout
	}
	s, err = a.broker.CreateSubscription(r.Context(), c, broker.Place{Latest: !q.earliest})
	if broker.KindOf(err) == broker.Conflict { // made meanwhile
		return a.broker.Subscription(r.Context(), at.stream, at.subscription)
	}
	return s, err
}

// baseURI is where the consumer is asked, as the client reached us.
func (a *api) baseURI(r *httpx.Request, at *place, id string) string {
	root := strings.TrimSuffix(a.options.PublicURL, "/")
	if root == "" {
		root = "http://" + r.Host
		if r.TLS != nil {
			root = "https://" + r.Host
		}
	}
	path := strings.TrimSuffix(r.URL.EscapedPath(), "/consumers")
	path = path[:strings.LastIndexByte(path, '/')+1]
	return root + path + url.PathEscape(at.subscription) + "/consumer/" + id
}

func (a *api) member(r *httpx.Request, at *place) (*broker.Member, error) {
	return a.broker.Member(r.Context(), at.stream, at.subscription, at.consumer)
}

// fetch leases messages to a consumer. Who waits is answered when the first one is there.
func (a *api) fetch(w http.ResponseWriter, r *httpx.Request, at *place) error {
	l, err := readLimits(r)
	if err != nil {
		return err
	}
	include, err := queryBool(r, "include_schema")
	if err != nil {
		return err
	}
	m, err := a.member(r, at)
	if err != nil {
		return err
	}
	s, err := a.broker.Stream(r.Context(), at.stream)
	if err != nil {
		return err
	}
	ctx := r.Context()
	if l.wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = r.Poll()
		defer cancel()
	}
	got, err := m.Receive(ctx, broker.ReceiveOptions{Max: l.messages, MaxBytes: l.bytes, Wait: l.wait})
	if err != nil && (ctx.Err() == nil || !r.Drained()) {
		return err
	}
	if r.Context().Err() != nil {
		m.GiveBack(got)
		return r.Context().Err()
	}
	v := a.newView(r, at.stream)
	if m.Note != nil {
		if v.absent, err = readRegistered(m.Note); err != nil {
			return err
		}
	}
	body := append(r.Buffer(), `{"messages":[`...)
	for i := range got {
		if i > 0 {
			body = append(body, ',')
		}
		d := &got[i].Delivery
		if body, err = v.append(body, d, messageID{s.Incarnation, d.Offset, d.Partition}); err != nil {
			m.GiveBack(got)
			return err
		}
	}
	body = append(body, ']')
	if include {
		body = v.appendSchemas(append(body, `,"schemas":`...))
	}
	httpx.SetDurability(w, s.Durability)
	err = httpx.WriteJSON(w, r, http.StatusOK, append(body, '}'))
	if r.Lost() {
		m.HandBack(got)
	}
	return err
}

// leave removes a consumer; what it held is ready for others.
func (a *api) leave(w http.ResponseWriter, r *httpx.Request, at *place) error {
	m, err := a.member(r, at)
	if err != nil {
		return err
	}
	if err := m.Leave(r.Context()); err != nil {
		return err
	}
	httpx.SetDurability(w, a.broker.State().Durability)
	return httpx.WriteNothing(w)
}

// nack gives messages back that a consumer cannot handle now.
func (a *api) nack(w http.ResponseWriter, r *httpx.Request, at *place) error {
	ids, delay := ackRequest{}, int64(noDelay)
	err := r.ReadJSON(httpx.MaxJSON, httpx.IgnoreUnknown, false, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) error {
			if string(name) == "delayMs" {
				return readWhole(d, &delay, 0, int64(maxAckTimeout/time.Millisecond))
			}
			return ids.read(d, name)
		})
	})
	if err != nil {
		return err
	}
	if len(ids.ids) == 0 {
		return httpx.FieldError("messageIds", "is missing")
	}
	m, err := a.member(r, at)
	if err != nil {
		return err
	}
	s, err := a.broker.Stream(r.Context(), at.stream)
	if err != nil {
		return err
	}
	wait := broker.Backoff
	if delay != noDelay {
		wait = time.Duration(delay) * time.Millisecond
	}
	ours, unknown := ids.split(s.Incarnation)
	back, err := m.Nack(r.Context(), wait, offsetsOf(ours)...)
	if err != nil {
		return err
	}
	given := map[broker.Offset]bool{}
	for _, o := range back {
		given[o] = true
	}
	var done []messageID
	for _, id := range ours {
		if given[id.offset()] {
			done = append(done, id)
		} else {
			unknown = append(unknown, id)
		}
	}
	httpx.SetDurability(w, s.Durability)
	return answerIDs(w, r, done, unknown)
}

const noDelay = math.MinInt64

// deleteSubscription forgets a subscription; its messages stay in the topic.
func (a *api) deleteSubscription(w http.ResponseWriter, r *httpx.Request, at *place) error {
	if err := a.broker.DeleteSubscription(r.Context(), at.stream, at.subscription); err != nil {
		return err
	}
	httpx.SetDurability(w, a.broker.State().Durability)
	return httpx.WriteNothing(w)
}
