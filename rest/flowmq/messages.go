package flowmq

import (
	"encoding/base64"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// maxEntries bounds a batch of messages or of acks.
const maxEntries = 10_000

// publish serves both /topics/{topic}/messages and .../messages/batch. A topic
// spans path segments and may hold these words itself, so that only the end of
// the path, as it was sent, tells.
func (a *api) publish(w http.ResponseWriter, r *httpx.Request) error {
	raw := r.Param("rest")[1:]
	topic, batch := strings.CutSuffix(raw, "/messages/batch")
	if !batch {
		var ok bool
		if topic, ok = strings.CutSuffix(raw, "/messages"); !ok {
			return httpx.ErrNoRoute
		}
	}
	topic, err := httpx.Unescape(topic)
	if err != nil {
		return err
	}
	if batch {
		return a.publishMany(w, r, topic)
	}
	return a.publishOne(w, r, topic)
}

func (a *api) publishOne(w http.ResponseWriter, r *httpx.Request, topic string) error {
	key, err := r.IdempotencyKey()
	if err != nil {
		return err
	}
	m := newMessage(topic, auth.From(r.Context()).Name, key)
	err = r.ReadJSON(httpx.MaxJSON, httpx.RefuseUnknown, false, func(d *httpx.Decoder) error { return a.readMessage(d, m, false) })
	if err != nil {
		return err
	}
	p, err := a.broker.Publish(r.Context(), m)
	if err != nil {
		return err
	}
	httpx.SetDurability(w, p.Durability)
	body := append(r.Buffer(), envelopeHead...)
	body = appendPublished(body, topic, &p)
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, envelopeTail...))
}

func (a *api) publishMany(w http.ResponseWriter, r *httpx.Request, topic string) error {
	key, err := r.IdempotencyKey()
	if err != nil {
		return err
	}
	text, err := r.ReadBody(httpx.MaxBatch)
	if err != nil {
		return err
	}
	entryKey, publisher := httpx.EntryKeys(key), auth.From(r.Context()).Name
	var ms []*broker.Message
	err = readEntries(text, func(d *httpx.Decoder) error {
		m := newMessage(topic, publisher, entryKey(len(ms)))
		ms = append(ms, m)
		return a.readMessage(d, m, true)
	})
	if err != nil {
		return err
	}
	ps, err := a.broker.PublishBatch(r.Context(), ms)
	if err != nil {
		return err
	}
	body := append(r.Buffer(), envelopeHead+`{"messages":[`...)
	for i := range ps {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendPublished(body, topic, &ps[i])
	}
	httpx.SetDurability(w, weakest(ps))
	body = appendInt(append(body, `],"count":`...), len(ps))
	return httpx.WriteJSON(w, r, http.StatusOK, append(append(body, '}'), envelopeTail...))
}

// weakest is what can be said of all entries of a batch together.
func weakest(ps []broker.Published) broker.Durability {
	d := broker.DurabilityDisk
	for i := range ps {
		switch ps[i].Durability {
		case broker.DurabilityMemory:
			return broker.DurabilityMemory
		case broker.DurabilityRelaxed:
			d = broker.DurabilityRelaxed
		case broker.DurabilityDisk:
		}
	}
	return d
}

// newMessage returns a message with the dialect's defaults.
func newMessage(topic, publisher, key string) *broker.Message {
	return &broker.Message{Topic: topic, QoS: 1, ContentType: "application/json", Publisher: publisher, DedupKey: key}
}

// readEntries reads {"messages": [...]}; the error of an entry tells its index.
func readEntries(text []byte, entry func(d *httpx.Decoder) error) error {
	count := 0
	element := func(d *httpx.Decoder, i int) (err error) {
		if count++; count > maxEntries {
			return httpx.FieldError("messages", "has more than %d entries", maxEntries)
		}
		if err = entry(d); err != nil {
			err = &broker.BatchError{Index: i, Err: err}
		}
		return err
	}
	err := httpx.Decode(text, httpx.RefuseUnknown, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) error {
			if string(name) != "messages" {
				return d.Unknown()
			}
			return d.Array(func(i int) error { return element(d, i) })
		})
	})
	if err == nil && count == 0 {
		err = httpx.FieldError("messages", "must hold at least one entry")
	}
	return err
}

