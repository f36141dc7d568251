package broker

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"millrace/broker/auth"
	"millrace/router"
)

// Overflow says what a full queue does.
type Overflow string

// The overflow policies.
const (
	DropOldest Overflow = "drop-oldest"
	Reject     Overflow = "reject"
)

// Driver says where a queue lives.
type Driver string

// The drivers.
const (
	Disk   Driver = "disk"
	Memory Driver = "memory"
)

// Unlimited as MaxRetries redelivers without end.
const Unlimited = -1

// MaxDelay is how far ahead a message, or a queue for all of its messages, can
// put the first delivery.
const MaxDelay = 7 * 24 * time.Hour

// Limits of the settings of a queue.
const (
	maxLease       = 12 * time.Hour
	maxDelay       = MaxDelay
	maxDuration    = 100 * 365 * 24 * time.Hour
	maxRetries     = 1_000_000
	minQueueBytes  = 1 << 20
	maxInFlight    = 1_000_000
	maxNameBytes   = 255
	defaultFlight  = 120_000
	defaultBackoff = time.Second
)

// QueueConfig is everything that can be set about a queue. NewQueueConfig
// gives the defaults; zero means zero.
type QueueConfig struct {
	Name         string        // letter or digit, then letters, digits, "-", ".", "_"; at most 255 bytes
	Filter       string        // "" = only sent to directly
	Driver       Driver        // default disk; cannot change
	MaxBytes     int64         // default 1 GiB, at least 1 MiB
	MaxPayload   int64         // bytes of the payloads alone; 0 = no limit of its own
	MaxMessages  int64         // 0 = no limit
	Overflow     Overflow      // default drop-oldest with a filter, reject without
	TTL          time.Duration // default 24 h; 0 = never
	Delay        time.Duration // of every message; 0 to 7 days
	LapseExpired bool          // expired messages go to the dead-letter topic
	FIFOGroups   bool          // one message of a key in flight
	LeaseConfig
	Created time.Time
	Maker   string // a word of the door that made it, for that door; cannot change
}

// LeaseConfig is how messages are handed out, by a queue or a subscription.
type LeaseConfig struct {
	Lease           time.Duration // default 30 s; 0 to 12 h
	MaxRetries      int           // redeliveries; default 3, of a subscription Unlimited
	DeadLetterTopic string        // "" = parked
	DropExhausted   bool          // drop after the last attempt instead of keeping it dead
	DeadRetention   time.Duration // default 14 days; 0 = for ever, or as long as the stream has them
	BackoffMin      time.Duration // after a nack; default 1 s, doubling
	BackoffMax      time.Duration // default 60 s
	MaxInFlight     int           // default 120,000
	MQTTLease       time.Duration // 0 = as long as the connection
	Paused          bool          // delivers nothing
}

func newLeaseConfig() LeaseConfig {
	return LeaseConfig{
		Lease: 30 * time.Second, MaxRetries: 3, DeadRetention: 14 * 24 * time.Hour,
		BackoffMin: defaultBackoff, BackoffMax: time.Minute, MaxInFlight: defaultFlight,
	}
}

// NewQueueConfig returns the defaults for a queue fed by filter, or for one
// that is only sent to directly when filter is "".
func NewQueueConfig(name, filter string) QueueConfig {
	c := QueueConfig{
		Name: name, Filter: filter, Driver: Disk,
		MaxBytes: 1 << 30, Overflow: DropOldest, TTL: 24 * time.Hour, LeaseConfig: newLeaseConfig(),
	}
	if filter == "" {
		c.Overflow = Reject
	}
	return c
}

// queueName is EMQX's rule; it lets "$queue/NAME/FILTER" be split.
var queueName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func (b *Broker) validate(c *QueueConfig) error {
	if len(c.Name) > maxNameBytes || !queueName.MatchString(c.Name) {
		return fieldError("name", "%q is not a queue name: a letter or digit, then letters, digits, - . _, at most %d bytes", c.Name, maxNameBytes)
	}
	if c.Filter != "" {
		if err := b.checkBinding(c.Filter); err != nil {
			return err
		}
	}
	if err := b.checkDeadLetter(c.DeadLetterTopic); err != nil {
		return err
	}
	if c.Driver != Disk && c.Driver != Memory {
		return fieldError("driver", "%q is neither disk nor memory", c.Driver)
	}
	if c.Overflow != DropOldest && c.Overflow != Reject {
		return fieldError("overflow", "%q is neither drop-oldest nor reject", c.Overflow)
	}
	return c.validateRanges()
}

