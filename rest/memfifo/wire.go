package memfifo

import (
	"net/http"
	"strconv"
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// maker marks the queues that are seen here.
const maker = "memfifo"

// The drivers: the documented one forgets its messages with the process, ours does not.
const (
	volatileDriver = "memfifo"
	durableDriver  = "logfifo"
)

var drivers = map[string]broker.Driver{volatileDriver: broker.Memory, durableDriver: broker.Disk}

// attributes are what can be set about a queue.
type attributes struct {
	maxBytes int64         // of the messages' bodies
	filter   string        // ours: topics that feed the queue; "" = none
	ttl      time.Duration // ours: 0 = never
}

var defaults = attributes{maxBytes: 256 << 20}

// Limits of the attributes.
const (
	mostBytes   = 1 << 48
	mostSeconds = 100 * 365 * 24 * 3600
)

// definition is the body of POST /queues, and of PUT and PATCH, which may leave
// name and driver out.
type definition struct {
	name, driver string
	attributes
}

func (d *definition) read(text []byte) error {
	return httpx.Decode(text, httpx.RefuseUnknown, func(in *httpx.Decoder) error {
		return in.Object(func(name []byte) (err error) {
			switch string(name) {
			case "name":
				d.name, err = readText(in)
			case "driver":
				if d.driver, err = readText(in); err == nil && drivers[d.driver] == "" {
					err = httpx.Problem("is %q, it must be memfifo or logfifo", d.driver)
				}
			case "attributes":
				err = in.Object(func(name []byte) error { return d.attributes.read(in, string(name)) })
			default:
				err = in.Unknown()
			}
			return err
		})
	})
}

// read reads one attribute; null sets none.
func (a *attributes) read(in *httpx.Decoder, name string) (err error) {
	switch name {
	case "max-bytes":
		a.maxBytes, err = readWhole(in, 1, mostBytes)
	case "topic-filter":
		if a.filter = ""; !in.Null() {
			a.filter, err = readText(in)
		}
	case "message-ttl":
		var n int64
		if !in.Null() {
			n, err = readWhole(in, 0, mostSeconds)
		}
		a.ttl = time.Duration(n) * time.Second
	default:
		err = in.Unknown()
	}
	return err
}

// readText reads a string that must not be empty.
func readText(in *httpx.Decoder) (string, error) {
	s, err := in.String()
	if err == nil && s == "" {
		err = httpx.Problem("must not be empty")
	}
	return s, err
}

func readWhole(in *httpx.Decoder, low, high int64) (int64, error) {
	n, err := in.Int()
	if err == nil && (n < low || n > high) {
		err = httpx.Problem("is %d, it must be %d to %d", n, low, high)
	}
	return n, err
}

// config is a new queue: nothing in it expires or is given up unless it says
// so, and a full one refuses what is sent to it. One that topics feed drops its
// oldest instead, so that it cannot stop those who publish.
func (d *definition) config() broker.QueueConfig {
	c := broker.NewQueueConfig(d.name, d.filter)
	c.Maker, c.Driver = maker, drivers[d.driver]
	c.MaxRetries = broker.Unlimited
	d.set(&c)
	return c
}

// set gives a queue the attributes. What is stored beside the bodies has a
// limit of its own, far off, because messages without a body take memory too.
func (a *attributes) set(c *broker.QueueConfig) {
	const headers = 1 << 30
	c.Filter, c.TTL = a.filter, a.ttl
	if c.MaxPayload != a.maxBytes {
		c.MaxPayload, c.MaxBytes = a.maxBytes, 3*a.maxBytes+headers
	}
}

// change applies a PUT or PATCH.
func (d *definition) change(c *broker.QueueConfig) error {
	switch {
	case d.name != "" && d.name != c.Name:
		return httpx.FieldError("name", "cannot be changed")
	case d.driver != "" && drivers[d.driver] != c.Driver:
		return httpx.FieldError("driver", "cannot be changed")
	}
	was := broker.NewQueueConfig(c.Name, c.Filter).Overflow
	d.set(c)
	if c.Overflow == was { // nobody chose another
		c.Overflow = broker.NewQueueConfig(c.Name, c.Filter).Overflow
	}
	return nil
}

func attributesOf(c *broker.QueueConfig) attributes {
	return attributes{maxBytes: c.MaxPayload, filter: c.Filter, ttl: c.TTL}
}

func answerQueue(w http.ResponseWriter, r *httpx.Request, q *broker.QueueInfo) error {
	return httpx.WriteJSON(w, r, http.StatusOK, appendQueue(r.Buffer(), q))
}

// appendQueue appends a queue as the documentation shows it. Our attributes
// are there if they are set.
func appendQueue(dst []byte, q *broker.QueueInfo) []byte {
	dst = httpx.AppendString(append(dst, `{"name":`...), q.Name)
	dst = append(dst, `,"driver":"`...)
	if q.Driver == broker.Memory {
		dst = append(dst, volatileDriver...)
	} else {
		dst = append(dst, durableDriver...)
	}
	dst = strconv.AppendInt(append(dst, `","attributes":{"read-only":{"bytes":`...), q.Payload, 10)
	dst = strconv.AppendInt(append(dst, `,"size":`...), q.Ready+q.Delayed+q.Leased+q.Held+q.Dead, 10)
	dst = strconv.AppendInt(append(dst, `},"read-write":{"max-bytes":`...), q.MaxPayload, 10)
	if q.Filter != "" {
		dst = httpx.AppendString(append(dst, `,"topic-filter":`...), q.Filter)
	}
	if q.TTL != 0 {
		dst = strconv.AppendInt(append(dst, `,"message-ttl":`...), int64(q.TTL/time.Second), 10)
	}
	return append(dst, `}}}`...)
}
