package flowmq_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"millrace/rest/internal/resttest"
)

// every setting that POST and PATCH take, with a value that is not its default.
const everySetting = `"topic_filter":"b/#","max_size_mb":2,"max_messages":10,"overflow":"reject","message_ttl_seconds":0,` +
	`"max_retries":null,"dead_letter_topic":"dead","visibility_timeout_seconds":0,"delay_seconds":5,` +
	`"backoff":{"min_seconds":2,"max_seconds":4},"on_exhausted":"drop","on_expired":"dead-letter",` +
	`"dead_retention_seconds":60,"max_in_flight":7,"mqtt_lease_seconds":9`

func TestQueueSettingsAreShownAsTheyWereGiven(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"posted","driver":"memory",`+everySetting+`}`)
	d.queue(t, `{"name":"patched","driver":"memory","topic_filter":"a"}`)
	ok[any](t, d, 200, "PATCH", "/api/v1/queues/patched", `{`+everySetting+`}`)
	var want map[string]any
	must(t, json.Unmarshal([]byte(`{"driver":"memory",`+everySetting+`}`), &want))
	for _, name := range []string{"posted", "patched"} {
		got := ok[map[string]any](t, d, 200, "GET", "/api/v1/queues/"+name, "")
		for k, v := range want {
			if fmt.Sprint(got[k]) != fmt.Sprint(v) {
				t.Errorf("%s: %s is %v, want %v", name, k, got[k], v)
			}
		}
	}
}

func TestQueueDefaultsAreFlowMQs(t *testing.T) {
	d := open(t)
	got := ok[map[string]any](t, d, 201, "POST", "/api/v1/queues", `{"name":"q","topic_filter":"orders/#"}`)
	for k, want := range map[string]any{
		"max_size_mb": 1024., "message_ttl_seconds": 86400., "max_retries": 3., "dead_letter_topic": nil, "driver": "disk",
		"overflow": "drop-oldest", "visibility_timeout_seconds": 30., "message_count": 0., "in_flight_count": 0., "size_bytes": 0.,
	} {
		if have, there := got[k]; have != want || !there {
			t.Errorf("%s is %v, want %v", k, have, want)
		}
	}
}

func TestBadDefinitionsAreRefused(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"a"}`)
	with := func(s string) string { return `{"name":"x","topic_filter":"a",` + s + `}` }
	for body, code := range map[string]string{
		`{"topic_filter":"a"}`:                                           "INVALID_PARAMETER",
		`{"name":"x"}`:                                                   "INVALID_PARAMETER",
		`{"name":"","topic_filter":"a"}`:                                 "INVALID_PARAMETER",
		`{"name":"x","topic_filter":""}`:                                 "INVALID_PARAMETER",
		`{"name":"x/y","topic_filter":"a"}`:                              "INVALID_PARAMETER",
		`{"name":"` + strings.Repeat("x", 256) + `","topic_filter":"a"}`: "INVALID_PARAMETER",
		`{"name":"x","topic_filter":"a/#/b"}`:                            "INVALID_TOPIC_FILTER",
		`{"name":"x","topic_filter":"a+"}`:                               "INVALID_TOPIC_FILTER",
		with(`"max_size_mb":0`):                                          "INVALID_PARAMETER",
		with(`"max_size_mb":"1"`):                                        "INVALID_PARAMETER",
		with(`"max_size_mb":9223372036854775807`):                        "INVALID_PARAMETER",
		with(`"message_ttl_seconds":-1`):                                 "INVALID_PARAMETER",
		with(`"message_ttl_seconds":9223372036854775807`):                "INVALID_PARAMETER",
		with(`"max_retries":-1`):                                         "INVALID_PARAMETER",
		with(`"dead_letter_topic":"a/#"`):                                "INVALID_PARAMETER",
		with(`"driver":"tape"`):                                          "INVALID_PARAMETER",
		with(`"overflow":"explode"`):                                     "INVALID_PARAMETER",
		with(`"visibility_timeout_seconds":43201`):                       "INVALID_PARAMETER",
		with(`"backoff":{"min_seconds":9,"max_seconds":1}`):              "INVALID_PARAMETER",
		with(`"backoff":{"min":9}`):                                      "INVALID_PARAMETER",
		with(`"on_expired":"explode"`):                                   "INVALID_PARAMETER",
		with(`"MAX_RETRIES":1`):                                          "INVALID_PARAMETER",
		with(`"max_retries":1,"max_retries":2`):                          "INVALID_PARAMETER",
		`{"name":"x","topic_filter":"a"}{}`:                              "INVALID_REQUEST",
		``:                                                               "INVALID_REQUEST",
		`null`:                                                           "INVALID_REQUEST",
	} {
		refused(t, d, 400, code, "POST", "/api/v1/queues", body)
	}
	for _, same := range []string{`{"name":"q","topic_filter":"a"}`, `{"name":"q","topic_filter":"b"}`} {
		refused(t, d, 409, "ALREADY_EXISTS", "POST", "/api/v1/queues", same)
	}
	for body, code := range map[string]string{`{"name":"y"}`: "INVALID_PARAMETER", `{"driver":"memory"}`: "INVALID_PARAMETER", `{"x":1}`: "INVALID_PARAMETER", `[]`: "INVALID_REQUEST"} {
		refused(t, d, 400, code, "PATCH", "/api/v1/queues/q", body)
	}
	refused(t, d, 404, "QUEUE_NOT_FOUND", "PATCH", "/api/v1/queues/none", `{}`)
	refused(t, d, 404, "QUEUE_NOT_FOUND", "GET", "/api/v1/queues/none", "")
	refused(t, d, 404, "QUEUE_NOT_FOUND", "DELETE", "/api/v1/queues/none", "")
}