func (b *Broker) checkDeadLetter(topic string) error {
	if topic == "" {
		return nil
	}
	if err := b.CheckTopic(topic); err != nil {
		return fieldError("dead_letter_topic", "is not a topic to publish to: %v", err)
	}
	return nil
}

func (c *QueueConfig) validateRanges() error {
	for _, r := range []struct {
		field    string
		v        int64
		min, max int64
	}{
		{"max_size_mb", c.MaxBytes, minQueueBytes, 1 << 50},
		{"max_payload_bytes", c.MaxPayload, 0, 1 << 50},
		{"max_messages", c.MaxMessages, 0, 1 << 40},
		{"max_retries", int64(c.MaxRetries), Unlimited, maxRetries},
		{"max_in_flight", int64(c.MaxInFlight), 1, maxInFlight},
	} {
		if r.v < r.min || r.v > r.max {
			return fieldError(r.field, "is %d; it must be %d to %d", r.v, r.min, r.max)
		}
	}
	for _, r := range []struct {
		field    string
		v        time.Duration
		min, max time.Duration
	}{
		{"message_ttl_seconds", c.TTL, 0, maxDuration},
		{"visibility_timeout_seconds", c.Lease, 0, maxLease},
		{"delay_seconds", c.Delay, 0, maxDelay},
		{"backoff", c.BackoffMin, 0, maxLease},
		{"backoff", c.BackoffMax, c.BackoffMin, maxLease},
		{"dead_retention_seconds", c.DeadRetention, 0, maxDuration},
		{"mqtt_lease_seconds", c.MQTTLease, 0, maxLease},
	} {
		if r.v < r.min || r.v > r.max {
			return fieldError(r.field, "is %v s; it must be %v to %v s", r.v.Seconds(), r.min.Seconds(), r.max.Seconds())
		}
	}
	return nil
}

// checkBinding checks a filter that is to feed a queue or stream: of the
// reserved topics only $events can, and by name.
func (b *Broker) checkBinding(filter string) error {
	if err := b.CheckFilter(filter); err != nil {
		return err
	}
	if filter[0] == '$' && router.Reserved(filter) && !strings.HasPrefix(filter, "$events/") {
		return errorf(Invalid, FilterSubject, "filter %q names a reserved topic, which never feeds a queue or stream", filter)
	}
	return nil
}

// mayFeed asks whether who has a filter feed a queue or stream may subscribe to
// all of it: whoever consumes from there is not asked about topics any more.
func (b *Broker) mayFeed(ctx context.Context, filter string) error {
	if filter == "" {
		return nil
	}
	p, r := auth.From(ctx), auth.TopicResource(filter)
	d := b.auth.Decide(p, auth.Subscribe, r)
	if d.Allowed && !d.Overlap {
		return nil
	}
	return forbidden(p, auth.Subscribe, r, d.Rule)
}

// def is the part of the settings that the store needs.
func (c *QueueConfig) def() Def {
	meta, _ := json.Marshal(c) // plain fields: cannot fail
	d := Def{
		Name: c.Name, Kind: QueueTarget, Meta: meta, Volatile: c.Driver == Memory,
		MaxMessages: c.MaxMessages, MaxBytes: c.MaxBytes, MaxPayload: c.MaxPayload, DropOldest: c.Overflow == DropOldest,
		OverflowLapses: c.DeadLetterTopic != "",
		ExpiryLapses:   c.LapseExpired && c.DeadLetterTopic != "",
		TTL:            c.TTL, Delay: c.Delay, MaxInFlight: c.MaxInFlight,
		DeadRetention: c.DeadRetention, Paused: c.Paused, KeyedFIFO: c.FIFOGroups,
	}
	if c.MaxRetries != Unlimited {
		d.LapseAt = uint32(c.MaxRetries) + 1
	}
	return d
}

// queue is a queue that exists.
type queue struct {
	target   Target
	volatile bool
	settings atomic.Pointer[QueueConfig]
	// overflowed is when an alarm about it was raised last.
	overflowed second
	stream     *stream // of a subscription
}

