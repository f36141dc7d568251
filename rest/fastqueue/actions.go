package fastqueue

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// Caps of the calls; more messages and a longer wait are cut, the rest is refused.
const (
	maxReceive = 100
	maxWait    = 20 * time.Second
	maxDelay   = 15 * time.Minute
	maxEntries = 10_000
	maxCount   = 1 << 53
)

// call is the body of every call about messages; each action takes some of it.
type call struct {
	outgoing
	incoming

	action     string
	most       int64
	wait       time.Duration
	visibility time.Duration
	entries    []entry
	names      []string // of attributes of the queue
}

// entry is one of a batch.
type entry struct {
	outgoing
	incoming

	id string
}

// outgoing is a message to be sent.
type outgoing struct {
	body       []byte
	given      bool
	attributes []broker.Property
	delay      time.Duration
}

// incoming names one that was received.
type incoming struct{ receipt string }

// perform reads the action, and then acts: in JSON it may come last.
func (a *api) perform(w http.ResponseWriter, r *httpx.Request) error {
	text, err := r.ReadBody(httpx.MaxBatch)
	if err != nil {
		return err
	}
	c := call{most: 1, visibility: broker.DefaultLease}
	err = httpx.Decode(text, httpx.IgnoreUnknown, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) error { return c.read(d, name) })
	})
	if err != nil {
		return err
	}
	act := a.actionNamed(c.action)
	switch {
	case c.action == "":
		return httpx.FieldError("Action", "is missing")
	case act == nil:
		return httpx.FieldError("Action", "is %q, which is not known here", httpx.Clip(c.action))
	}
	if len(c.entries) == 0 { // only a batch may be larger
		if err := r.Within(httpx.MaxJSON, text); err != nil {
			return err
		}
	}
	return act(w, r, &c)
}

func (a *api) actionNamed(name string) func(w http.ResponseWriter, r *httpx.Request, c *call) error {
	switch name {
	case "SendMessage":
		return a.send
	case "ReceiveMessage":
		return a.receive
	case "DeleteMessage":
		return a.remove
	case "SendMessageBatch":
		return a.sendMany
	case "DeleteMessageBatch":
		return a.removeMany
	case "ChangeMessageVisibility":
		return a.changeVisibility
	case "PurgeQueue":
		return a.purge
	case "GetQueueAttributes":
		return a.attributes
	}
	return nil
}

func (c *call) read(d *httpx.Decoder, name []byte) (err error) {
	switch string(name) {
	case "Action":
		return readOptional(d, &c.action)
	case "MaxNumberOfMessages":
		err = readWhole(d, &c.most, 1, maxCount)
		c.most = min(c.most, maxReceive)
	case "WaitTimeSeconds":
		n := int64(0)
		err = readWhole(d, &n, 0, maxCount)
		c.wait = min(time.Duration(min(n, int64(time.Hour/time.Second)))*time.Second, maxWait)
	case "VisibilityTimeout":
		err = readSeconds(d, &c.visibility, maxVisibility)
	case "Entries":
		err = c.readEntries(d)
	case "AttributeNames":
		if d.Null() {
			return nil
		}
		err = d.Array(func(int) error {
			s, err := d.String()
			c.names = append(c.names, s)
			return err
		})
	default:
		known, err := c.outgoing.read(d, name)
		if !known {
			known, err = c.incoming.read(d, name)
		}
		if !known {
			return d.Unknown()
		}
		return err
	}
	return err
}

func (c *call) readEntries(d *httpx.Decoder) error {
	if d.Null() {
		return nil
	}
	return d.Array(func(i int) error {
		if i == maxEntries {
			return httpx.Problem("is over the limit of %d entries", maxEntries)
		}
		c.entries = append(c.entries, entry{})
		e := &c.entries[i]
		return d.Object(func(name []byte) error {
			if string(name) == "Id" {
				return readOptional(d, &e.id)
			}
			known, err := e.outgoing.read(d, name)
			if !known {
				known, err = e.incoming.read(d, name)
			}
			if !known {
				return d.Unknown()
			}
			return err
		})
	})
}

func (m *outgoing) read(d *httpx.Decoder, name []byte) (known bool, err error) {
	switch string(name) {
	case "MessageBody":
		if m.given = !d.Null(); m.given {
			m.body, err = d.Bytes()
		}
	case "MessageAttributes":
		m.attributes, err = readAttributes(d)
	case "DelaySeconds":
		err = readSeconds(d, &m.delay, maxDelay)
	default:
		return false, nil
	}
	return true, err
}

func (m *incoming) read(d *httpx.Decoder, name []byte) (known bool, err error) {
	if string(name) != "ReceiptHandle" {
		return false, nil
	}
	return true, readOptional(d, &m.receipt)
}

func (m *outgoing) checkMessage() error {
	if !m.given {
		return httpx.FieldError("MessageBody", "is missing")
	}
	return nil
}

func (m *incoming) checkReceipt() error {
	if m.receipt == "" {
		return httpx.FieldError("ReceiptHandle", "is missing")
	}
	return nil
}

// checkEntries looks at a batch as a whole before anything is done.
func (c *call) checkEntries(check func(*entry) error) error {
	if len(c.entries) == 0 {
		return httpx.FieldError("Entries", "must hold at least one entry")
	}
	seen := make(map[string]bool, len(c.entries))
	for i := range c.entries {
		e := &c.entries[i]
		switch err := check(e); {
		case err != nil:
			return inEntry(i, err)
		case e.id == "" || seen[e.id]:
			return httpx.FieldError("Entries", "must each have an Id of their own, entry %d has not", i)
		}
		seen[e.id] = true
	}
	return nil
}

// inEntry says of which entry an error of its body is.
func inEntry(i int, err error) error {
	return &broker.Error{Kind: broker.Invalid, Message: "Entries[" + strconv.Itoa(i) + "]." + err.Error()}
}

// wants reports whether an attribute of the queue was asked for.
func (c *call) wants(name string) bool {
	return len(c.names) == 0 || slices.Contains(c.names, "All") || slices.Contains(c.names, name)
}
