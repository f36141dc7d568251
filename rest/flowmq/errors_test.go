package flowmq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/rest/flowmq"
	"millrace/rest/internal/httpx"
)

func TestEveryKindHasARowInTheErrorTable(t *testing.T) {
	for _, k := range broker.Kinds() {
		if _, ok := flowmq.ByKind[k]; !ok {
			t.Errorf("kind %d has no row", k)
		}
		for _, s := range []broker.Subject{
			broker.NoSubject, broker.TopicSubject, broker.FilterSubject, broker.QueueSubject, broker.StreamSubject,
			broker.MessageSubject, broker.ReceiptSubject, broker.OffsetSubject, broker.PayloadSubject, broker.FieldSubject,
		} {
			status, code, _ := flowmq.Classify(fmt.Errorf("wrapped: %w", &broker.Error{Kind: k, Subject: s, Message: "m"}))
			if status < 400 || code == "" || status == 410 || status == 422 {
				t.Errorf("kind %d, subject %q: %d %s", k, s, status, code)
			}
		}
	}
}

func TestErrorsHaveTheirCodes(t *testing.T) {
	e := func(k broker.Kind, s broker.Subject) error { return &broker.Error{Kind: k, Subject: s, Message: "m"} }
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{e(broker.Invalid, broker.NoSubject), 400, "INVALID_REQUEST"},
		{e(broker.Invalid, broker.FieldSubject), 400, "INVALID_PARAMETER"},
		{e(broker.Invalid, broker.TopicSubject), 400, "INVALID_TOPIC"},
		{e(broker.Invalid, broker.FilterSubject), 400, "INVALID_TOPIC_FILTER"},
		{e(broker.Invalid, broker.ReceiptSubject), 400, "INVALID_RECEIPT_HANDLE"},
		{e(broker.Invalid, broker.OffsetSubject), 400, "OFFSET_OUT_OF_RANGE"},
		{e(broker.Unauthenticated, broker.NoSubject), 401, "UNAUTHORIZED"},
		{e(broker.Forbidden, broker.NoSubject), 403, "FORBIDDEN"},
		{e(broker.NotFound, broker.QueueSubject), 404, "QUEUE_NOT_FOUND"},
		{e(broker.NotFound, broker.StreamSubject), 404, "STREAM_NOT_FOUND"},
		{e(broker.NotFound, broker.MessageSubject), 404, "MESSAGE_NOT_FOUND"},
		{e(broker.Conflict, broker.QueueSubject), 409, "ALREADY_EXISTS"},
		{e(broker.Conflict, broker.StreamSubject), 409, "ALREADY_EXISTS"},
		{e(broker.Conflict, broker.NoSubject), 409, "CONFLICT"},
		{e(broker.TooLarge, broker.PayloadSubject), 413, "PAYLOAD_TOO_LARGE"},
		{e(broker.Full, broker.QueueSubject), 429, "QUEUE_FULL"},
		{e(broker.Full, broker.NoSubject), 429, "TOO_MANY_REQUESTS"},
		{&broker.Error{Kind: broker.Full, Message: "m", Err: broker.ErrFull}, 507, "STORAGE_FULL"},
		{e(broker.Unavailable, broker.NoSubject), 503, "UNAVAILABLE"},
		{e(broker.Unknown, broker.NoSubject), 504, "OUTCOME_UNKNOWN"},
		{context.DeadlineExceeded, 504, "OUTCOME_UNKNOWN"},
		{&broker.BatchError{Index: 3, Err: e(broker.Invalid, broker.TopicSubject)}, 400, "INVALID_TOPIC"},
		{httpx.ErrNoRoute, 404, "NOT_FOUND"},
		{&httpx.StatusError{Status: 405}, 405, "METHOD_NOT_ALLOWED"},
		{&httpx.StatusError{Status: 408}, 408, "INVALID_REQUEST"},
	} {
		if status, code, _ := flowmq.Classify(c.err); status != c.status || code != c.code {
			t.Errorf("%v: got %d %s, want %d %s", c.err, status, code, c.status, c.code)
		}
	}
}

func TestOurOwnFaultsAreNotTold(t *testing.T) {
	for _, err := range []error{
		errors.New("password hunter2 in /etc/secret"),
		&broker.Error{Kind: broker.Internal, Message: "hunter2", Subject: broker.FieldSubject, Field: "hunter2"},
	} {
		if status, code, message := flowmq.Classify(err); status != 500 || code != "INTERNAL_ERROR" || strings.Contains(message, "hunter2") {
			t.Errorf("got %d %s %s", status, code, message)
		}
	}
	cause := &broker.Error{Kind: broker.Forbidden, Message: "no", Err: errors.New("rule 7")}
	if _, _, message := flowmq.Classify(cause); message != "no" {
		t.Errorf("the cause is told: %s", message)
	}
}
