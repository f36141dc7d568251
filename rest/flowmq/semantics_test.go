package flowmq_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// message is what a consumer is given.
type message struct {
	MessageID       string            `json:"message_id"`
	Topic           string            `json:"topic"`
	Payload         string            `json:"payload"`
	PayloadEncoding string            `json:"payload_encoding"`
	ContentType     string            `json:"content_type"`
	Properties      map[string]string `json:"properties"`
	ReceiveCount    int               `json:"receive_count"`
	ReceiptHandle   string            `json:"receipt_handle"`
	State           string            `json:"state"`
	Partition       int               `json:"partition"`
	Offset          int               `json:"offset"`
}

// envelope is every answer.
type envelope[T any] struct {
	Success bool `json:"success"`
	Data    T    `json:"data"`
	Error   *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Details struct {
			Index  *int              `json:"index"`
			Fields map[string]string `json:"fields"`
		} `json:"details"`
	} `json:"error"`
}

func parse[T any](tb testing.TB, w *httptest.ResponseRecorder) envelope[T] {
	tb.Helper()
	var keys map[string]json.RawMessage
	var e envelope[T]
	if err := json.Unmarshal(w.Body.Bytes(), &keys); err != nil || len(keys) != 3 {
		tb.Fatalf("status %d: not the envelope: %s", w.Code, w.Body)
	}
	must(tb, json.Unmarshal(w.Body.Bytes(), &e))
	return e
}

// ok sends a request that must succeed with status, and returns its data.
func ok[T any](tb testing.TB, d *door, status int, method, path, body string) T {
	tb.Helper()
	w := d.Do(tb, method, path, body)
	if w.Code != status {
		tb.Fatalf("%s %s %s: status %d, want %d: %s", method, path, body, w.Code, status, w.Body)
	}
	return parse[T](tb, w).Data
}

// refused sends a request that must fail with the code.
func refused(tb testing.TB, d *door, status int, code, method, path, body string) {
	tb.Helper()
	w := d.Do(tb, method, path, body)
	e := parse[any](tb, w)
	if w.Code != status || e.Error == nil || e.Error.Code != code || e.Success {
		tb.Errorf("%s %s %.80s: got %d %s, want %d %s", method, path, body, w.Code, w.Body, status, code)
	}
}

func (d *door) queue(tb testing.TB, settings string) {
	tb.Helper()
	ok[any](tb, d, 201, "POST", "/api/v1/queues", settings)
}

func (d *door) consume(tb testing.TB, queue, body string) []message {
	tb.Helper()
	return ok[struct{ Messages []message }](tb, d, 200, "POST", "/api/v1/queues/"+queue+"/messages/consume", body).Messages
}

func (d *door) publish(tb testing.TB, topic, payload string) string {
	tb.Helper()
	body, err := json.Marshal(map[string]string{"payload": payload})
	must(tb, err)
	return ok[message](tb, d, 200, "POST", "/api/v1/topics/"+topic+"/messages", string(body)).MessageID
}

func TestTopicsSpanThePathAsItWasSent(t *testing.T) {
	d := open(t)
	for path, topic := range map[string]string{
		"a/b/c": "a/b/c", "a%2Fb%2Fc": "a/b/c", "a//b": "a//b", "/a": "/a", "a/": "a/", "/": "/",
		"messages/batch": "messages/batch", "messages": "messages", "x/messages": "x/messages",
		"a%2520b": "a%20b", "%C3%BC/+": "", "a/../b": "a/../b", "%2e%2e%2f": "../", "a;x": "a;x", "%00": "", "%ff": "", "%23": "", "a/%2B": "",
		"$SYS/x": "", "$queue/q": "", "$custom/x": "$custom/x",
		strings.Repeat("a", 1024): strings.Repeat("a", 1024), strings.Repeat("a", 1025): "", strings.Repeat("/", 201): "",
	} {
		for _, batch := range []bool{false, true} {
			target, body := "/api/v1/topics/"+path+"/messages", `{"payload":""}`
			if batch {
				target, body = target+"/batch", `{"messages":[{"payload":""}]}`
			}
			if topic == "" {
				refused(t, d, 400, "INVALID_TOPIC", "POST", target, body)
				continue
			}
			w := d.Do(t, "POST", target, body)
			if text, _ := json.Marshal(topic); w.Code != 200 || !strings.Contains(w.Body.String(), `"topic":`+string(text)) {
				t.Errorf("%s: status %d %s, want topic %q", target, w.Code, w.Body, topic)
			}
		}
	}
	refused(t, d, 400, "INVALID_TOPIC", "POST", "/api/v1/topics//messages", `{"payload":""}`)
	refused(t, d, 404, "NOT_FOUND", "POST", "/api/v1/topics/messages", `{"payload":""}`)
	refused(t, d, 404, "NOT_FOUND", "POST", "/api/v1/topics/a", `{"payload":""}`)
}

