package broker

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure an Error is. Every protocol translates a Kind
// once, in one table of its own. Kinds are only ever appended.
type Kind uint8

// The kinds of failure. The zero value is Internal, so that an error nobody
// classified is hidden from users and logged.
const (
	// Internal is a fault of ours; its text is for the log, not for clients.
	Internal Kind = iota
	// Invalid is a request that can never succeed as it stands.
	Invalid
	// Unauthenticated means that we do not know who is asking.
	Unauthenticated
	// Forbidden means that we know who is asking, and that the answer is no.
	Forbidden
	// NotFound means that the thing named does not exist.
	NotFound
	// Conflict means that the thing exists already, or changed meanwhile.
	Conflict
	// TooLarge means that a limit on the size of one thing was passed.
	TooLarge
	// Full means that a queue, or the store, has no room. Nothing was stored.
	Full
	// Unavailable means not now: draining, closed, or a store that failed.
	// Nothing was stored.
	Unavailable
	// Unknown means that the outcome is not known: it may have happened.
	Unknown
	// Damaged means that the store has lost something of the target that was
	// acknowledged, and adds nothing until somebody has looked. Nothing was stored.
	Damaged
	// kinds counts the kinds, for tables that must be complete.
	kinds
)

// Kinds returns every kind, so that a protocol's table can be tested for gaps.
func Kinds() []Kind {
	ks := make([]Kind, kinds)
	for i := range ks {
		ks[i] = Kind(i)
	}
	return ks
}

// Subject names what an Error is about, for dialects whose codes tell a
// missing queue from a missing stream.
type Subject string

// What an Error can be about.
const (
	NoSubject           Subject = ""
	TopicSubject        Subject = "topic"
	FilterSubject       Subject = "filter"
	QueueSubject        Subject = "queue"
	StreamSubject       Subject = "stream"
	PartitionSubject    Subject = "partition"
	SubscriptionSubject Subject = "subscription"
	ConsumerSubject     Subject = "consumer" // of a subscription
	MessageSubject      Subject = "message"
	ReceiptSubject      Subject = "receipt"
	OffsetSubject       Subject = "offset"
	PayloadSubject      Subject = "payload"
	FieldSubject        Subject = "field"
	ClientSubject       Subject = "client"
	RateSubject         Subject = "rate"  // of what one identity may do in a second
	LimitSubject        Subject = "limit" // of how much there may be in all
)

// Error is a failure in words for people and in a Kind for programs.
type Error struct {
	Kind    Kind
	Subject Subject
	// Field names the offending setting or member when Subject is
	// FieldSubject, in the words of /api/v1 (for example "max_retries").
	Field string
	// Message says what happened, with the value, why, and what to do.
	Message string
	// Err is the cause, if there is one. It is for the log.
	Err error
}

// Error returns the text for people, and the cause behind it.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the Kind of err: Internal when nothing in its chain says
// otherwise.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// errorf makes an Error of a kind about a subject.
func errorf(k Kind, s Subject, format string, args ...any) *Error {
	return &Error{Kind: k, Subject: s, Message: fmt.Sprintf(format, args...)}
}

// fieldError makes the Error for a setting that is out of its range.
func fieldError(field, format string, args ...any) *Error {
	return &Error{
		Kind: Invalid, Subject: FieldSubject, Field: field,
		Message: field + " " + fmt.Sprintf(format, args...),
	}
}
