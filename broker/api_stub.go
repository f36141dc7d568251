package broker

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker/auth"
)

// Options configure a Broker. Zero values take the stated default.
type Options struct {
	Store Store      // required
	Auth  *auth.Auth // required
	Log   zerolog.Logger

	MaxPayload     int // bytes; default 4 MiB
	MaxTopicBytes  int // default 1,024
	MaxTopicLevels int // default 201
	MaxWaiting     int // receives waiting at once; default 10,000
}

// Broker is the one entry point for every protocol.
type Broker struct{}

// Open reads the definitions from the store, binds them to the topic tree, and
// begins to answer the store's events.
func Open(ctx context.Context, o Options) (*Broker, error) { panic("stub") }

// Close refuses new work and waits for what is under way. It does not close the store.
func (b *Broker) Close(ctx context.Context) error { panic("stub") }

// Auth decides who may do what.
func (b *Broker) Auth() *auth.Auth { panic("stub") }

// State is the condition of the store.
func (b *Broker) State() State { panic("stub") }

// CheckTopic and CheckFilter report an *Error (Invalid, TopicSubject or
// FilterSubject) when the name breaks the grammar or a limit; CheckTopic also
// when it is reserved and cannot be published to by clients.
func (b *Broker) CheckTopic(topic string) error   { panic("stub") }
func (b *Broker) CheckFilter(filter string) error { panic("stub") }

// Matched says what a publish met.
type Matched struct{ Subscribers, Queues, Streams int }

// Published is the broker's answer to a publish.
type Published struct {
	ID         ID
	Time       int64 // when it was taken, Unix milliseconds
	Matched    Matched
	Duplicate  bool
	Durability Durability
}

// Publish takes m, and returns when it is as durable as Published.Durability
// says. The principal comes from ctx (auth.From). ctx bounds the wait only:
// after it ended the outcome is Unknown.
func (b *Broker) Publish(ctx context.Context, m *Message) (Published, error) { panic("stub") }

// PublishBatch is Publish for many: all are stored, or none. The error of a bad
// entry is a *BatchError that names its index.
func (b *Broker) PublishBatch(ctx context.Context, ms []*Message) ([]Published, error) { panic("stub") }

// BatchError is the error of one entry of a batch; nothing of the batch was stored.
type BatchError struct {
	Index int
	Err   error
}

func (e *BatchError) Error() string { return e.Err.Error() }
func (e *BatchError) Unwrap() error { return e.Err }

// Outcome is the end of one Producer.Publish.
type Outcome struct {
	Tag uint64
	Published
	Err error
}

// Producer publishes for one connection without waiting. It is used by one goroutine.
type Producer struct{}

// NewProducer returns a producer that publishes as p. done is called with the
// outcomes of Publish calls, in their order, never concurrently, from any
// goroutine (also the caller's, inside Publish or Flush, when nothing had to be
// stored); it must not block, and the slice is only valid during the call.
func (b *Broker) NewProducer(p *auth.Principal, done func([]Outcome)) *Producer { panic("stub") }

// Publish takes m, whose bytes must not change any more. What has to be stored
// is gathered until Flush (or until a batch is full). A QoS 0 message has no Outcome.
func (p *Producer) Publish(m *Message, tag uint64) { panic("stub") }

// Flush hands what was gathered to the store. It blocks only for back-pressure.
func (p *Producer) Flush() { panic("stub") }

// Close forgets the callback: outcomes still under way are not told any more.
func (p *Producer) Close() { panic("stub") }

// Sink takes messages for live subscribers: one call for each message, with
// all of the sink's subscriptions that matched (one subscriber may appear more
// than once, by different filters). Calls for messages of one producer come in
// order; others run concurrently. It must not block, and to is only valid during the call.
type Sink interface {
	Deliver(m *Message, to []*Subscription)
}

// Subscription is a live interest in a filter.
type Subscription struct {
	Filter    string
	Principal *auth.Principal
	Sink      Sink
	Member    any // the sink's own
}

// Subscribe adds s to the tree: every message published after it returned
// reaches the sink. Forbidden when nothing of the filter is allowed.
func (b *Broker) Subscribe(s *Subscription) error { panic("stub") }

// Unsubscribe takes s out again. Messages under way may still be delivered.
func (b *Broker) Unsubscribe(s *Subscription) { panic("stub") }

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

// QueueConfig is everything that can be set about a queue.
type QueueConfig struct {
	Name            string
	Filter          string        // "" = only sent to directly
	Driver          Driver        // default disk; cannot change
	MaxBytes        int64         // default 1 GiB, at least 1 MiB
	MaxMessages     int64         // 0 = no limit
	Overflow        Overflow      // default drop-oldest with a filter, reject without
	TTL             time.Duration // 0 = never; default 24 h
	MaxRetries      int           // redeliveries; default 3; Unlimited
	DeadLetterTopic string        // "" = parked
	Lease           time.Duration // default 30 s; 0 to 12 h
	Delay           time.Duration // default 0; at most 7 days
	BackoffMin      time.Duration // default 1 s
	BackoffMax      time.Duration // default 60 s
	DropExhausted   bool          // on_exhausted: drop; default dead-letter or park
	LapseExpired    bool          // on_expired: dead-letter; default drop
	DeadRetention   time.Duration // default 14 days
	MaxInFlight     int           // default 120,000
	FIFOGroups      bool
	MQTTLease       time.Duration // 0 = as long as the connection
	Paused          bool
	Created         time.Time
}