func TestPublishTellsWhatItMatched(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q1","topic_filter":"orders/#"}`)
	d.queue(t, `{"name":"q2","topic_filter":"orders/eu"}`)
	ok[any](t, d, 201, "POST", "/api/v1/streams", `{"name":"s","topic_filter":"#"}`)
	got := ok[struct {
		Matched   struct{ Subscribers, Queues, Streams int }
		Duplicate bool
	}](t, d, 200, "POST", "/api/v1/topics/orders/eu/messages", `{"payload":"x"}`)
	if m := got.Matched; m.Queues != 2 || m.Streams != 1 || m.Subscribers != 0 || got.Duplicate {
		t.Errorf("matched %+v, duplicate %v", m, got.Duplicate)
	}
}

func TestBatchWithOneBadEntryStoresNothing(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"#"}`)
	for _, bad := range []string{
		`{"payload":2}`, `{}`, `{"payload":"","qos":3}`, `{"payload":"%%","payload_encoding":"base64"}`, `{"payload":"","x":1}`,
		`{"payload":"` + strings.Repeat("x", 4<<20+1) + `"}`,
	} {
		good := strings.Repeat(`{"payload":"x"},`, 9)
		w := d.Do(t, "POST", "/api/v1/topics/a/messages/batch", `{"messages":[`+good+bad+`]}`)
		e := parse[any](t, w)
		if w.Code/100 != 4 || e.Error.Details.Index == nil || *e.Error.Details.Index != 9 {
			t.Errorf("%.60s: status %d %s", bad, w.Code, w.Body)
		}
	}
	refused(t, d, 400, "INVALID_PARAMETER", "POST", "/api/v1/topics/a/messages/batch", `{"messages":[]}`)
	refused(t, d, 400, "INVALID_PARAMETER", "POST", "/api/v1/topics/a/messages/batch", `{}`)
	refused(t, d, 400, "INVALID_PARAMETER", "POST", "/api/v1/topics/a/messages/batch", `{"messages":[`+strings.Repeat(`{"payload":""},`, 10_000)+`{"payload":""}]}`)
	if got := d.consume(t, "q", ""); len(got) != 0 {
		t.Errorf("something was stored: %v", got)
	}
}

func TestWhatIsPublishedIsConsumedAlike(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"#"}`)
	binary := base64.StdEncoding.EncodeToString([]byte("\x00\xff\xfe"))
	for body, want := range map[string]message{
		`{"payload":""}`: {ContentType: "application/json", Properties: map[string]string{}},
		`{"payload":"\u00fc\ud83d\ude00\n\"","content_type":"text/plain","properties":{"n":1.50,"b":true,"s":"x"}}`: {
			Payload: "ü😀\n\"", ContentType: "text/plain", Properties: map[string]string{"n": "1.50", "b": "true", "s": "x"},
		},
		`{"payload":"` + binary + `","payload_encoding":"base64"}`:    {Payload: binary, PayloadEncoding: "base64", ContentType: "application/json", Properties: map[string]string{}},
		`{"payload":"dGV4dA==","payload_encoding":"base64"}`:          {Payload: "text", ContentType: "application/json", Properties: map[string]string{}},
		`{"payload_encoding":"plain","payload":"x","qos":0}`:          {Payload: "x", ContentType: "application/json", Properties: map[string]string{}},
		`{"payload":"x","content_type":"application/vnd.weird; v=2"}`: {Payload: "x", ContentType: "application/vnd.weird; v=2", Properties: map[string]string{}},
	} {
		id := ok[message](t, d, 200, "POST", "/api/v1/topics/a/messages", body).MessageID
		got := d.consume(t, "q", "")
		if len(got) != 1 {
			t.Fatalf("%s: consumed %v", body, got)
		}
		want.MessageID, want.Topic, want.ReceiveCount, want.ReceiptHandle = id, "a", 1, got[0].ReceiptHandle
		if fmt.Sprint(got[0]) != fmt.Sprint(want) {
			t.Errorf("%s: got %+v, want %+v", body, got[0], want)
		}
	}
}

