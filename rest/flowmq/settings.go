package flowmq

import (
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// queueView is a queue with its settings, by the names that POST and PATCH
// take, and its counts.
type queueView struct {
	Name                     string      `json:"name"`
	TopicFilter              *string     `json:"topic_filter"`
	Driver                   string      `json:"driver"`
	MaxSizeMB                int64       `json:"max_size_mb"`
	MaxMessages              *int64      `json:"max_messages"`
	Overflow                 string      `json:"overflow"`
	MessageTTLSeconds        int64       `json:"message_ttl_seconds"`
	MaxRetries               *int        `json:"max_retries"`
	DeadLetterTopic          *string     `json:"dead_letter_topic"`
	VisibilityTimeoutSeconds int64       `json:"visibility_timeout_seconds"`
	DelaySeconds             int64       `json:"delay_seconds"`
	Backoff                  backoffView `json:"backoff"`
	OnExhausted              string      `json:"on_exhausted"`
	OnExpired                string      `json:"on_expired"`
	DeadRetentionSeconds     int64       `json:"dead_retention_seconds"`
	MaxInFlight              int         `json:"max_in_flight"`
	FIFOGroups               bool        `json:"fifo_groups"`
	MQTTLeaseSeconds         *int64      `json:"mqtt_lease_seconds"`
	Paused                   bool        `json:"paused"`
	MessageCount             int64       `json:"message_count"`
	ReadyCount               int64       `json:"ready_count"`
	DelayedCount             int64       `json:"delayed_count"`
	InFlightCount            int64       `json:"in_flight_count"`
	DeadCount                int64       `json:"dead_count"`
	SizeBytes                int64       `json:"size_bytes"`
	Books                    booksView   `json:"books"`
	CreatedAt                string      `json:"created_at"`
}

// booksView is what ever entered a queue and how it left; difference is 0.
type booksView struct {
	In         uint64            `json:"in"`
	Out        map[string]uint64 `json:"out"`
	Difference int64             `json:"difference"`
}

func viewBooks(i *broker.Info) booksView {
	v := booksView{In: i.In, Out: map[string]uint64{}, Difference: i.Difference()}
	for why, n := range i.Out {
		if n > 0 {
			v.Out[broker.Reason(why).String()] = n
		}
	}
	return v
}

type backoffView struct {
	MinSeconds int64 `json:"min_seconds"`
	MaxSeconds int64 `json:"max_seconds"`
}

// What becomes of a message that was delivered too often, or that expired.
const (
	deadLetter = "dead-letter"
	drop       = "drop"
)

func viewQueue(q *broker.QueueInfo) queueView {
	c := &q.QueueConfig
	return queueView{
		Name: c.Name, TopicFilter: orNull(c.Filter, ""), Driver: string(c.Driver),
		MaxSizeMB: (c.MaxBytes + 1<<20 - 1) >> 20, MaxMessages: orNull(c.MaxMessages, 0), Overflow: string(c.Overflow),
		MessageTTLSeconds: seconds(c.TTL), MaxRetries: orNull(c.MaxRetries, broker.Unlimited), DeadLetterTopic: orNull(c.DeadLetterTopic, ""),
		VisibilityTimeoutSeconds: seconds(c.Lease), DelaySeconds: seconds(c.Delay),
		Backoff:     backoffView{seconds(c.BackoffMin), seconds(c.BackoffMax)},
		OnExhausted: either(c.DropExhausted, drop, deadLetter), OnExpired: either(c.LapseExpired, deadLetter, drop),
		DeadRetentionSeconds: seconds(c.DeadRetention), MaxInFlight: c.MaxInFlight, FIFOGroups: c.FIFOGroups,
		MQTTLeaseSeconds: orNull(seconds(c.MQTTLease), 0), Paused: c.Paused,
		MessageCount: q.Ready + q.Delayed + q.Leased, ReadyCount: q.Ready, DelayedCount: q.Delayed,
		InFlightCount: q.Leased, DeadCount: q.Dead + q.Held, SizeBytes: q.Bytes, Books: viewBooks(&q.Info), CreatedAt: timestamp(c.Created),
	}
}

// orNull returns nil for the value that means none.
func orNull[T comparable](v, none T) *T {
	if v == none {
		return nil
	}
	return &v
}

func either[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

// readQueue reads the body of POST, or of PATCH, over what c already says.
func readQueue(text []byte, c *broker.QueueConfig, creating bool) error {
	return httpx.Decode(text, httpx.RefuseUnknown, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) (err error) {
			switch string(name) {
			case "name":
				if !creating {
					return httpx.Problem("cannot be changed")
				}
				c.Name, err = readText(d)
			case "driver":
				var s string
				s, err = readOneOf(d, string(broker.Disk), string(broker.Memory))
				c.Driver = broker.Driver(s)
			case "topic_filter":
				c.Filter, err = readText(d)
			default:
				err = readLimit(d, string(name), c)
			}
			return err
		})
	})
}

