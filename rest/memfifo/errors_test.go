package memfifo_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/rest/internal/httpx"
	"millrace/rest/memfifo"
)

func TestEveryKindHasARowInTheErrorTable(t *testing.T) {
	for _, k := range broker.Kinds() {
		if memfifo.ByKind[k] == 0 {
			t.Errorf("kind %d has no row", k)
		}
		status, text := memfifo.Classify(fmt.Errorf("wrapped: %w", &broker.Error{Kind: k, Subject: broker.PayloadSubject, Message: "m"}))
		if status != memfifo.ByKind[k] || text == "" {
			t.Errorf("kind %d: %d %q", k, status, text)
		}
	}
}

func TestErrorsHaveTheirStatus(t *testing.T) {
	e := func(k broker.Kind, s broker.Subject) error { return &broker.Error{Kind: k, Subject: s, Message: "m"} }
	for _, c := range []struct {
		err    error
		status int
	}{
		{e(broker.Conflict, broker.QueueSubject), 400},
		{e(broker.TooLarge, broker.PayloadSubject), 413},
		{e(broker.TooLarge, broker.FilterSubject), 400},
		{e(broker.Full, broker.QueueSubject), 503},
		{&broker.Error{Kind: broker.Full, Message: "m", Err: broker.ErrFull}, 507},
		{context.DeadlineExceeded, 504},
		{&broker.BatchError{Err: e(broker.NotFound, broker.QueueSubject)}, 404},
		{httpx.ErrNoRoute, 404},
		{&httpx.StatusError{Status: 408, Message: "m"}, 408},
	} {
		if status, _ := memfifo.Classify(c.err); status != c.status {
			t.Errorf("%v: got %d, want %d", c.err, status, c.status)
		}
	}
}

func TestOurOwnFaultsAreNotTold(t *testing.T) {
	for _, err := range []error{
		errors.New("password hunter2 in /etc/secret"),
		&broker.Error{Kind: broker.Internal, Message: "hunter2"},
		&broker.Error{Kind: broker.Forbidden, Message: "no", Err: errors.New("hunter2")},
	} {
		if _, text := memfifo.Classify(err); strings.Contains(text, "hunter2") {
			t.Errorf("%v is told as %q", err, text)
		}
	}
}