func TestMQTTMessagesAreShownInJSON(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"#"}`)
	ctx := auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System})
	_, err := d.Broker.Publish(ctx, &broker.Message{
		Topic: "a", Payload: []byte{0xff}, QoS: 1,
		Properties: []broker.Property{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}, {Name: "a", Value: "3"}},
	})
	must(t, err)
	got := d.consume(t, "q", "")[0]
	if got.ContentType != "application/octet-stream" || got.PayloadEncoding != "base64" || fmt.Sprint(got.Properties) != "map[a:3 b:2]" {
		t.Errorf("got %+v", got)
	}
}

func TestConsumeBoundsAreCutOrRefused(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"#"}`)
	for _, bad := range []string{
		`{"max_messages":0}`, `{"max_messages":-1}`, `{"max_messages":"x"}`, `{"max_messages":1.5}`, `{"timeout_seconds":-1}`,
		`{"visibility_timeout_seconds":-1}`, `{"visibility_timeout_seconds":43201}`, `{"timeout_seconds":null}`,
		`{"MAX_MESSAGES":1}`, `{"max":1}`,
	} {
		refused(t, d, 400, "INVALID_PARAMETER", "POST", "/api/v1/queues/q/messages/consume", bad)
	}
	for _, bad := range []string{`{`, `{} {}`, `[]`, "\xef\xbb\xbf{}", strings.Repeat("[", 100_000)} {
		refused(t, d, 400, "INVALID_REQUEST", "POST", "/api/v1/queues/q/messages/consume", bad)
	}
	for range 101 {
		d.publish(t, "a", "x")
	}
	if got := d.consume(t, "q", `{"max_messages":9223372036854775807,"timeout_seconds":0,"visibility_timeout_seconds":43200}`); len(got) != 100 {
		t.Errorf("consumed %d", len(got))
	}
	refused(t, d, 404, "QUEUE_NOT_FOUND", "POST", "/api/v1/queues/none/messages/consume", "")
	if got := d.consume(t, "q", `{"timeout_seconds":9223372036854775807}`); len(got) != 1 {
		t.Errorf("the last message: %v", got)
	}
}

func TestLongPollWakesWithAPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.queue(t, `{"name":"q","topic_filter":"#"}`)
		start, done := time.Now(), make(chan []message)
		go func() { done <- d.consume(t, "q", `{"timeout_seconds":61,"visibility_timeout_seconds":3600}`) }()
		synctest.Wait()
		time.Sleep(10 * time.Second)
		d.publish(t, "a", "x")
		if got := <-done; len(got) != 1 || time.Since(start) > 10*time.Second+50*time.Millisecond {
			t.Errorf("got %v after %v", got, time.Since(start))
		}
		if got := d.consume(t, "q", `{"timeout_seconds":61}`); len(got) != 0 || time.Since(start) > 71*time.Second {
			t.Errorf("an empty wait gave %v after %v", got, time.Since(start))
		}
	})
}

func TestDrainAnswersWaitsWithNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.queue(t, `{"name":"q","topic_filter":"#"}`)
		start, done := time.Now(), make(chan []message)
		go func() { done <- d.consume(t, "q", `{"timeout_seconds":60}`) }()
		synctest.Wait()
		d.Drain()
		if got := <-done; len(got) != 0 || time.Since(start) > time.Second {
			t.Errorf("got %v after %v", got, time.Since(start))
		}
	})
}

func TestDeleteEndsWaitsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.queue(t, `{"name":"q","topic_filter":"#"}`)
		done := make(chan struct{})
		for range 100 {
			go func() {
				refused(t, d, 404, "QUEUE_NOT_FOUND", "POST", "/api/v1/queues/q/messages/consume", `{"timeout_seconds":60}`)
				done <- struct{}{}
			}()
		}
		synctest.Wait()
		start := time.Now()
		ok[any](t, d, 200, "DELETE", "/api/v1/queues/q", "")
		for range 100 {
			<-done
		}
		if time.Since(start) > time.Second {
			t.Errorf("it took %v", time.Since(start))
		}
	})
}

