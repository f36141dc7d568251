package pulsar

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// maxEntries bounds the messages of a request, and the ids.
const maxEntries = 10_000

// What a message of this dialect has beside its user properties is kept as
// such, so that every consumer sees it. Names of Pulsar's own have no colon.
const (
	ourPrefix         = "pulsar:"
	schemaProperty    = ourPrefix + "schema"       // the version, or bytes
	replicateProperty = ourPrefix + "replicate-to" // a JSON array
)

// unversionedBytes marks messages of the schema BYTES, which has no version.
const unversionedBytes = "bytes"

// produceRequest is the body of a produce.
type produceRequest struct {
	schema   schemaRequest
	producer string
	messages []entry
}

// entry is a message as it was asked for.
type entry struct {
	key, value   []byte // as they are written; nil = not given
	partition    int    // or broker.AnyPartition
	properties   []broker.Property
	eventTime    int64
	sequence     int64 // or noSequence
	deliverAt    int64
	deliverAfter int64
	clusters     []byte // as they are written
	local        bool
}

const noSequence = -1

func readProduce(r *httpx.Request) (*produceRequest, error) {
	q := &produceRequest{schema: schemaRequest{version: noVersion}}
	given := false
	err := r.ReadJSON(httpx.MaxBatch, httpx.IgnoreUnknown, false, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) error {
			switch string(name) {
			case "messages":
				given = true
				return q.readMessages(d)
			case "producerName", "producer_name":
				return readOptional(d, &q.producer)
			}
			if known, err := q.schema.read(d, name); known {
				return err
			}
			return d.Unknown()
		})
	})
	switch {
	case err != nil:
		return nil, err
	case !given:
		return nil, httpx.FieldError("messages", "is missing")
	case len(q.messages) == 0:
		return nil, httpx.FieldError("messages", "must hold at least one message")
	case len(q.producer) > maxProducer:
		return nil, httpx.FieldError("producerName", "is of %d bytes; it may have %d", len(q.producer), maxProducer)
	}
	return q, nil
}

func (q *produceRequest) readMessages(d *httpx.Decoder) error {
	return d.Array(func(i int) error {
		if i == maxEntries {
			return httpx.Problem("is over the limit of %d messages", maxEntries)
		}
		e := entry{partition: broker.AnyPartition, sequence: noSequence}
		err := d.Object(func(name []byte) error { return e.read(d, name) })
		q.messages = append(q.messages, e)
		return err
	})
}

func (e *entry) read(d *httpx.Decoder, name []byte) (err error) {
	switch string(name) {
	case "key":
		if !d.Null() {
			e.key, err = d.Raw()
		}
	case "value", "payload":
		if e.value != nil {
			return httpx.Problem("is given beside payload, which means the same")
		}
		e.value, err = d.Raw()
	case "partition":
		n := int64(broker.AnyPartition)
		err = readWhole(d, &n, 0, math.MaxInt32)
		e.partition = int(n)
	case "properties":
		e.properties, err = readProperties(d)
	case "eventTime":
		err = readMillis(d, &e.eventTime)
	case "sequenceId":
		err = readWhole(d, &e.sequence, noSequence, math.MaxInt64)
	case "deliverAt":
		err = readMillis(d, &e.deliverAt)
	case "deliverAfterMs":
		err = readMillis(d, &e.deliverAfter)
	case "replicationClusters":
		e.clusters, err = readClusters(d)
	case "disableReplication":
		if !d.Null() {
			e.local, err = d.Bool()
		}
	default:
		err = d.Unknown()
	}
	return err
}

// readClusters reads a list of names.
func readClusters(d *httpx.Decoder) ([]byte, error) {
	if d.Null() {
		return nil, nil
	}
	names := []string{}
	err := d.Array(func(int) error {
		name, err := d.String()
		names = append(names, name)
		return err
	})
	text, _ := json.Marshal(names) // of strings: cannot fail
	return text, err
}

// readProperties takes numbers, true and false as the text they are written in.
func readProperties(d *httpx.Decoder) (ps []broker.Property, err error) {
	if d.Null() {
		return nil, nil
	}
	err = d.Object(func(name []byte) (err error) {
		p := broker.Property{Name: string(name)}
		if strings.HasPrefix(p.Name, ourPrefix) {
			return httpx.Problem("is not a name for a property: %s is ours", ourPrefix)
		}
		switch d.Peek() {
		case '"':
			p.Value, err = d.String()
		case '0', 't':
			var text []byte
			text, err = d.Raw()
			p.Value = string(text)
		default:
			err = d.Wrong("a string")
		}
		ps = append(ps, p)
		return err
	})
	return ps, err
}

func readOptional(d *httpx.Decoder, into *string) (err error) {
	if !d.Null() {
		*into, err = d.String()
	}
	return err
}

