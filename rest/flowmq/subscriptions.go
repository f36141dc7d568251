package flowmq

import (
	"net/http"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// subscriptionView is a subscription with its settings, by the names that POST
// and PATCH take, and its counts.
type subscriptionView struct {
	Name                     string                `json:"name"`
	Stream                   string                `json:"stream"`
	VisibilityTimeoutSeconds int64                 `json:"visibility_timeout_seconds"`
	MaxRetries               *int                  `json:"max_retries"`
	DeadLetterTopic          *string               `json:"dead_letter_topic"`
	Backoff                  backoffView           `json:"backoff"`
	OnExhausted              string                `json:"on_exhausted"`
	DeadRetentionSeconds     int64                 `json:"dead_retention_seconds"`
	MaxInFlight              int                   `json:"max_in_flight"`
	MQTTLeaseSeconds         *int64                `json:"mqtt_lease_seconds"`
	Paused                   bool                  `json:"paused"`
	MessageCount             int64                 `json:"message_count"`
	ReadyCount               int64                 `json:"ready_count"`
	DelayedCount             int64                 `json:"delayed_count"`
	InFlightCount            int64                 `json:"in_flight_count"`
	DeadCount                int64                 `json:"dead_count"`
	Partitions               []subscribedPartition `json:"partitions"`
	Books                    booksView             `json:"books"`
	CreatedAt                string                `json:"created_at"`
}

type subscribedPartition struct {
	Partition   int    `json:"partition"`
	AckedBefore uint64 `json:"acked_before"`
	NextOffset  uint64 `json:"next_offset"`
	Latest      uint64 `json:"latest"`
}

func viewSubscription(s *broker.SubscriptionInfo) subscriptionView {
	v := subscriptionView{
		Name: s.Name, Stream: s.Stream,
		VisibilityTimeoutSeconds: seconds(s.Lease), MaxRetries: orNull(s.MaxRetries, broker.Unlimited), DeadLetterTopic: orNull(s.DeadLetterTopic, ""),
		Backoff:     backoffView{seconds(s.BackoffMin), seconds(s.BackoffMax)},
		OnExhausted: either(s.DropExhausted, drop, deadLetter), DeadRetentionSeconds: seconds(s.DeadRetention),
		MaxInFlight: s.MaxInFlight, MQTTLeaseSeconds: orNull(seconds(s.MQTTLease), 0), Paused: s.Paused,
		MessageCount: s.Ready + s.Delayed + s.Leased, ReadyCount: s.Ready, DelayedCount: s.Delayed,
		InFlightCount: s.Leased, DeadCount: s.Dead + s.Held,
		Partitions: []subscribedPartition{}, Books: viewBooks(&s.Info), CreatedAt: timestamp(s.Created),
	}
	for i, p := range s.Partitioned {
		v.Partitions = append(v.Partitions, subscribedPartition{i, p.Acked, p.Next, p.End})
	}
	return v
}

// readSubscription reads the body of POST, or of PATCH, over what c already
// says; only POST has a name and a place.
func readSubscription(text []byte, c *broker.SubscriptionConfig, at *place) error {
	return httpx.Decode(text, httpx.RefuseUnknown, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) (err error) {
			switch s := string(name); s {
			case "name":
				if at == nil {
					return httpx.Problem("cannot be changed")
				}
				c.Name, err = readText(d)
			case "paused":
				c.Paused, err = d.Bool()
			default:
				if at != nil {
					if known, err := at.read(d, s); known {
						return err
					}
				}
				err = readLease(d, s, &c.LeaseConfig)
			}
			return err
		})
	})
}

// place says where in a stream to go on: exactly one of its members.
type place struct {
	broker.Place
	given []string
}

// read reads a member, if it is one of a place.
func (p *place) read(d *httpx.Decoder, name string) (known bool, err error) {
	switch name {
	case "position":
		var word string
		word, err = readOneOf(d, earliest, latest)
		p.Latest = word == latest
	case "timestamp":
		var text string
		if text, err = d.String(); err == nil {
			p.Time, err = readTimestamp(text)
		}
	case "offsets":
		err = d.Array(func(int) error {
			o, err := readOffset(d)
			p.Offsets = append(p.Offsets, o)
			return err
		})
		if err == nil && len(p.Offsets) == 0 {
			err = httpx.Problem("is empty; name a partition and an offset")
		}
	default:
		return false, nil
	}
	p.given = append(p.given, name)
	return true, err
}

