package fastqueue

import (
	"crypto/md5" //nolint:gosec // what the protocol calls for; it protects nothing
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// answerText answers {"message": text}.
func answerText(w http.ResponseWriter, r *httpx.Request, text string) error {
	body := httpx.AppendString(append(r.Buffer(), `{"message":`...), text)
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, '}'))
}

// answerName answers what the page answers to who made or changed an account.
func answerName(w http.ResponseWriter, r *httpx.Request, name string) error {
	body := httpx.AppendString(append(r.Buffer(), `{"username":`...), name)
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, '}'))
}

func answerQueue(w http.ResponseWriter, r *httpx.Request, status int, q *broker.QueueInfo) error {
	return httpx.WriteJSON(w, r, status, appendQueue(r.Buffer(), q))
}

// appendQueue has the names of the page and, behind them, those of the server.
// What is delayed is not counted: nobody could receive it.
func appendQueue(dst []byte, q *broker.QueueInfo) []byte {
	dst = httpx.AppendString(append(dst, `{"name":`...), q.Name)
	dst = appendInt(append(dst, `,"message_count":`...), q.Ready+q.Leased)
	dst = appendLength(append(dst, `,"max_length":`...), q.MaxMessages)
	dst = appendInt(append(dst, `,"visibility_timeout":`...), int64(q.Lease/time.Second))
	dst = appendLength(append(dst, `,"max_queue_length":`...), q.MaxMessages)
	dst = appendInt(append(dst, `,"visibility_timeout_seconds":`...), int64(q.Lease/time.Second))
	if q.Filter != "" {
		dst = httpx.AppendString(append(dst, `,"topic_filter":`...), q.Filter)
	}
	return append(dst, '}')
}

// appendLength writes null for a queue of another door that has no such limit.
func appendLength(dst []byte, n int64) []byte {
	if n == 0 {
		return append(dst, "null"...)
	}
	return appendInt(dst, n)
}

// appendID writes a message id: a ULID.
func appendID(dst []byte, id broker.ID) []byte {
	var text [26]byte
	_ = id.MarshalTextTo(text[:]) // fails on a wrong length only
	return append(append(append(dst, '"'), text[:]...), '"')
}

// appendMD5 writes the checksum by which clients of SQS and of FastQueue's
// server check what they sent and got.
func appendMD5(dst, body []byte) []byte {
	sum := md5.Sum(body) //nolint:gosec // as above
	return append(hex.AppendEncode(append(dst, '"'), sum[:]), '"')
}

// appendReceived appends a message that was received.
func appendReceived(dst []byte, m *broker.Received) []byte {
	dst = appendID(append(dst, `{"MessageId":`...), m.ID)
	dst = append(dst, `,"Body":`...)
	body, encoded := m.Payload, !utf8.Valid(m.Payload)
	if encoded {
		body = base64.StdEncoding.AppendEncode(nil, m.Payload)
	}
	dst = httpx.AppendString(dst, body)
	if encoded {
		dst = append(dst, `,"BodyEncoding":"base64"`...)
	}
	dst = appendMD5(append(dst, `,"MD5OfBody":`...), body)
	dst = append(dst, `,"Attributes":{`...)
	dst = eachAttribute(dst, m.Properties, func(dst []byte, value, _ string) []byte {
		return httpx.AppendString(dst, value)
	})
	dst = append(dst, `},"MessageAttributes":{`...)
	dst = eachAttribute(dst, m.Properties, func(dst []byte, value, dataType string) []byte {
		dst = httpx.AppendString(append(dst, `{"DataType":`...), dataType)
		if strings.HasPrefix(dataType, binaryType) {
			dst = append(dst, `,"BinaryValue":`...)
		} else {
			dst = append(dst, `,"StringValue":`...)
		}
		return append(httpx.AppendString(dst, value), '}')
	})
	dst = httpx.AppendString(append(dst, `},"ReceiptHandle":`...), m.Receipt)
	dst = appendInt(append(dst, `,"ApproximateReceiveCount":`...), int64(m.Attempt))
	dst = httpx.AppendTime(append(dst, `,"VisibilityTimeoutUntil":`...), m.Until)
	return append(dst, '}')
}

