package fastqueue_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// with performs an action on the queue q with one more header.
func (d *door) with(tb testing.TB, header, value, body string) *httptest.ResponseRecorder {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), "POST", "/v1/queue/q", strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer root."+secret)
	r.Header.Set(header, value)
	return d.Send(r)
}

func TestAnIdempotencyKeyStoresAMessageOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.queue(t, `{"name":"q"}`)
		send := func(key, text string) (status int, id string, duplicate bool) {
			t.Helper()
			w := d.with(t, "Idempotency-Key", key, `{"Action":"SendMessage","MessageBody":"`+text+`"}`)
			var sent struct {
				MessageID string `json:"MessageId"`
				Duplicate bool
			}
			must(t, json.Unmarshal(w.Body.Bytes(), &sent))
			return w.Code, sent.MessageID, sent.Duplicate
		}
		_, first, _ := send("k", "x")
		if status, id, again := send(`"k"`, "x"); status != 200 || id != first || !again {
			t.Errorf("a repeat: %d %s %v, the first was %s", status, id, again, first)
		}
		if status, _, _ := send("k", "y"); status != 409 {
			t.Errorf("another message under the same key: %d", status)
		}
		if status, _, _ := send(strings.Repeat("k", 129), "x"); status != 400 {
			t.Errorf("a key of 129 characters: %d", status)
		}
		time.Sleep(6 * time.Minute)
		if _, _, again := send("k", "x"); again {
			t.Error("the window has no end")
		}
		batch := `{"Action":"SendMessageBatch","Entries":[{"Id":"1","MessageBody":"a"},{"Id":"2","MessageBody":"a"}]}`
		if w := d.with(t, "Idempotency-Key", "b", batch); w.Code != 200 || strings.Contains(w.Body.String(), "duplicate") {
			t.Errorf("a batch: %d %s", w.Code, w.Body)
		}
		if w := d.with(t, "Idempotency-Key", "b", batch); strings.Count(w.Body.String(), `"duplicate":true`) != 2 {
			t.Errorf("a repeated batch: %d %s", w.Code, w.Body)
		}
		if got := d.receive(t, `"MaxNumberOfMessages":9`); bodies(got) != "x x a a" {
			t.Errorf("received %s", bodies(got))
		}
	})
}

func TestAReceiveSentAgainUnderItsAttemptGetsTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.queue(t, `{"name":"q"}`)
		d.sendText(t, "1")
		d.sendText(t, "2")
		receive := func(attempt string) message {
			t.Helper()
			var got struct{ Messages []message }
			must(t, json.Unmarshal(d.with(t, "Receive-Attempt-Id", attempt, `{"Action":"ReceiveMessage"}`).Body.Bytes(), &got))
			if len(got.Messages) != 1 {
				t.Fatalf("received %v", got)
			}
			return got.Messages[0]
		}
		first := receive("a")
		if again := receive("a"); again.ReceiptHandle != first.ReceiptHandle || again.Body != "1" {
			t.Errorf("again: %+v, first %+v", again, first)
		}
		if other := receive("b"); other.Body != "2" {
			t.Errorf("another attempt: %+v", other)
		}
		time.Sleep(16 * time.Second)
		if later := receive("a"); later.ReceiptHandle == first.ReceiptHandle || later.ApproximateReceiveCount != 2 {
			t.Errorf("after the lease: %+v", later)
		}
	})
}

// An account has everything inside /v1 and no MQTT: it cannot read what MQTT
// brings by having a queue fed from there.
func TestAnAccountHasNoTopicFeedItsQueue(t *testing.T) {
	d := open(t)
	ok[any](t, d, 200, "POST", "/v1/auth/register", `{"username":"ann","password":"correct horse"}`)
	login := ok[map[string]string](t, d, 200, "POST", "/v1/auth/login", `{"username":"ann","password":"correct horse"}`)
	create := func(header, body string) int {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/queues", strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+header)
		return d.Send(r).Code
	}
	if status := create(login["access_token"], `{"name":"fed","topic_filter":"a/#"}`); status != 403 {
		t.Errorf("an account with a filter: %d", status)
	}
	if status := create(login["access_token"], `{"name":"plain"}`); status != 201 {
		t.Errorf("an account without: %d", status)
	}
	if status := create("root."+secret, `{"name":"fed","topic_filter":"a/#"}`); status != 201 {
		t.Errorf("an administrator's key: %d", status)
	}
}