func TestLeaseThatLapsesRedeliversAndItsReceiptIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.queue(t, `{"name":"q","topic_filter":"orders/#","dead_letter_topic":"orders/dead","max_retries":3}`)
		d.queue(t, `{"name":"dead","topic_filter":"orders/dead"}`)
		id := d.publish(t, "orders/1", "x")
		var first, last message
		for attempt := 1; attempt <= 4; attempt++ {
			got := d.consume(t, "q", `{"timeout_seconds":60}`)
			if len(got) != 1 || got[0].ReceiveCount != attempt || got[0].MessageID != id {
				t.Fatalf("attempt %d: %v", attempt, got)
			}
			if last = got[0]; attempt == 1 {
				first = last
			}
			if attempt == 2 {
				refused(t, d, 400, "INVALID_RECEIPT_HANDLE", "POST", "/api/v1/queues/q/messages/"+id+"/ack", `{"receipt_handle":"`+first.ReceiptHandle+`"}`)
			}
		}
		dead := d.consume(t, "dead", `{"timeout_seconds":60}`)
		if len(dead) != 1 || dead[0].Properties["original-id"] == "" {
			t.Fatalf("dead letters: %v", dead)
		}
		if got := d.consume(t, "q", ""); len(got) != 0 {
			t.Errorf("the dead letter came back to its queue: %v", got)
		}
	})
}

func TestAckAnswersInItsOrder(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"a"}`)
	d.queue(t, `{"name":"other","topic_filter":"a"}`)
	d.publish(t, "a", "x")
	got, other := d.consume(t, "q", "")[0], d.consume(t, "other", "")[0]
	path := func(queue, id string) string { return "/api/v1/queues/" + queue + "/messages/" + id + "/ack" }
	body := func(receipt string) string { return `{"receipt_handle":"` + receipt + `"}` }
	ack := func(queue, id, receipt string) string {
		return ok[struct{ State string }](t, d, 200, "POST", path(queue, id), body(receipt)).State
	}
	never := "msg_00000000000000000000000001"

	refused(t, d, 404, "QUEUE_NOT_FOUND", "POST", path("none", got.MessageID), body(got.ReceiptHandle))
	refused(t, d, 404, "QUEUE_NOT_FOUND", "POST", path("none", "garbage"), body(got.ReceiptHandle))
	refused(t, d, 404, "MESSAGE_NOT_FOUND", "POST", path("q", never), body(got.ReceiptHandle))
	refused(t, d, 404, "MESSAGE_NOT_FOUND", "POST", path("q", "garbage"), body(got.ReceiptHandle))
	refused(t, d, 400, "INVALID_RECEIPT_HANDLE", "POST", path("q", got.MessageID), body("garbage"))
	refused(t, d, 400, "INVALID_RECEIPT_HANDLE", "POST", path("q", got.MessageID), body(other.ReceiptHandle))
	refused(t, d, 400, "INVALID_PARAMETER", "POST", path("q", got.MessageID), `{}`)
	if s := ack("q", got.MessageID, got.ReceiptHandle); s != "removed" {
		t.Errorf("first ack: %s", s)
	}
	if s := ack("q", got.MessageID, got.ReceiptHandle); s != "gone" {
		t.Errorf("second ack: %s", s)
	}
	refused(t, d, 404, "MESSAGE_NOT_FOUND", "POST", path("q", got.MessageID), body("garbage"))
	if s := ack("other", strings.TrimPrefix(other.MessageID, "msg_"), other.ReceiptHandle); s != "removed" {
		t.Errorf("ack by the bare id: %s", s)
	}
	ok[any](t, d, 200, "DELETE", "/api/v1/queues/q", "")
	d.queue(t, `{"name":"q","topic_filter":"a"}`)
	refused(t, d, 404, "MESSAGE_NOT_FOUND", "POST", path("q", got.MessageID), body(got.ReceiptHandle))
}

func TestBatchAckHasOneResultPerEntry(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"a"}`)
	d.publish(t, "a", "x")
	got := d.consume(t, "q", "")[0]
	type result struct {
		MessageID string `json:"message_id"`
		State     string
		Error     *struct{ Code string }
	}
	entry := func(id, receipt string) string {
		return fmt.Sprintf(`{"message_id":%q,"receipt_handle":%q}`, id, receipt)
	}
	rs := ok[struct{ Results []result }](t, d, 200, "POST", "/api/v1/queues/q/messages/ack", `{"messages":[`+
		strings.Join([]string{entry(got.MessageID, "garbage"), entry(got.MessageID, got.ReceiptHandle), entry("nonsense", "x")}, ",")+`]}`).Results
	if len(rs) != 3 || rs[0].Error == nil || rs[0].Error.Code != "INVALID_RECEIPT_HANDLE" || rs[1].State != "removed" || rs[1].Error != nil ||
		rs[2].MessageID != "nonsense" || rs[2].Error == nil || rs[2].Error.Code != "MESSAGE_NOT_FOUND" {
		t.Errorf("results: %+v", rs)
	}
	refused(t, d, 404, "QUEUE_NOT_FOUND", "POST", "/api/v1/queues/none/messages/ack", `{"messages":[`+entry("x", "y")+`]}`)
	refused(t, d, 400, "INVALID_PARAMETER", "POST", "/api/v1/queues/q/messages/ack", `{"messages":[{"message_id":"x"}]}`)
	refused(t, d, 400, "INVALID_PARAMETER", "POST", "/api/v1/queues/q/messages/ack", `{"messages":[]}`)
}

func TestNackAndExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.queue(t, `{"name":"q","topic_filter":"a"}`)
		id := d.publish(t, "a", "x")
		got := d.consume(t, "q", "")[0]
		path := "/api/v1/queues/q/messages/" + id
		with := func(extra string) string { return `{"receipt_handle":"` + got.ReceiptHandle + `"` + extra + `}` }
		for _, bad := range []string{`,"delay_seconds":-1`, `,"delay_seconds":46800`, `,"visibility_timeout_seconds":1`} {
			refused(t, d, 400, "INVALID_PARAMETER", "POST", path+"/nack", with(bad))
		}
		for _, bad := range []string{``, `,"visibility_timeout_seconds":-1`, `,"visibility_timeout_seconds":43201`, `,"delay_seconds":1`} {
			refused(t, d, 400, "INVALID_PARAMETER", "POST", path+"/extend", with(bad))
		}
		ok[any](t, d, 200, "POST", path+"/extend", with(`,"visibility_timeout_seconds":100`))
		time.Sleep(99 * time.Second)
		if got := d.consume(t, "q", ""); len(got) != 0 {
			t.Errorf("the lease was not extended: %v", got)
		}
		delay := ok[struct {
			DelaySeconds float64 `json:"delay_seconds"`
		}](t, d, 200, "POST", path+"/nack", with(`,"delay_seconds":5`)).DelaySeconds
		if again := d.consume(t, "q", ""); delay != 5 || len(again) != 0 {
			t.Errorf("delay %v, at once %v", delay, again)
		}
		time.Sleep(5 * time.Second)
		if again := d.consume(t, "q", `{"timeout_seconds":1}`); len(again) != 1 || again[0].ReceiveCount != 2 {
			t.Errorf("after the delay: %v", again)
		}
		refused(t, d, 400, "INVALID_RECEIPT_HANDLE", "POST", path+"/extend", with(`,"visibility_timeout_seconds":1`))
	})
}

func TestPeekLeasesNothing(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"a"}`)
	for _, p := range []string{"1", "2", "3"} {
		d.publish(t, "a", p)
	}
	peek := func(query string) (payloads string) {
		for _, m := range ok[struct{ Messages []message }](t, d, 200, "GET", "/api/v1/queues/q/messages"+query, "").Messages {
			payloads += m.Payload + m.State[:1]
		}
		return payloads
	}
	if got := peek("?limit=2"); got != "1r2r" {
		t.Errorf("peek: %s", got)
	}
	if got := d.consume(t, "q", ""); got[0].ReceiveCount != 1 || got[0].Payload != "1" {
		t.Errorf("consume after peek: %v", got)
	}
	for query, want := range map[string]string{"": "2r3r", "?state=leased": "1l", "?state=ready,leased": "1l2r3r", "?offset=1": "3r"} {
		if got := peek(query); got != want {
			t.Errorf("peek %s: %s, want %s", query, got, want)
		}
	}
	for _, query := range []string{"?limit=0", "?limit=101", "?limit=x", "?state=gone", "?offset=-1"} {
		refused(t, d, 400, "INVALID_PARAMETER", "GET", "/api/v1/queues/q/messages"+query, "")
	}
}

func TestPurgeLeavesWhatIsLeasedUnlessAll(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"a"}`)
	for range 3 {
		d.publish(t, "a", "x")
	}
	d.consume(t, "q", "")
	purged := func(query string) int {
		return ok[struct{ Purged int }](t, d, 200, "POST", "/api/v1/queues/q/purge"+query, "").Purged
	}
	if n := purged(""); n != 2 {
		t.Errorf("purged %d", n)
	}
	if n := purged("?all=true"); n != 1 {
		t.Errorf("purged %d with all", n)
	}
	refused(t, d, 400, "INVALID_PARAMETER", "POST", "/api/v1/queues/q/purge?all=maybe", "")
	refused(t, d, 400, "INVALID_PARAMETER", "POST", "/api/v1/queues/q/purge", `{"all":true}`)
}
