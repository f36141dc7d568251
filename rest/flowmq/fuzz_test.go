package flowmq_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"millrace/rest/internal/httpx"
)

// FuzzBodies sends a body to the calls that read by hand: none may fail
// inside, and what a publish took is what encoding/json reads in it.
func FuzzBodies(f *testing.F) {
	for _, s := range []string{
		`{"payload":"x","properties":{"a":1,"b":true},"qos":1}`, `{"payload":"AP8=","payload_encoding":"base64"}`, `{"payload":"\u00fc\ud83d\ude00"}`,
		`{"messages":[{"payload":"x","idempotency_key":"k"}]}`, `{"messages":[{"message_id":"msg_1","receipt_handle":"r"}]}`,
		`{"max_messages":1,"timeout_seconds":0,"visibility_timeout_seconds":1}`, `{"receipt_handle":"r","delay_seconds":1}`, `{"backoff":{"min_seconds":1}}`,
	} {
		f.Add(s)
	}
	d := open(f)
	d.queue(f, `{"name":"q","topic_filter":"a"}`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, c := range [][2]string{
			{"POST", "topics/b/messages/batch"},
			{"POST", "queues/q/messages/ack"},
			{"POST", "queues/q/messages/x/nack"},
			{"POST", "queues/q/messages/x/extend"},
			{"PATCH", "queues/none"},
			{"POST", "queues/none/messages/consume"},
		} {
			if w := d.Do(t, c[0], "/api/v1/"+c[1], body); w.Code >= 500 {
				t.Fatalf("%s %s: %d %s", c[0], c[1], w.Code, w.Body)
			}
		}
		w := d.Do(t, "POST", "/api/v1/topics/a/messages", body)
		if w.Code >= 500 {
			t.Fatalf("publish: %d %s", w.Code, w.Body)
		}
		if w.Code != 200 {
			return
		}
		var sent message
		must(t, json.Unmarshal([]byte(body), &struct {
			Payload         *string `json:"payload"`
			PayloadEncoding *string `json:"payload_encoding"`
		}{&sent.Payload, &sent.PayloadEncoding}))
		got := d.consume(t, "q", `{"visibility_timeout_seconds":1}`)
		if len(got) != 1 {
			t.Fatalf("consumed %v", got)
		}
		if plainText(t, sent) != plainText(t, got[0]) {
			t.Fatalf("sent %q, got %q", sent.Payload, got[0].Payload)
		}
		ok[any](t, d, 200, "POST", "/api/v1/queues/q/messages/"+got[0].MessageID+"/ack", `{"receipt_handle":"`+got[0].ReceiptHandle+`"}`)
	})
}

func plainText(t *testing.T, m message) string {
	t.Helper()
	if m.PayloadEncoding != "base64" {
		return m.Payload
	}
	b, err := base64.StdEncoding.DecodeString(m.Payload)
	must(t, err)
	return string(b)
}

// FuzzTopicPath sends any path below /topics: what is taken names the topic
// that the path spells.
func FuzzTopicPath(f *testing.F) {
	for _, s := range []string{"a/b", "a%2Fb", "/a", "a//b", "messages/batch", "%00", "%ff", "..%2f", "a+b", "%23", "$SYS/x", "a;x", "%25"} {
		f.Add(s)
	}
	d := open(f)
	f.Fuzz(func(t *testing.T, raw string) {
		topic, err := httpx.Unescape(raw)
		if err != nil {
			return // net/http refuses it before anybody is asked
		}
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/", strings.NewReader(`{"payload":""}`))
		r.URL = &url.URL{Path: "/api/v1/topics/" + topic + "/messages", RawPath: "/api/v1/topics/" + raw + "/messages"}
		r.Header.Set("Authorization", "Bearer root."+secret)
		switch w := d.Send(r); w.Code {
		case 200:
			if got := parse[message](t, w).Data.Topic; got != topic {
				t.Fatalf("%q was taken for %q", raw, got)
			}
		case 400:
		default:
			t.Fatalf("%q: %d %s", raw, w.Code, w.Body)
		}
	})
}