func TestListsArePagedByName(t *testing.T) {
	d := open(t)
	for i := range 5 {
		d.queue(t, fmt.Sprintf(`{"name":"q%d","topic_filter":"a"}`, 4-i))
		ok[any](t, d, 201, "POST", "/api/v1/streams", fmt.Sprintf(`{"name":"s/%d","topic_filter":"a"}`, 4-i))
	}
	type item struct{ Name string }
	type list struct {
		Queues, Streams      []item
		Total, Limit, Offset int
	}
	for _, c := range []struct{ query, want string }{
		{"", "[0 1 2 3 4] 5 50 0"}, {"?limit=2", "[0 1] 5 2 0"}, {"?limit=2&offset=4", "[4] 5 2 4"}, {"?offset=5", "[] 5 50 5"},
	} {
		for _, what := range []string{"queues", "streams"} {
			l := ok[list](t, d, 200, "GET", "/api/v1/"+what+c.query, "")
			names := []string{}
			for _, i := range append(l.Queues, l.Streams...) {
				names = append(names, i.Name[len(i.Name)-1:])
			}
			if got := fmt.Sprintf("%v %d %d %d", names, l.Total, l.Limit, l.Offset); got != c.want {
				t.Errorf("%s%s: %s, want %s", what, c.query, got, c.want)
			}
		}
	}
	for _, query := range []string{"?limit=0", "?limit=1001", "?limit=x", "?offset=-1"} {
		refused(t, d, 400, "INVALID_PARAMETER", "GET", "/api/v1/queues"+query, "")
		refused(t, d, 400, "INVALID_PARAMETER", "GET", "/api/v1/streams"+query, "")
	}
}