// readMessage reads the body of a publish, or an entry of a batch, which may
// have an idempotency key of its own.
func (a *api) readMessage(d *httpx.Decoder, m *broker.Message, entry bool) error {
	var given, encoded bool
	err := d.Object(func(name []byte) (err error) {
		switch string(name) {
		case "payload":
			given = true
			m.Payload, err = d.Bytes()
		case "content_type":
			m.ContentType, err = readContentType(d)
		case "properties":
			m.Properties, err = readProperties(d)
		case "partition_key":
			m.Key, err = d.String()
		case "payload_encoding":
			encoded, err = readEncoding(d)
		case "qos":
			m.QoS, err = readQoS(d)
		case "retain":
			m.Retain, err = d.Bool()
		case "response_topic":
			m.ResponseTopic, err = d.String()
		case "correlation_data":
			m.Correlation, err = readBase64(d)
		case "delay_seconds":
			m.NotBefore, err = a.readFromNow(d, broker.MaxDelay)
		case "expiry_seconds":
			m.Expires, err = a.readFromNow(d, math.MaxUint32*time.Second)
		case "idempotency_key":
			if !entry {
				return httpx.Problem("belongs into the header Idempotency-Key")
			}
			if m.DedupKey, err = d.String(); err == nil {
				err = httpx.CheckKey(m.DedupKey)
			}
		default:
			err = d.Unknown()
		}
		return err
	})
	if err != nil {
		return err
	}
	if !given {
		return httpx.FieldError("payload", "is missing")
	}
	if m.UTF8 = !encoded; encoded {
		b, err := base64.StdEncoding.AppendDecode(nil, m.Payload)
		if err != nil {
			return httpx.FieldError("payload", "is not base64, which payload_encoding says it is")
		}
		m.Payload = b
	}
	return nil
}

// readFromNow reads a number of seconds and returns the time that much later, in
// Unix milliseconds; 0 is none.
func (a *api) readFromNow(d *httpx.Decoder, limit time.Duration) (int64, error) {
	s, err := readWhole(d, 0, int64(limit/time.Second))
	if err != nil || s == 0 {
		return 0, err
	}
	return a.broker.Now().Add(time.Duration(s) * time.Second).UnixMilli(), nil
}

func readBase64(d *httpx.Decoder) ([]byte, error) {
	text, err := d.Text()
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return nil, httpx.Problem("is not base64")
	}
	return b, nil
}

// readContentType allocates nothing for the commonest.
func readContentType(d *httpx.Decoder) (string, error) {
	switch s, err := d.Text(); string(s) {
	case "application/json":
		return "application/json", nil
	case "text/plain":
		return "text/plain", nil
	default:
		return string(s), err
	}
}

func readEncoding(d *httpx.Decoder) (encoded bool, err error) {
	switch s, err := d.String(); {
	case err != nil:
		return false, err
	case s == "base64":
		return true, nil
	case s == "plain":
		return false, nil
	default:
		return false, httpx.Problem("is %q, it must be plain or base64", s)
	}
}

func readQoS(d *httpx.Decoder) (byte, error) {
	n, err := d.Int()
	if err == nil && (n < 0 || n > 2) {
		err = httpx.Problem("is %d, it must be 0, 1 or 2", n)
	}
	return byte(n), err
}

// readProperties takes numbers, true and false as the text they are written in.
func readProperties(d *httpx.Decoder) (ps []broker.Property, err error) {
	err = d.Object(func(name []byte) error {
		p := broker.Property{Name: string(name)}
		switch d.Peek() {
		case '"':
			p.Value, err = d.String()
		case '0':
			var n []byte
			n, err = d.Number()
			p.Value = string(n)
		case 't':
			var b bool
			b, err = d.Bool()
			p.Value = strconv.FormatBool(b)
		default:
			err = d.Wrong("a string, a number, true or false")
		}
		ps = append(ps, p)
		return err
	})
	return ps, err
}