// The data type of an attribute, when it is not String, is a property beside
// it. Names of SQS hold no colon, so that nobody's own attribute is meant.
const (
	typePrefix = "datatype:"
	stringType = "String"
	binaryType = "Binary"
)

// eachAttribute writes the attributes that ps hold. MQTT lets a name occur more
// than once, JSON does not: the last one counts.
func eachAttribute(dst []byte, ps []broker.Property, value func(dst []byte, value, dataType string) []byte) []byte {
	first := true
	for i := range ps {
		if strings.HasPrefix(ps[i].Name, typePrefix) || find(ps[i+1:], ps[i].Name) != nil {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dataType := stringType
		if p := findType(ps, ps[i].Name); p != nil {
			dataType = p.Value
		}
		dst = append(httpx.AppendString(dst, ps[i].Name), ':')
		dst = value(dst, ps[i].Value, dataType)
	}
	return dst
}

func find(ps []broker.Property, name string) *broker.Property {
	for i := range ps {
		if ps[i].Name == name {
			return &ps[i]
		}
	}
	return nil
}

func findType(ps []broker.Property, name string) *broker.Property {
	for i := range ps {
		if of, ok := strings.CutPrefix(ps[i].Name, typePrefix); ok && of == name {
			return &ps[i]
		}
	}
	return nil
}

// readAttributes takes strings, as the page writes them, and the typed objects
// of FastQueue's server and of SQS; numbers, true and false as they are written.
func readAttributes(d *httpx.Decoder) (ps []broker.Property, err error) {
	if d.Null() {
		return nil, nil
	}
	err = d.Object(func(name []byte) (err error) {
		p := broker.Property{Name: string(name)}
		dataType := stringType
		if strings.HasPrefix(p.Name, typePrefix) {
			return httpx.Problem("is not a name for an attribute: %s is ours", typePrefix)
		}
		switch d.Peek() {
		case '"':
			p.Value, err = d.String()
		case '{':
			p.Value, dataType, err = readTyped(d)
		case '0':
			var n []byte
			n, err = d.Number()
			p.Value = string(n)
		case 't':
			var b bool
			b, err = d.Bool()
			p.Value = strconv.FormatBool(b)
		default:
			err = d.Wrong("a string, or an object with DataType and StringValue or BinaryValue")
		}
		if ps = append(ps, p); dataType != stringType {
			ps = append(ps, broker.Property{Name: typePrefix + p.Name, Value: dataType})
		}
		return err
	})
	return ps, err
}

// readTyped reads {DataType, StringValue or BinaryValue}.
func readTyped(d *httpx.Decoder) (value, dataType string, err error) {
	var text, binary string
	var hasText, hasBinary bool
	err = d.Object(func(name []byte) (err error) {
		switch string(name) {
		case "DataType":
			dataType, err = d.String()
		case "StringValue":
			hasText = d.Peek() == '"'
			err = readOptional(d, &text)
		case "BinaryValue":
			hasBinary = d.Peek() == '"'
			err = readOptional(d, &binary)
		default:
			err = d.Unknown()
		}
		return err
	})
	if err != nil {
		return "", "", err
	}
	base, _, _ := strings.Cut(dataType, ".")
	switch {
	case base != stringType && base != "Number" && base != binaryType:
		return "", "", httpx.FieldError("DataType", "is %q, it must be String, Number or Binary", dataType)
	case base == binaryType && (!hasBinary || hasText):
		return "", "", httpx.FieldError("BinaryValue", "is what the data type Binary needs, and nothing else")
	case base != binaryType && (!hasText || hasBinary):
		return "", "", httpx.FieldError("StringValue", "is what the data type %s needs, and nothing else", base)
	case base == binaryType:
		if _, err := base64.StdEncoding.DecodeString(binary); err != nil {
			return "", "", httpx.FieldError("BinaryValue", "is not base64")
		}
		return binary, dataType, nil
	}
	return text, dataType, nil
}
