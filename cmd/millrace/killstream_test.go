package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// killSubscription is the subscription of the rounds, on the stream that takes
// everything below s.
const (
	killStream       = "/streams/kills"
	killSubscription = killStream + "/subscriptions/workers"
	killCursor       = killStream + "/cursors/reader"
)

// subscribe makes the subscription, unless an earlier round did.
func (d *load) subscribe(ctx context.Context) error {
	body := map[string]string{"name": "workers", "position": "earliest"}
	err := d.api.call(ctx, http.MethodPost, killStream+"/subscriptions", body, nil)
	if err != nil && strings.Contains(err.Error(), "ALREADY_EXISTS") {
		return nil
	}
	return err
}

// streaming publishes to the stream.
func (d *load) streaming(ctx context.Context, r *rand.Rand) error {
	for {
		n, payload := d.ledger.send("stream", r, true)
		if err := d.api.publish(ctx, fmt.Sprintf("s/%d", n%7), string(payload)); err != nil {
			return err
		}
		d.ledger.acked(n)
	}
}

// reader is a cursor on partition 0 that only grows.
type reader struct {
	mu          sync.Mutex
	sent, acked uint64 // offsets that were committed, and answered
}

type cursorBody struct {
	Offsets []cursorPlace `json:"offsets"`
}

type cursorPlace struct {
	Partition int    `json:"partition"`
	Offset    uint64 `json:"offset"`
}

// readOn reads the stream from the cursor on, and moves it.
func (d *load) readOn(ctx context.Context, _ *rand.Rand) error {
	var at cursorBody
	err := d.api.call(ctx, http.MethodGet, killCursor, nil, &at)
	if err != nil && !strings.Contains(err.Error(), "NOT_FOUND") {
		return err
	}
	next := uint64(0)
	if len(at.Offsets) > 0 {
		next = at.Offsets[0].Offset
	}
	for {
		var got struct {
			Next uint64 `json:"next_offset"`
		}
		path := fmt.Sprintf("%s/partitions/0/messages?offset=%d&limit=20&timeout_seconds=1", killStream, next)
		if err := d.api.call(ctx, http.MethodGet, path, nil, &got); err != nil {
			return err
		}
		next = got.Next
		d.reader.note(&d.reader.sent, next)
		if err := d.api.call(ctx, http.MethodPost, killCursor, cursorBody{[]cursorPlace{{0, next}}}, nil); err != nil {
			return err
		}
		d.reader.note(&d.reader.acked, next)
	}
}

func (r *reader) note(what *uint64, n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*what = n
}

// check compares the cursor with what its reader was told.
func (r *reader) check(t *testing.T, l *ledger, api *service) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.acked == 0 {
		return // it was killed before the first answer
	}
	var at cursorBody
	if err := api.call(t.Context(), http.MethodGet, killCursor, nil, &at); err != nil {
		t.Fatal(err)
	}
	if len(at.Offsets) != 1 || at.Offsets[0].Offset < r.acked || at.Offsets[0].Offset > r.sent {
		l.fault("cursor", "stands at %+v; %d was answered and %d sent", at.Offsets, r.acked, r.sent)
	}
}
