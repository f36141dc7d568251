package fastqueue

import (
	"net/http"
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// What FastQueue's server gives a queue that is made without these.
const (
	defaultLength     = 10_000
	defaultVisibility = 15 * time.Second
)

// Limits of the settings.
const (
	maxLength     = 1 << 40
	maxVisibility = 12 * time.Hour
)

// settings are the body of POST and PATCH; what was not given is -1 or "".
type settings struct {
	name, filter string
	length       int64
	visibility   int64 // seconds
}

// newQueue is a queue with FastQueue's defaults: nothing is retried for a last
// time, nothing expires, and a full queue refuses.
func newQueue(s settings) broker.QueueConfig {
	c := broker.NewQueueConfig(s.name, s.filter)
	c.Maker, c.Overflow = Door, broker.Reject
	c.TTL, c.MaxRetries = 0, broker.Unlimited
	c.MaxMessages, c.Lease = defaultLength, defaultVisibility
	s.apply(&c)
	return c
}

func (s *settings) apply(c *broker.QueueConfig) {
	if s.length >= 0 {
		c.MaxMessages = s.length
	}
	if s.visibility >= 0 {
		c.Lease = time.Duration(s.visibility) * time.Second
	}
}

// readSettings takes the names of the page and those of the server.
func readSettings(r *httpx.Request) (settings, error) {
	s, other := settings{length: -1, visibility: -1}, settings{length: -1, visibility: -1}
	err := r.ReadJSON(httpx.MaxJSON, httpx.IgnoreUnknown, false, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) error {
			switch string(name) {
			case "name":
				return readOptional(d, &s.name)
			case "topic_filter":
				return readOptional(d, &s.filter)
			case "max_length":
				return readWhole(d, &s.length, 1, maxLength)
			case "max_queue_length":
				return readWhole(d, &other.length, 1, maxLength)
			case "visibility_timeout":
				return readWhole(d, &s.visibility, 0, int64(maxVisibility/time.Second))
			case "visibility_timeout_seconds":
				return readWhole(d, &other.visibility, 0, int64(maxVisibility/time.Second))
			}
			return d.Unknown()
		})
	})
	if err == nil {
		err = agree("max_length", "max_queue_length", &s.length, other.length)
	}
	if err == nil {
		err = agree("visibility_timeout", "visibility_timeout_seconds", &s.visibility, other.visibility)
	}
	return s, err
}

// agree merges the two spellings of one setting.
func agree(name, otherName string, value *int64, other int64) error {
	if *value >= 0 && other >= 0 && *value != other {
		return httpx.FieldError(name, "is %d, and %s, which means the same, is %d", *value, otherName, other)
	}
	*value = max(*value, other)
	return nil
}

func readOptional(d *httpx.Decoder, into *string) (err error) {
	if !d.Null() {
		*into, err = d.String()
	}
	return err
}

func (a *api) createQueue(w http.ResponseWriter, r *httpx.Request) error {
	s, err := readSettings(r)
	if err != nil {
		return err
	}
	if s.name == "" {
		return httpx.FieldError("name", "is missing")
	}
	q, err := a.broker.CreateQueue(r.Context(), newQueue(s))
	if err != nil {
		return err
	}
	httpx.SetDurability(w, q.Durability)
	return answerQueue(w, r, http.StatusCreated, &q)
}

// listed reports whether FastQueue's list shows a queue: others are fed by
// filters of other doors, or live in memory.
func listed(q *broker.QueueInfo) bool {
	return q.Driver == broker.Disk && (q.Filter == "" || q.Maker == Door)
}

// listQueues answers all queues, as FastQueue does, unless a limit is asked for.
func (a *api) listQueues(w http.ResponseWriter, r *httpx.Request) error {
	limit, err := r.QueryInt("limit", 0, 1, httpx.MaxLimit)
	if err != nil {
		return err
	}
	offset, err := r.QueryInt("offset", 0, 0, 1<<31-1)
	if err != nil {
		return err
	}
	all, err := a.broker.Queues(r.Context())
	if err != nil {
		return err
	}
	body, total, shown := append(r.Buffer(), `{"queues":[`...), 0, 0
	for i := range all {
		if !listed(&all[i]) {
			continue
		}
		if total >= offset && (limit == 0 || shown < limit) {
			if shown > 0 {
				body = append(body, ',')
			}
			body = appendQueue(body, &all[i])
			shown++
		}
		total++
	}
	if limit == 0 {
		limit = total
	}
	body = appendInt(append(body, `],"total":`...), int64(total))
	body = appendInt(append(body, `,"limit":`...), int64(limit))
	body = appendInt(append(body, `,"offset":`...), int64(offset))
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, '}'))
}

func (a *api) getQueue(w http.ResponseWriter, r *httpx.Request) error {
	q, err := a.broker.Queue(r.Context(), r.Param("queue"))
	if err != nil {
		return err
	}
	return answerQueue(w, r, http.StatusOK, &q)
}

// changeQueue takes effect at once; leases that run keep their end. A name or a
// filter in the body is not looked at, as in FastQueue.
func (a *api) changeQueue(w http.ResponseWriter, r *httpx.Request) error {
	s, err := readSettings(r)
	if err != nil {
		return err
	}
	q, err := a.broker.UpdateQueue(r.Context(), r.Param("queue"), func(c *broker.QueueConfig) error {
		s.apply(c)
		return nil
	})
	if err != nil {
		return err
	}
	httpx.SetDurability(w, q.Durability)
	return answerQueue(w, r, http.StatusOK, &q)
}

func (a *api) deleteQueue(w http.ResponseWriter, r *httpx.Request) error {
	name := r.Param("queue")
	durability := a.broker.Durability(name)
	if err := a.broker.DeleteQueue(r.Context(), name); err != nil {
		return err
	}
	httpx.SetDurability(w, durability)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
