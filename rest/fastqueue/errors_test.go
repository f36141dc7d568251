package fastqueue_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/rest/fastqueue"
)

func TestEveryKindHasARowInTheErrorTable(t *testing.T) {
	for _, k := range broker.Kinds() {
		if _, ok := fastqueue.ByKind[k]; !ok {
			t.Errorf("kind %d has no row", k)
		}
		for _, s := range []broker.Subject{
			broker.NoSubject, broker.TopicSubject, broker.FilterSubject, broker.QueueSubject, broker.StreamSubject,
			broker.MessageSubject, broker.ReceiptSubject, broker.OffsetSubject, broker.PayloadSubject, broker.FieldSubject,
		} {
			status, detail := fastqueue.Classify(fmt.Errorf("wrapped: %w", &broker.Error{Kind: k, Subject: s, Message: "m"}))
			if status < 400 || detail == "" || status == 410 || status == 422 {
				t.Errorf("kind %d, subject %q: %d %s", k, s, status, detail)
			}
		}
	}
}

func TestErrorsHaveTheWordsOfThePage(t *testing.T) {
	e := func(k broker.Kind, s broker.Subject) error { return &broker.Error{Kind: k, Subject: s, Message: "m"} }
	for _, c := range []struct {
		err    error
		status int
		detail string
	}{
		{e(broker.NotFound, broker.QueueSubject), 404, "Queue not found."},
		{e(broker.Conflict, broker.QueueSubject), 409, "Queue with the given name already exists."},
		{e(broker.Full, broker.QueueSubject), 400, "Queue is full."},
		{e(broker.NotFound, broker.MessageSubject), 404, "Message not found."},
		{e(broker.Invalid, broker.FieldSubject), 400, "m"},
		{e(broker.Unauthenticated, broker.NoSubject), 401, "m"},
		{e(broker.Forbidden, broker.NoSubject), 403, "m"},
		{e(broker.TooLarge, broker.PayloadSubject), 413, "m"},
		{e(broker.Full, broker.NoSubject), 429, "m"},
		{&broker.Error{Kind: broker.Full, Message: "m", Err: broker.ErrFull}, 507, "m"},
		{e(broker.Unavailable, broker.NoSubject), 503, "m"},
		{&broker.BatchError{Index: 3, Err: e(broker.Full, broker.QueueSubject)}, 400, "Queue is full."},
	} {
		if status, detail := fastqueue.Classify(c.err); status != c.status || detail != c.detail {
			t.Errorf("%v: got %d %s, want %d %s", c.err, status, detail, c.status, c.detail)
		}
	}
	if status, _ := fastqueue.Classify(e(broker.Invalid, broker.ReceiptSubject)); status != 404 {
		t.Errorf("a handle that is no longer good: %d", status)
	}
}

func TestOurOwnFaultsAreNotTold(t *testing.T) {
	for _, err := range []error{errors.New("hunter2"), &broker.Error{Kind: broker.Internal, Message: "hunter2"}} {
		if status, detail := fastqueue.Classify(err); status != 500 || strings.Contains(detail, "hunter2") {
			t.Errorf("got %d %s", status, detail)
		}
	}
}