func (*queue) destination() {}

func (q *queue) config() *QueueConfig { return q.settings.Load() }

// deadLettered reports whether q dead-lettered m before.
func (q *queue) deadLettered(m *Message) bool {
	return len(m.Origins) > 0 && slices.Contains(m.Origins, q.config().Name)
}

// String names q for people.
func (q *queue) String() string {
	if q.stream != nil {
		return "subscription " + q.config().Name + " of stream " + q.stream.config().Name
	}
	return "queue " + q.config().Name
}

// origin is the name of q in the messages that it dead-lettered.
func (q *queue) origin() string {
	if q.stream != nil {
		return "stream:" + q.stream.config().Name + "/" + q.config().Name
	}
	return q.config().Name
}

// missing is the error of q after it was deleted.
func (q *queue) missing() error {
	if q.stream != nil {
		return noSubscription(q.stream.config().Name, q.config().Name)
	}
	return noQueue(q.config().Name)
}

// promise is what a positive answer about q means.
func (b *Broker) promise(q *queue) Durability {
	if q.volatile {
		return DurabilityMemory
	}
	return b.durability
}

// Durability is what a positive answer about a queue means; for a name that is
// none, what the store promises.
func (b *Broker) Durability(queue string) Durability {
	if q := b.queueNamed(queue); q != nil {
		return b.promise(q)
	}
	return b.durability
}

// QueueInfo is a queue and its counts.
type QueueInfo struct {
	QueueConfig
	Info
	Durability Durability
}

// CreateQueue makes a queue. It receives what is published from now on.
// Errors: Invalid, Forbidden, Conflict when the name is taken, Full when there are
// as many queues as there may be.
func (b *Broker) CreateQueue(ctx context.Context, c QueueConfig) (QueueInfo, error) {
	if err := b.may(ctx, auth.Manage, auth.QueueResource(c.Name)); err != nil {
		return QueueInfo{}, err
	}
	c.Created = b.Now().UTC().Truncate(time.Millisecond)
	if err := b.validate(&c); err != nil {
		return QueueInfo{}, err
	}
	if err := b.mayFeed(ctx, c.Filter); err != nil {
		return QueueInfo{}, err
	}
	if err := b.reserveQueue(c.Name); err != nil {
		return QueueInfo{}, err
	}
	err := b.define(ctx, NewTarget, c.def())
	b.defining.Lock()
	delete(b.making, c.Name)
	b.made.Broadcast()
	q := b.queueNamed(c.Name)
	b.defining.Unlock()
	if errors.Is(err, ErrConflict) {
		return QueueInfo{}, queueExists(c.Name)
	}
	if err != nil {
		return QueueInfo{}, storeError(err)
	}
	b.log.Info().Str("queue", c.Name).Str("filter", c.Filter).Msg("queue created")
	if q == nil {
		return QueueInfo{}, noQueue(c.Name) // another node deleted it
	}
	return b.queueInfo(ctx, q)
}

// reserveQueue takes the name of a queue that is about to be made. Others are made
// meanwhile: a store of several machines takes its time for each.
func (b *Broker) reserveQueue(name string) error {
	b.lockQueue(name)
	defer b.defining.Unlock()
	if b.queueNamed(name) != nil {
		return queueExists(name)
	}
	if err := b.roomForQueue(); err != nil {
		return err
	}
	b.making[name] = true
	return nil
}

// lockQueue takes defining when the queue name is not being made.
func (b *Broker) lockQueue(name string) {
	b.defining.Lock()
	for b.making[name] {
		b.made.Wait()
	}
}

func queueExists(name string) error {
	return errorf(Conflict, QueueSubject, "queue %s exists already", name)
}

// UpdateQueue applies change to the present settings; the result must be valid
// as a whole. Limits and times apply at once; a changed filter is for new
// messages only, and nothing that waits leaves. Name and driver cannot change.
// change is called again about newer settings where another node was faster.
func (b *Broker) UpdateQueue(ctx context.Context, name string, change func(*QueueConfig) error) (QueueInfo, error) {
	if err := b.may(ctx, auth.Manage, auth.QueueResource(name)); err != nil {
		return QueueInfo{}, err
	}
	b.lockQueue(name)
	defer b.defining.Unlock()
	q := b.queueNamed(name)
	if q == nil {
		return QueueInfo{}, noQueue(name)
	}
	err := alter(ctx, b, q.target, *q.config(), func(old QueueConfig) (Def, error) {
		c := old
		if err := change(&c); err != nil {
			return Def{}, err
		}
		err := b.mayBecome(ctx, &old, &c)
		return c.def(), err
	})
	if isGone(err) {
		return QueueInfo{}, noQueue(name) // another node deleted it
	}
	if err != nil {
		return QueueInfo{}, storeError(err)
	}
	b.log.Info().Str("queue", name).Msg("queue changed")
	return b.queueInfo(ctx, q)
}

