package broker

import "time"

// Message is what a producer sent. It is immutable from the moment it is
// handed to Publish: the store, queues, streams and live subscribers share it.
//
// Times are Unix milliseconds, UTC, and 0 means none: a time.Time would make
// the struct three times as large, and MQTT, the journal and the dialects all
// count in milliseconds or seconds.
type Message struct {
	// ID is made by the broker when the message is published.
	ID ID
	// Topic is an MQTT topic name, or "$queue/NAME" for a direct send.
	Topic string
	// Payload is at most Options.MaxPayload bytes.
	Payload []byte
	// ContentType is the MQTT 5 Content Type; "" for a producer that named none.
	ContentType string
	// Properties are the MQTT 5 user properties, in order, repeats allowed.
	Properties []Property
	// ResponseTopic and Correlation are for request and reply, MQTT 5 section 4.10.
	ResponseTopic string
	Correlation   []byte
	// UTF8 is the MQTT 5 Payload Format Indicator.
	UTF8 bool
	// QoS is 0, 1 or 2: the quality the producer asked for, and the most that
	// a subscriber is given.
	QoS byte
	// Retain says that the producer asked for the message to be retained.
	Retain bool
	// Published is when the broker took the message.
	Published int64
	// Expires is when the message must no longer be delivered, counted from
	// its publication. Each queue has its own limit besides.
	Expires int64
	// NotBefore is when a delayed message becomes due.
	NotBefore int64
	// Publisher is the MQTT client id or the API key id.
	Publisher string
	// Key chooses the partition of a stream and the group of a FIFO queue.
	Key string
	// EventTime, Producer and Sequence are the producer's own words (Pulsar).
	EventTime int64
	Producer  string
	Sequence  uint64
	// DedupKey is the scope and value under which a repeat within the window
	// is told as a duplicate; "" is never a duplicate. BodyHash tells a repeat
	// from another message under the same key.
	DedupKey string
	BodyHash uint64
	// Origins are the queues that dead-lettered this message, oldest first. It
	// never enters one of them again.
	Origins []string
}

// Property is an MQTT 5 user property.
type Property struct{ Name, Value string }

// Millis converts a time to the form Message keeps it in; the zero time is 0.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Time converts back: 0 is the zero time.
func Time(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