func TestStreams(t *testing.T) {
	d := open(t)
	got := ok[map[string]any](t, d, 201, "POST", "/api/v1/streams", `{"name":"tenant/ns/orders events","topic_filter":"orders/#","retention_days":30,"max_size_gb":100,"partition_count":3}`)
	if got["retention_days"] != 30. || got["max_size_gb"] != 100. || got["partition_count"] != 3. {
		t.Errorf("created %v", got)
	}
	const path = "/api/v1/streams/tenant%2Fns%2Forders%20events"
	d.publish(t, "orders/1", "x")
	if got := ok[map[string]any](t, d, 200, "GET", path, ""); got["message_count"] != 1. {
		t.Errorf("shown %v", got)
	}
	got = ok[map[string]any](t, d, 201, "POST", "/api/v1/streams", `{"name":"s","topic_filter":"a"}`)
	if got["retention_days"] != 7. || got["max_size_gb"] != 10. || got["partition_count"] != 1. {
		t.Errorf("defaults %v", got)
	}
	for body, code := range map[string]string{
		`{"name":"x","topic_filter":"a","partition_count":0}`: "INVALID_PARAMETER", `{"name":"x","topic_filter":"a","retention_days":0}`: "INVALID_PARAMETER",
		`{"name":"x","topic_filter":"a","max_size_gb":0}`: "INVALID_PARAMETER", `{"name":"x"}`: "INVALID_PARAMETER", `{"topic_filter":"a"}`: "INVALID_PARAMETER",
		`{"name":"a\nb","topic_filter":"a"}`: "INVALID_PARAMETER", `{"name":"x","topic_filter":"#/a"}`: "INVALID_TOPIC_FILTER", `{"name":"x","topic_filter":"a","driver":"disk"}`: "INVALID_PARAMETER",
	} {
		refused(t, d, 400, code, "POST", "/api/v1/streams", body)
	}
	refused(t, d, 409, "ALREADY_EXISTS", "POST", "/api/v1/streams", `{"name":"s","topic_filter":"a"}`)
	ok[any](t, d, 200, "DELETE", path, "")
	refused(t, d, 404, "STREAM_NOT_FOUND", "GET", path, "")
	refused(t, d, 404, "STREAM_NOT_FOUND", "DELETE", path, "")
}

func TestEachRoleReachesTheBrokersDecision(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"a"}`)
	ok[any](t, d, 201, "POST", "/api/v1/streams", `{"name":"s","topic_filter":"a"}`)
	const never, receipt = "msg_00000000000000000000000001", `{"receipt_handle":"x"}`
	// Letters: root, view, pub, app may; the others are answered 403.
	for _, c := range []struct{ method, path, body, may string }{
		{"POST", "topics/a/messages", `{"payload":""}`, "rpa"},
		{"POST", "topics/a/messages/batch", `{"messages":[{"payload":""}]}`, "rpa"},
		{"POST", "queues", `{"name":"q","topic_filter":"a"}`, "r"},
		{"GET", "queues/q", "", "rva"},
		{"PATCH", "queues/q", `{}`, "r"},
		{"POST", "queues/q/purge", "", "r"},
		{"GET", "queues/q/messages", "", "ra"},
		{"POST", "queues/q/messages/consume", "", "ra"},
		{"POST", "queues/q/messages/" + never + "/ack", receipt, "ra"},
		{"POST", "queues/q/messages/" + never + "/nack", receipt, "ra"},
		{"POST", "queues/q/messages/" + never + "/extend", `{"receipt_handle":"x","visibility_timeout_seconds":1}`, "ra"},
		{"POST", "queues/q/messages/ack", `{"messages":[{"message_id":"x","receipt_handle":"x"}]}`, "ra"},
		{"POST", "queues/none/messages/consume", "", "ra"},
		{"POST", "streams", `{"name":"s","topic_filter":"a"}`, "r"},
		{"GET", "streams/s", "", "rva"},
		{"DELETE", "streams/none", "", "r"},
		{"DELETE", "queues/none", "", "r"},
	} {
		for key := range resttest.Keys {
			w := d.As(t, key, c.method, "/api/v1/"+c.path, c.body)
			if may := strings.Contains(c.may, key[:1]); (w.Code != 403) != may || w.Code == 401 {
				t.Errorf("%s %s as %s: status %d", c.method, c.path, key, w.Code)
			}
		}
		w := d.Send(httptest.NewRequest(c.method, "/api/v1/"+c.path, strings.NewReader(c.body)))
		if w.Code != 401 || len(w.Header()["Www-Authenticate"]) != 2 {
			t.Errorf("%s %s as nobody: status %d %v", c.method, c.path, w.Code, w.Header())
		}
	}
	for key, want := range map[string]int{"root": 1, "view": 1, "pub": 0, "app": 1} {
		w := d.As(t, key, "GET", "/api/v1/queues", "")
		if got := parse[struct{ Total int }](t, w).Data.Total; w.Code != 200 || got != want {
			t.Errorf("list as %s: status %d, %d queues", key, w.Code, got)
		}
	}
}
