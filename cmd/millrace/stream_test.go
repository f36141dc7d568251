package main_test

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTheStreamCommandsWorkTogether(t *testing.T) {
	s, api := e2e(t)
	stream := func(code int, args ...string) string {
		t.Helper()
		out, errs, got := command(t, append(append([]string{"stream"}, args...), "--url", s.url(), "--key", testKey)...)
		if got != code {
			t.Fatalf("stream %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errs)
		}
		return out + errs
	}
	holds := func(got, want string) {
		t.Helper()
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %s", want, got)
		}
	}
	stream(0, "add", "a/log", "--topic-filter", "log/#")
	stream(0, "edit", "a/log", "--retention-days", "3")
	holds(stream(0, "info", "a/log", "-o", "table"), "retention_days")
	holds(stream(0, "ls", "-o", "table"), "log/#")
	holds(stream(3, "info", "none"), "hint: millrace stream ls")
	stream(0, "subscription", "add", "a/log", "work", "--position", "latest", "--max-retries", "5")
	for _, text := range []string{"one", "two", "three"} {
		if err := api.publish(t.Context(), "log/x", text); err != nil {
			t.Fatal(err)
		}
	}
	holds(stream(0, "read", "a/log", "--offset", "1"), "two")
	stream(0, "cursor", "set", "a/log", "reader", "--offset", "2")
	stream(1, "cursor", "set", "a/log", "reader", "--offset", "1")
	holds(stream(0, "cursor", "ls", "a/log", "-o", "table"), "reader")
	stream(0, "cursor", "info", "a/log", "reader")
	stream(0, "cursor", "rm", "a/log", "reader", "--yes")

	holds(stream(0, "subscription", "peek", "a/log", "work"), "one")
	var got received
	if err := json.Unmarshal([]byte(stream(0, "subscription", "receive", "a/log", "work", "-o", "json")), &got); err != nil || len(got.Messages) != 1 {
		t.Fatalf("received %+v, %v", got, err)
	}
	m := got.Messages[0]
	stream(0, "subscription", "nack", "a/log", "work", m.ID, m.Receipt, "--delay", "0s")
	holds(stream(0, "subscription", "receive", "a/log", "work", "--ack"), "one")
	stream(0, "subscription", "ack-up-to", "a/log", "work", "0", "2")
	stream(6, "subscription", "receive", "a/log", "work")
	stream(0, "subscription", "seek", "a/log", "work", "0:2")
	holds(stream(0, "subscription", "receive", "a/log", "work"), "three")
	stream(0, "subscription", "seek", "a/log", "work", "earliest")
	stream(0, "subscription", "edit", "a/log", "work", "--paused", "true")
	stream(6, "subscription", "receive", "a/log", "work")
	holds(stream(0, "subscription", "ls", "a/log", "-o", "table"), "work")
	holds(stream(0, "subscription", "info", "a/log", "work"), "acked_before")
	stream(2, "subscription", "seek", "a/log", "work", "sometime")
	stream(0, "subscription", "rm", "a/log", "work", "--yes")
	stream(0, "rm", "a/log", "--yes")
}

// received is the answer of a receive.
type received struct {
	Messages []struct {
		ID      string `json:"message_id"`
		Receipt string `json:"receipt_handle"`
	} `json:"messages"`
}