// NewQueueConfig returns the defaults for a queue fed by filter.
func NewQueueConfig(name, filter string) QueueConfig { panic("stub") }

// QueueInfo is a queue and its counts.
type QueueInfo struct {
	QueueConfig
	Info
}

// StreamConfig is everything that can be set about a stream.
type StreamConfig struct {
	Name       string
	Filter     string
	Retention  time.Duration // default 7 days; recorded, not yet enforced
	MaxBytes   int64         // default 10 GiB; recorded, not yet enforced
	Partitions int           // default 1, at most 1,024
	Created    time.Time
}

// NewStreamConfig returns the defaults for a stream fed by filter.
func NewStreamConfig(name, filter string) StreamConfig { panic("stub") }

// StreamInfo is a stream and its counts.
type StreamInfo struct {
	StreamConfig
	Partitioned []PartitionInfo
}

func (b *Broker) CreateQueue(ctx context.Context, c QueueConfig) (QueueInfo, error) { panic("stub") }

// UpdateQueue applies change to the present settings; the result must be valid as a whole.
func (b *Broker) UpdateQueue(ctx context.Context, name string, change func(*QueueConfig) error) (QueueInfo, error) {
	panic("stub")
}
func (b *Broker) DeleteQueue(ctx context.Context, name string) error        { panic("stub") }
func (b *Broker) Queue(ctx context.Context, name string) (QueueInfo, error) { panic("stub") }

// Queues lists the queues that ctx's principal may see, by name.
func (b *Broker) Queues(ctx context.Context) ([]QueueInfo, error) { panic("stub") }

func (b *Broker) CreateStream(ctx context.Context, c StreamConfig) (StreamInfo, error) { panic("stub") }
func (b *Broker) DeleteStream(ctx context.Context, name string) error                  { panic("stub") }
func (b *Broker) Stream(ctx context.Context, name string) (StreamInfo, error)          { panic("stub") }
func (b *Broker) Streams(ctx context.Context) ([]StreamInfo, error)                    { panic("stub") }

// DefaultLease as ReceiveOptions.Lease takes the queue's.
const DefaultLease = time.Duration(-1)

// ReceiveOptions ask for messages.
type ReceiveOptions struct {
	Max   int           // messages, at least 1
	Wait  time.Duration // 0 = what is there now
	Lease time.Duration // 0 to 12 h, or DefaultLease
}

// Received is a leased message and the receipt that settles it.
type Received struct {
	Delivery
	Receipt string
}

// Receive leases up to o.Max messages; it returns as soon as one is there. An
// empty result is not an error. When ctx ends first, nothing was taken.
func (b *Broker) Receive(ctx context.Context, queue string, o ReceiveOptions) ([]Received, error) {
	panic("stub")
}

// AckState tells what an ack met.
type AckState string

// The states.
const (
	Removed AckState = "removed"
	Gone    AckState = "gone" // a genuine receipt of a message already removed
)

func (b *Broker) Ack(ctx context.Context, queue string, id ID, receipt string) (AckState, error) {
	panic("stub")
}

// Settlement names a delivery to settle.
type Settlement struct {
	ID      ID
	Receipt string
}

// AckResult is the end of one Settlement.
type AckResult struct {
	State AckState
	Err   error
}

// AckBatch settles many in one commit; each has a result of its own.
func (b *Broker) AckBatch(ctx context.Context, queue string, s []Settlement) ([]AckResult, error) {
	panic("stub")
}

// Backoff as the delay of a Nack takes the queue's back-off.
const Backoff = time.Duration(-1)

// Nack gives a message back; it answers the delay that applied.
func (b *Broker) Nack(ctx context.Context, queue string, id ID, receipt string, delay time.Duration) (time.Duration, error) {
	panic("stub")
}

// Extend moves the end of a lease to d from now, and answers it.
func (b *Broker) Extend(ctx context.Context, queue string, id ID, receipt string, d time.Duration) (time.Time, error) {
	panic("stub")
}

// Browse shows messages in the given states without leasing them.
func (b *Broker) Browse(ctx context.Context, queue string, states EntryState, skip, limit int) ([]Delivery, error) {
	panic("stub")
}

// Purge removes ready and delayed messages, with all also leased and dead ones, and answers how many.
func (b *Broker) Purge(ctx context.Context, queue string, all bool) (int, error) { panic("stub") }