// check refuses two members that contradict each other.
func (p *place) check() error {
	if len(p.given) > 1 {
		return httpx.FieldError(p.given[1], "is given beside %s; send one of position, timestamp and offsets", p.given[0])
	}
	return nil
}

func (a *api) createSubscription(w http.ResponseWriter, r *httpx.Request) error {
	text, err := r.ReadBody(httpx.MaxJSON)
	if err != nil {
		return err
	}
	c := broker.NewSubscriptionConfig(r.Param("stream"), "")
	var at place
	if err := readSubscription(text, &c, &at); err != nil {
		return err
	}
	if c.Name == "" {
		return httpx.FieldError("name", "is missing")
	}
	if err := at.check(); err != nil {
		return err
	}
	if len(at.given) == 0 {
		at.Latest = true
	}
	s, err := a.broker.CreateSubscription(r.Context(), c, at.Place)
	if err != nil {
		return err
	}
	httpx.SetDurability(w, s.Durability)
	return answer(w, r, http.StatusCreated, viewSubscription(&s))
}

func (a *api) listSubscriptions(w http.ResponseWriter, r *httpx.Request) error {
	page, err := httpx.ReadPage(r)
	if err != nil {
		return err
	}
	all, err := a.broker.Subscriptions(r.Context(), r.Param("stream"))
	if err != nil {
		return err
	}
	views := []subscriptionView{}
	for _, s := range httpx.PageOf(all, page) {
		views = append(views, viewSubscription(&s))
	}
	return answer(w, r, http.StatusOK, struct {
		Subscriptions []subscriptionView `json:"subscriptions"`
		Total         int                `json:"total"`
		Limit         int                `json:"limit"`
		Offset        int                `json:"offset"`
	}{views, len(all), page.Limit, page.Offset})
}

func (a *api) getSubscription(w http.ResponseWriter, r *httpx.Request) error {
	s, err := a.broker.Subscription(r.Context(), r.Param("stream"), r.Param("subscription"))
	if err != nil {
		return err
	}
	return answer(w, r, http.StatusOK, viewSubscription(&s))
}

func (a *api) changeSubscription(w http.ResponseWriter, r *httpx.Request) error {
	text, err := r.ReadBody(httpx.MaxJSON)
	if err != nil {
		return err
	}
	var scratch broker.SubscriptionConfig // a bad body is told before a missing subscription
	if err := readSubscription(text, &scratch, nil); err != nil {
		return err
	}
	s, err := a.broker.UpdateSubscription(r.Context(), r.Param("stream"), r.Param("subscription"),
		func(c *broker.SubscriptionConfig) error { return readSubscription(text, c, nil) })
	if err != nil {
		return err
	}
	httpx.SetDurability(w, s.Durability)
	return answer(w, r, http.StatusOK, viewSubscription(&s))
}

func (a *api) deleteSubscription(w http.ResponseWriter, r *httpx.Request) error {
	name := r.Param("subscription")
	if err := a.broker.DeleteSubscription(r.Context(), r.Param("stream"), name); err != nil {
		return err
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, deletedView{name, true})
}

// seek moves a subscription.
func (a *api) seek(w http.ResponseWriter, r *httpx.Request) error {
	var at place
	err := r.ReadJSON(httpx.MaxJSON, httpx.RefuseUnknown, false, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) error {
			known, err := at.read(d, string(name))
			if !known {
				err = d.Unknown()
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	if err := at.check(); err != nil {
		return err
	}
	if len(at.given) == 0 {
		return httpx.FieldError("position", "is missing; send one of position, timestamp and offsets")
	}
	offsets, err := a.broker.Seek(r.Context(), r.Param("stream"), r.Param("subscription"), at.Place)
	if err != nil {
		return err
	}
	views := []offsetView{}
	for _, o := range offsets {
		views = append(views, offsetView(o))
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, struct {
		Offsets []offsetView `json:"offsets"`
	}{views})
}

// ackUpTo acknowledges a message and all before it in its partition.
func (a *api) ackUpTo(w http.ResponseWriter, r *httpx.Request) error {
	var o broker.Offset
	err := r.ReadJSON(httpx.MaxJSON, httpx.RefuseUnknown, false, func(d *httpx.Decoder) (err error) {
		o, err = readOffset(d)
		return err
	})
	if err != nil {
		return err
	}
	n, err := a.broker.AckUpTo(r.Context(), r.Param("stream"), r.Param("subscription"), o)
	if err != nil {
		return err
	}
	a.setDurability(w, r)
	return answer(w, r, http.StatusOK, struct {
		Removed int `json:"removed"`
	}{n})
}
