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

// entry is a message as it was asked for, which becomes what is published.
type entry struct {
	broker.Message

	key, value   []byte // as they are written; nil = not given
	partition    int    // or broker.AnyPartition
	sequence     int64  // or noSequence
	deliverAt    int64
	deliverAfter int64
	clusters     []byte // as they are written
	local        bool

	err    error          // why it cannot be published
	placed *broker.Placed // what became of it otherwise
}

const noSequence = -1

// readFrom reads the body of a request.
func (q *produceRequest) readFrom(r *httpx.Request) error {
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
		return err
	case !given:
		return httpx.FieldError("messages", "is missing")
	case len(q.messages) == 0:
		return httpx.FieldError("messages", "must hold at least one message")
	case len(q.producer) > maxProducer:
		return httpx.FieldError("producerName", "is of %d bytes; it may have %d", len(q.producer), maxProducer)
	}
	return nil
}

func (q *produceRequest) readMessages(d *httpx.Decoder) error {
	return d.Array(func(i int) error {
		if i == maxEntries {
			return httpx.Problem("is over the limit of %d messages", maxEntries)
		}
		q.messages = append(q.messages, entry{partition: broker.AnyPartition, sequence: noSequence})
		e := &q.messages[i]
		return d.Object(func(name []byte) error { return e.read(d, name) })
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
		e.Properties, err = readProperties(d)
	case "eventTime":
		err = readMillis(d, &e.EventTime)
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

// finisher makes what is published of the entries of a request.
type finisher struct {
	schema              *compiled
	version             int // of schema, or noVersion
	producer, publisher string
	partition           int       // of the path, or broker.AnyPartition
	wall, now           time.Time // by the wall clock, and of messages
}

// finish makes what is published of an entry, or says why it cannot be.
func (f *finisher) finish(e *entry) error {
	e.QoS, e.Publisher = 1, f.publisher
	if err := e.choose(f.partition); err != nil {
		return err
	}
	if err := e.encode(f.schema); err != nil {
		return err
	}
	if f.version != noVersion {
		e.note(schemaProperty, strconv.Itoa(f.version))
	} else if f.schema.info.Type == typeBytes {
		e.note(schemaProperty, unversionedBytes)
	}
	if e.local { // as Pulsar writes it
		e.note(replicateProperty, `["__local__"]`)
	} else if e.clusters != nil {
		e.note(replicateProperty, string(e.clusters))
	}
	if e.sequence != noSequence {
		e.Producer, e.Sequence = defaultProducer, uint64(e.sequence)
		if f.producer != "" {
			e.Producer, e.DedupKey = f.producer, sequenceKey(f.producer, e.sequence)
		}
	}
	return e.delay(f.wall, f.now)
}

// choose merges the partition of the path with that of the message.
func (e *entry) choose(partition int) error {
	if partition == broker.AnyPartition {
		return nil
	}
	if e.partition != broker.AnyPartition && e.partition != partition {
		return httpx.FieldError("partition", "is %d, and the path says %d", e.partition, partition)
	}
	e.partition = partition
	return nil
}

// encode turns value and key into what is kept of them.
func (e *entry) encode(c *compiled) (err error) {
	if e.value == nil {
		return httpx.FieldError("value", "is missing")
	}
	if e.Payload, err = c.value.encode(e.value); err != nil {
		return httpx.FieldError("value", "%s", err.Error())
	}
	if e.Key, err = c.keyText(e.key); err != nil {
		return httpx.FieldError("key", "%s", err.Error())
	}
	e.ContentType = c.value.contentType()
	e.UTF8 = c.info.Type == typeString || c.info.Type == typeNone
	return nil
}

func (e *entry) note(name, value string) {
	e.Properties = append(e.Properties, broker.Property{Name: name, Value: value})
}

// delay sets the time before which a message is not delivered. The one that is
// asked for is by the wall clock, which may have been set since the start.
func (e *entry) delay(wall, now time.Time) error {
	switch {
	case e.deliverAt > 0 && e.deliverAfter > 0:
		return httpx.FieldError("deliverAt", "is given beside deliverAfterMs; send one of them")
	case e.deliverAfter > int64(broker.MaxDelay/time.Millisecond), e.deliverAt > wall.Add(broker.MaxDelay).UnixMilli():
		return httpx.FieldError("deliverAfterMs", "is over %d, which is the limit of a delay", broker.MaxDelay/time.Millisecond)
	case e.deliverAfter > 0:
		e.NotBefore = now.UnixMilli() + e.deliverAfter
	case e.deliverAt > 0:
		e.NotBefore = e.deliverAt + now.Sub(wall).Milliseconds()
	}
	return nil
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
