package flowmq

import (
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// Every answer has the three keys, also where FlowMQ's examples leave one out.
const (
	envelopeHead = `{"success":true,"data":`
	envelopeTail = `,"error":null}`
)

// answer writes data, whose type encoding/json knows, in the envelope.
func answer(w http.ResponseWriter, r *httpx.Request, status int, data any) error {
	body := httpx.AppendJSON(append(r.Buffer(), envelopeHead...), data)
	return httpx.WriteJSON(w, r, status, append(body, envelopeTail...))
}

// timestamp is the form of every time: RFC 3339, UTC, milliseconds.
func timestamp(t time.Time) string {
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// The id of a message is its ULID with this in front.
const idPrefix = "msg_"

// parseID reads a message id. What is none names no message: the zero ID, so
// that the broker answers in its order, a missing queue first.
func parseID(s string) broker.ID {
	id, err := broker.ParseID(strings.TrimPrefix(s, idPrefix))
	if err != nil {
		return broker.ID{}
	}
	return id
}

func appendID(dst []byte, id broker.ID) []byte {
	var text [26]byte
	_ = id.MarshalTextTo(text[:]) // fails on a wrong length only
	dst = append(append(dst, '"'), idPrefix...)
	return append(append(dst, text[:]...), '"')
}

// appendPublished appends the answer to one publish.
func appendPublished(dst []byte, topic string, p *broker.Published) []byte {
	dst = appendID(append(dst, `{"message_id":`...), p.ID)
	dst = httpx.AppendString(append(dst, `,"topic":`...), topic)
	dst = httpx.AppendTime(append(dst, `,"timestamp":`...), p.Time)
	dst = appendInt(append(dst, `,"matched":{"subscribers":`...), p.Matched.Subscribers)
	dst = appendInt(append(dst, `,"queues":`...), p.Matched.Queues)
	dst = appendInt(append(dst, `,"streams":`...), p.Matched.Streams)
	if p.Duplicate {
		return append(dst, `},"duplicate":true}`...)
	}
	return append(dst, `},"duplicate":false}`...)
}

// appendDelivery appends a message of a queue, or of a subscription on a stream;
// receipt is "" for one that is only shown.
func appendDelivery(dst []byte, d *broker.Delivery, ofStream bool, receipt string) []byte {
	dst = appendID(append(dst, `{"message_id":`...), d.ID)
	if ofStream {
		dst = appendInt(append(dst, `,"partition":`...), int(d.Partition))
		dst = strconv.AppendUint(append(dst, `,"offset":`...), d.Offset, 10)
	}
	dst = httpx.AppendString(append(dst, `,"topic":`...), d.Topic)
	dst = appendContent(dst, d)
	if d.Key != "" {
		dst = httpx.AppendString(append(dst, `,"partition_key":`...), d.Key)
	}
	dst = httpx.AppendTime(append(dst, `,"publish_time":`...), d.Published)
	dst = appendInt(append(dst, `,"receive_count":`...), int(d.Attempt))
	if receipt == "" {
		dst = append(append(append(dst, `,"state":"`...), stateNames[d.State]...), '"')
		if d.State == broker.Dead {
			dst = append(append(append(dst, `,"reason":"`...), d.Reason.String()...), '"')
			dst = appendInt(append(dst, `,"attempts":`...), int(d.Attempt))
			dst = httpx.AppendTime(append(dst, `,"dead_since":`...), d.Until)
		}
		return append(dst, '}')
	}
	dst = httpx.AppendTime(append(dst, `,"visible_until":`...), d.Until)
	dst = httpx.AppendString(append(dst, `,"receipt_handle":`...), receipt)
	return append(dst, '}')
}

// appendRecord appends a message of a stream.
func appendRecord(dst []byte, d *broker.Delivery) []byte {
	dst = appendInt(append(dst, `{"partition":`...), int(d.Partition))
	dst = strconv.AppendUint(append(dst, `,"offset":`...), d.Seq, 10)
	dst = appendID(append(dst, `,"message_id":`...), d.ID)
	dst = httpx.AppendString(append(dst, `,"topic":`...), d.Topic)
	if dst = append(dst, `,"key":`...); d.Key == "" {
		dst = append(dst, "null"...)
	} else {
		dst = httpx.AppendString(dst, d.Key)
	}
	dst = appendContent(dst, d)
	dst = httpx.AppendTime(append(dst, `,"publish_time":`...), d.Published)
	return append(dst, '}')
}

// appendContent appends the members that say what a message holds.
func appendContent(dst []byte, d *broker.Delivery) []byte {
	dst = append(dst, `,"payload":`...)
	if utf8.Valid(d.Payload) {
		dst = httpx.AppendString(dst, d.Payload)
	} else {
		dst = append(httpx.AppendBase64(dst, d.Payload), `,"payload_encoding":"base64"`...)
	}
	dst = append(dst, `,"content_type":`...)
	if d.ContentType == "" {
		dst = append(dst, `"application/octet-stream"`...)
	} else {
		dst = httpx.AppendString(dst, d.ContentType)
	}
	dst = appendProperties(append(dst, `,"properties":`...), d.Properties)
	if d.ResponseTopic != "" {
		dst = httpx.AppendString(append(dst, `,"response_topic":`...), d.ResponseTopic)
	}
	if len(d.Correlation) > 0 {
		dst = httpx.AppendBase64(append(dst, `,"correlation_data":`...), d.Correlation)
	}
	if d.Expires != 0 {
		dst = httpx.AppendTime(append(dst, `,"expires_at":`...), d.Expires)
	}
	return dst
}

var stateNames = map[broker.EntryState]string{
	broker.Ready: "ready", broker.Delayed: "delayed", broker.Leased: "leased", broker.Dead: "dead",
}

// appendProperties appends an object. MQTT lets a name occur more than once,
// JSON does not: the last one counts.
func appendProperties(dst []byte, ps []broker.Property) []byte {
	dst = append(dst, '{')
	first := true
	for i := range ps {
		if repeated(ps[i+1:], ps[i].Name) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(httpx.AppendString(dst, ps[i].Name), ':')
		dst = httpx.AppendString(dst, ps[i].Value)
	}
	return append(dst, '}')
}

func repeated(ps []broker.Property, name string) bool {
	for i := range ps {
		if ps[i].Name == name {
			return true
		}
	}
	return false
}