// readWhole reads a whole number from low to high, null is none.
func readWhole(d *httpx.Decoder, into *int64, low, high int64) error {
	if d.Null() {
		return nil
	}
	n, err := d.Int()
	switch {
	case err != nil:
		return err
	case n < low || n > high:
		return httpx.Problem("is %d, it must be between %d and %d", n, low, high)
	}
	*into = n
	return nil
}

// readMillis reads milliseconds, which Pulsar's server takes in a string too.
func readMillis(d *httpx.Decoder, into *int64) error {
	if d.Peek() != '"' {
		return readWhole(d, into, 0, math.MaxInt64)
	}
	text, err := d.String()
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return httpx.Problem("is %q, it must be milliseconds", httpx.Clip(text))
	}
	*into = n
	return nil
}

// message makes what is published of an entry, or says why it cannot be. now is
// the time of messages, and wall the same by the wall clock.
func (e *entry) message(c *compiled, version int, producer, publisher string, wall, now time.Time) (*broker.Message, error) {
	m := &broker.Message{QoS: 1, Publisher: publisher, Properties: e.properties, EventTime: e.eventTime}
	var err error
	if e.value == nil {
		return nil, httpx.FieldError("value", "is missing")
	}
	if m.Payload, err = c.value.encode(e.value); err != nil {
		return nil, httpx.FieldError("value", "%s", err.Error())
	}
	if m.Key, err = c.keyText(e.key); err != nil {
		return nil, httpx.FieldError("key", "%s", err.Error())
	}
	m.ContentType = c.value.contentType()
	m.UTF8 = c.info.Type == typeString || c.info.Type == typeNone
	if version != noVersion {
		m.Properties = append(m.Properties, broker.Property{Name: schemaProperty, Value: strconv.Itoa(version)})
	} else if c.info.Type == typeBytes {
		m.Properties = append(m.Properties, broker.Property{Name: schemaProperty, Value: unversionedBytes})
	}
	if e.local { // as Pulsar writes it
		m.Properties = append(m.Properties, broker.Property{Name: replicateProperty, Value: `["__local__"]`})
	} else if e.clusters != nil {
		m.Properties = append(m.Properties, broker.Property{Name: replicateProperty, Value: string(e.clusters)})
	}
	if e.sequence != noSequence {
		m.Producer, m.Sequence = producer, uint64(e.sequence)
		if producer == "" {
			m.Producer = defaultProducer
		} else {
			m.DedupKey = sequenceKey(producer, e.sequence)
		}
	}
	switch {
	case e.deliverAt > 0 && e.deliverAfter > 0:
		return nil, httpx.FieldError("deliverAt", "is given beside deliverAfterMs; send one of them")
	case e.deliverAfter > int64(broker.MaxDelay/time.Millisecond), e.deliverAt > wall.Add(broker.MaxDelay).UnixMilli():
		return nil, httpx.FieldError("deliverAfterMs", "is over %d, which is the limit of a delay", broker.MaxDelay/time.Millisecond)
	case e.deliverAfter > 0:
		m.NotBefore = now.UnixMilli() + e.deliverAfter
	case e.deliverAt > 0: // by the wall clock, which may have been set since the start
		m.NotBefore = e.deliverAt + now.Sub(wall).Milliseconds()
	}
	return m, nil
}

// defaultProducer has the messages of those who number them and give no name.
// Nothing is de-duplicated under it.
const defaultProducer = "rest"

// maxProducer is the longest name of a producer, in bytes.
const maxProducer = 100

// sequenceKey is under what a repeat is found: numbers of producers are apart
// from the keys of other doors.
func sequenceKey(producer string, sequence int64) string {
	return "sequence " + strconv.FormatInt(sequence, 36) + " " + producer
}

// keyText is the form in which a key chooses the partition, and is kept. A key
// of the schema of a key/value is the text of its JSON, without the quotes
// where only a string can come.
func (c *compiled) keyText(value []byte) (string, error) {
	if value == nil {
		return "", nil
	}
	if c.key != nil {
		if _, err := c.key.encode(value); err != nil {
			return "", err
		}
	}
	if c.keyQuoted() {
		if text, ok := unquote(value); ok {
			return string(text), nil
		}
	} else if p, ok := c.key.(*primitive); ok { // may have come as a string
		kept, _ := p.encode(value)
		text, _ := p.appendJSON(nil, kept)
		return string(text), nil
	}
	return string(value), nil
}

// keyQuoted reports whether keys are strings in JSON whatever they hold.
func (c *compiled) keyQuoted() bool {
	switch k := c.key.(type) {
	case nil, textCodec, bytesCodec:
		return true
	case *primitive:
		return k.quoted
	}
	return false
}

// appendKey is the way back of keyText.
func (c *compiled) appendKey(dst []byte, key string) []byte {
	switch {
	case key == "":
		return append(dst, "null"...)
	case !c.keyQuoted() && json.Valid([]byte(key)):
		return append(dst, key...)
	}
	return httpx.AppendString(dst, key)
}