// readLimit reads what bounds a queue, and what becomes of the rest.
func readLimit(d *httpx.Decoder, name string, c *broker.QueueConfig) (err error) {
	switch name {
	case "max_size_mb":
		var n int64
		n, err = readWhole(d, 1, 1<<40)
		c.MaxBytes = n << 20
	case "max_messages":
		c.MaxMessages, err = orNone(d, 0, func() (int64, error) { return readWhole(d, 0, 1<<62) })
	case "overflow":
		var s string
		s, err = readOneOf(d, string(broker.DropOldest), string(broker.Reject))
		c.Overflow = broker.Overflow(s)
	case "message_ttl_seconds":
		c.TTL, err = readSeconds(d)
	case "on_expired":
		var s string
		s, err = readOneOf(d, drop, deadLetter)
		c.LapseExpired = s == deadLetter
	case "delay_seconds":
		c.Delay, err = readSeconds(d)
	case "fifo_groups":
		c.FIFOGroups, err = d.Bool()
	default:
		err = readLease(d, name, &c.LeaseConfig)
	}
	return err
}

// readLease reads how a queue or a subscription hands out.
func readLease(d *httpx.Decoder, name string, c *broker.LeaseConfig) (err error) {
	switch name {
	case "visibility_timeout_seconds":
		c.Lease, err = readSeconds(d)
	case "max_retries":
		var n int64
		n, err = orNone(d, broker.Unlimited, func() (int64, error) { return readWhole(d, 0, 1<<31-2) })
		c.MaxRetries = int(n)
	case "dead_letter_topic":
		c.DeadLetterTopic, err = orNone(d, "", d.String)
	case "on_exhausted":
		var s string
		s, err = readOneOf(d, deadLetter, drop)
		c.DropExhausted = s == drop
	case "dead_retention_seconds":
		c.DeadRetention, err = readSeconds(d)
	case "backoff":
		err = d.Object(func(name []byte) (err error) {
			switch string(name) {
			case "min_seconds":
				c.BackoffMin, err = readSeconds(d)
			case "max_seconds":
				c.BackoffMax, err = readSeconds(d)
			default:
				err = d.Unknown()
			}
			return err
		})
	case "max_in_flight":
		var n int64
		n, err = readWhole(d, 1, 1<<31-1)
		c.MaxInFlight = int(n)
	case "mqtt_lease_seconds":
		c.MQTTLease, err = orNone(d, 0, func() (time.Duration, error) { return readSeconds(d) })
	default:
		err = d.Unknown()
	}
	return err
}

// orNone reads null as none.
func orNone[T any](d *httpx.Decoder, none T, read func() (T, error)) (T, error) {
	if d.Null() {
		return none, nil
	}
	return read()
}

// readText reads a string that must not be empty.
func readText(d *httpx.Decoder) (string, error) {
	s, err := d.String()
	if err == nil && s == "" {
		err = httpx.Problem("must not be empty")
	}
	return s, err
}

func readOneOf(d *httpx.Decoder, a, b string) (string, error) {
	s, err := d.String()
	if err == nil && s != a && s != b {
		err = httpx.Problem("is %q, it must be %s or %s", s, a, b)
	}
	return s, err
}
