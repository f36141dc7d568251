package flowmq_test

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func (d *door) once(tb testing.TB, key, path, body string) *httptest.ResponseRecorder {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), "POST", path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer root."+secret)
	r.Header.Set("Idempotency-Key", key)
	return d.Send(r)
}

func TestRepeatUnderAnIdempotencyKeyIsADuplicate(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"#"}`)
	const path = "/api/v1/topics/a/messages"
	type published struct {
		MessageID string `json:"message_id"`
		Duplicate bool
	}
	first := parse[published](t, d.once(t, "k1", path, `{"payload":"x"}`)).Data
	for _, key := range []string{"k1", `"k1"`} {
		if again := parse[published](t, d.once(t, key, path, `{"payload":"x"}`)).Data; !again.Duplicate || again.MessageID != first.MessageID {
			t.Errorf("%s: repeat %+v of %+v", key, again, first)
		}
	}
	if w := d.once(t, "k1", path, `{"payload":"y"}`); w.Code != 409 {
		t.Errorf("another body: status %d %s", w.Code, w.Body)
	}
	if again := parse[published](t, d.once(t, "k1", "/api/v1/topics/b/messages", `{"payload":"x"}`)).Data; again.Duplicate {
		t.Error("another topic is no duplicate")
	}
	if w := d.once(t, strings.Repeat("k", 128), path, `{"payload":"x"}`); w.Code != 200 {
		t.Errorf("128 characters: status %d %s", w.Code, w.Body)
	}
	for _, key := range []string{strings.Repeat("k", 129), "", `""`, "a\x01"} {
		if w := d.once(t, key, path, `{"payload":"x"}`); w.Code != 400 {
			t.Errorf("key %q: status %d", key, w.Code)
		}
	}
	refused(t, d, 400, "INVALID_PARAMETER", "POST", path, `{"payload":"","idempotency_key":"k"}`)
}

func TestKeyOfABatchCoversItsEntries(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"#"}`)
	const path, body = "/api/v1/topics/a/messages/batch", `{"messages":[{"payload":"1"},{"payload":"2"},{"payload":"3","idempotency_key":"own"},{"payload":"3","idempotency_key":"own"}]}`
	type published struct{ Messages []struct{ Duplicate bool } }
	duplicates := func(w *httptest.ResponseRecorder) (s string) {
		for _, m := range parse[published](t, w).Data.Messages {
			if m.Duplicate {
				s += "d"
			} else {
				s += "-"
			}
		}
		return s
	}
	long := strings.Repeat("k", 128)
	if got := duplicates(d.once(t, long, path, body)); got != "---d" {
		t.Errorf("first: %s", got)
	}
	if got := duplicates(d.once(t, long, path, body)); got != "dddd" {
		t.Errorf("repeat: %s", got)
	}
	if w := d.once(t, long, path, strings.Replace(body, "2", "two", 1)); w.Code != 409 {
		t.Errorf("another batch: status %d %s", w.Code, w.Body)
	}
	if got := len(d.consume(t, "q", `{"max_messages":10}`)); got != 3 {
		t.Errorf("%d messages were stored", got)
	}
}