// mayBecome checks the new settings of a queue.
func (b *Broker) mayBecome(ctx context.Context, old, c *QueueConfig) error {
	switch {
	case c.Name != old.Name:
		return fieldError("name", "cannot be changed")
	case c.Driver != old.Driver:
		return fieldError("driver", "cannot be changed; make a new queue")
	}
	c.Maker = old.Maker
	if err := b.validate(c); err != nil {
		return err
	}
	if c.Filter == old.Filter {
		return nil
	}
	return b.mayFeed(ctx, c.Filter)
}

// DeleteQueue removes a queue with its messages. Receives that wait on it end
// in NotFound at once.
func (b *Broker) DeleteQueue(ctx context.Context, name string) error {
	if err := b.may(ctx, auth.Manage, auth.QueueResource(name)); err != nil {
		return err
	}
	b.lockQueue(name)
	defer b.defining.Unlock()
	q := b.queueNamed(name)
	if q == nil {
		return noQueue(name)
	}
	err := b.drop(ctx, QueueTarget, q.target, name)
	b.auth.Audit(ctx, auth.Event{What: auth.QueueDeleted, Target: "queue:" + name, Err: err})
	if isGone(err) {
		return noQueue(name)
	}
	if err != nil {
		return storeError(err)
	}
	b.log.Info().Str("queue", name).Msg("queue deleted")
	return nil
}

// Queue shows one queue.
func (b *Broker) Queue(ctx context.Context, name string) (QueueInfo, error) {
	return b.QueueFor(ctx, auth.View, name)
}

// QueueFor shows one queue to whoever may do act to it, for doors whose answer
// to that act shows the queue.
func (b *Broker) QueueFor(ctx context.Context, act auth.Action, name string) (QueueInfo, error) {
	q, err := b.lookup(ctx, act, name)
	if err != nil {
		return QueueInfo{}, err
	}
	return b.queueInfo(ctx, q)
}

// Settings returns what was set about a queue, without counts, to whoever may
// do act to it.
func (b *Broker) Settings(ctx context.Context, act auth.Action, name string) (QueueConfig, error) {
	q, err := b.lookup(ctx, act, name)
	if err != nil {
		return QueueConfig{}, err
	}
	return *q.config(), nil
}

// Queues lists the queues that the principal may see, by name.
func (b *Broker) Queues(ctx context.Context) ([]QueueInfo, error) {
	p := auth.From(ctx)
	return infos(ctx, slices.DeleteFunc(b.queuesByName(), func(q *queue) bool {
		return !b.auth.Allow(p, auth.View, auth.QueueResource(q.config().Name))
	}), b.queueInfo)
}

func (b *Broker) queueInfo(ctx context.Context, q *queue) (QueueInfo, error) {
	info, err := b.store.Info(ctx, q.target)
	if isGone(err) {
		return QueueInfo{}, noQueue(q.config().Name) // deleted meanwhile
	}
	if err != nil {
		return QueueInfo{}, storeError(err)
	}
	return QueueInfo{QueueConfig: *q.config(), Info: info, Durability: b.promise(q)}, nil
}

// lookup finds a queue that the principal of ctx may act on. Without the right
// the answer is Forbidden, whether the queue exists or not.
func (b *Broker) lookup(ctx context.Context, act auth.Action, name string) (*queue, error) {
	if err := b.may(ctx, act, auth.QueueResource(name)); err != nil {
		return nil, err
	}
	q, err := known(b, func() *queue { return b.queueNamed(name) })
	if q == nil && err == nil {
		err = noQueue(name)
	}
	return q, err
}

func noQueue(name string) error {
	return errorf(NotFound, QueueSubject, "queue %q does not exist; create it first", name)
}
