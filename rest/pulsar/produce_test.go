package pulsar_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/persistence/local"
	"millrace/rest/flowmq"
	"millrace/rest/internal/resttest"
	"millrace/rest/pulsar"
)

func partitions(p produced) (all []int) {
	for _, m := range p.MessageIDs {
		all = append(all, *m.Partition)
	}
	return all
}

func TestMessagesGoToTheirPartitions(t *testing.T) {
	d := open(t)
	ok[any](t, d, 204, "PUT", "/admin/v2/persistent/a/b/c/partitions", "5")
	count := map[int]int{}
	for _, p := range partitions(d.produce(t, "/topics/a/b/c", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")) {
		count[p]++
	}
	for p := range 5 {
		if count[p] != 2 {
			t.Errorf("10 messages in turn: %v", count)
		}
	}
	keyed := partitions(ok[produced](t, d, 200, "POST", "/topics/a/b/c",
		`{"messages":[{"key":"k","value":1},{"key":"k","value":2},{"key":"k","value":3,"partition":4},{"key":"other","value":4},{"key":"k","value":5}]}`))
	if keyed[0] != keyed[1] || keyed[0] != keyed[4] || keyed[2] != 4 {
		t.Errorf("one key is in the partitions %v", keyed)
	}
}

func TestAProducedMessageIsAnMQTTMessage(t *testing.T) {
	d := open(t)
	ctx := resttest.System(t)
	_, err := d.Broker.CreateQueue(ctx, broker.NewQueueConfig("q", "#"))
	must(t, err)
	for path, topic := range map[string]string{
		"/topics/public/default/a%2Fb": "a/b", "/topics/persistent/shop/eu/carts": "shop/eu/carts", "/topics/public/default/%2Fx%2F%2F": "/x//",
	} {
		d.produce(t, path, `"x"`)
		got, err := d.Broker.Receive(ctx, "q", broker.ReceiveOptions{Max: 2, Lease: broker.DefaultLease})
		if err != nil || len(got) != 1 || got[0].Topic != topic || got[0].ContentType != "text/plain; charset=utf-8" || !got[0].UTF8 || got[0].Publisher != "root" {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
	schema := `{"schema_type":"JSON","value_schema":"{}","messages":[{"key":"k","value":{"a": 1},"properties":{"p":"1"},"eventTime":7}]}`
	ok[any](t, d, 200, "POST", "/topics/public/default/a%2Fb", schema)
	got, err := d.Broker.Receive(ctx, "q", broker.ReceiveOptions{Max: 2, Lease: broker.DefaultLease})
	must(t, err)
	if m := got[0]; string(m.Payload) != `{"a": 1}` || m.ContentType != "application/json" || m.Key != "k" || m.EventTime != 7 ||
		fmt.Sprint(m.Properties) != "[{p 1} {pulsar:schema 0}]" {
		t.Errorf("got %+v", m)
	}
}

func TestMessagesOfOtherDoorsAreRead(t *testing.T) {
	d := open(t)
	d.produce(t, topic, `"first"`)
	for _, m := range []broker.Message{
		{Payload: []byte("text")},
		{Payload: []byte("\xff\x00")},
		{Payload: []byte("forged"), Properties: []broker.Property{{Name: "pulsar:schema", Value: "0"}, {Name: "pulsar:replicate-to", Value: "}"}, {Name: "k", Value: "1"}, {Name: "k", Value: "2"}}},
		{Payload: []byte("bytes"), Properties: []broker.Property{{Name: "pulsar:schema", Value: "bytes"}}},
		{},
	} {
		m.Topic, m.QoS = "x", 1
		_, err := d.Broker.Publish(resttest.System(t), &m)
		must(t, err)
	}
	ok[any](t, d, 200, "POST", topic, `{"schema_type":"INT32","messages":[{"value":5}]}`)
	_, err := d.Broker.Publish(resttest.System(t), &broker.Message{Topic: "x", QoS: 1, Payload: []byte("no number"), Properties: []broker.Property{{Name: "pulsar:schema", Value: "0"}}})
	must(t, err)
	got := ok[read](t, d, 200, "GET", topic+"/partitions/0/messages", "").Messages
	if want := `"first" "text" "/wA=" "Zm9yZ2Vk" "Ynl0ZXM=" "" 5 "bm8gbnVtYmVy"`; texts(got) != want {
		t.Errorf("got %s, want %s", texts(got), want)
	}
	if got[1].ValueEncoding != "" || got[2].ValueEncoding != "base64" || got[3].ValueEncoding != "base64" || got[7].ValueEncoding != "base64" {
		t.Errorf("got %+v", got)
	}
	if got[3].Properties["k"] != "2" || len(got[3].Properties) != 1 || got[3].ReplicationClusters != nil {
		t.Errorf("got %+v", got[3])
	}
}

func TestASequenceIsDeduplicatedForItsProducer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		send := func(producer string, sequence int, value string) (string, bool) {
			t.Helper()
			p := ok[produced](t, d, 200, "POST", topic, fmt.Sprintf(`{"producerName":%q,"messages":[{"value":%q,"sequenceId":%d}]}`, producer, value, sequence))
			if m := p.MessageIDs[0]; m.Error != nil {
				return *m.Error, m.Duplicate
			}
			return *p.MessageIDs[0].MessageID, p.MessageIDs[0].Duplicate
		}
		first, _ := send("a", 1, "x")
		if id, again := send("a", 1, "x"); id != first || !again {
			t.Errorf("a repeat is %s, %v, not %s", id, again, first)
		}
		for _, other := range []struct {
			producer string
			sequence int
		}{{"b", 1}, {"a", 2}, {"", 1}, {"", 1}} {
			if _, again := send(other.producer, other.sequence, "x"); again {
				t.Errorf("%v is told as a duplicate", other)
			}
		}
		if text, _ := send("a", 1, "y"); !strings.Contains(text, "another message") {
			t.Errorf("another message under the same number: %s", text)
		}
		time.Sleep(6 * time.Minute)
		if _, again := send("a", 1, "x"); again {
			t.Error("the window has no end")
		}
		two := ok[produced](t, d, 200, "POST", topic, `{"producerName":"c","messages":[{"value":"x","sequenceId":5},{"value":"x","sequenceId":5}]}`)
		if two.MessageIDs[0].Duplicate || !two.MessageIDs[1].Duplicate {
			t.Errorf("twice in one request: %+v", two)
		}
	})
}

func TestADelayHoldsForSubscribersAndQueuesAndNotForReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		ctx := resttest.System(t)
		_, err := d.Broker.CreateQueue(ctx, broker.NewQueueConfig("q", "x"))
		must(t, err)
		at := time.Now().Add(time.Hour).UnixMilli()
		p := ok[produced](t, d, 200, "POST", topic, fmt.Sprintf(`{"messages":[{"value":1,"deliverAfterMs":1800000},{"value":2,"deliverAt":%d},{"value":3,"deliverAt":1},
			{"value":4,"deliverAt":1,"deliverAfterMs":1},{"value":5,"deliverAfterMs":604800001},{"value":6,"eventTime":99999999999999}]}`, at))
		for i, failed := range []bool{false, false, false, true, true, false} {
			if (p.MessageIDs[i].Error != nil) != failed {
				t.Errorf("message %d: %+v", i, p.MessageIDs[i])
			}
		}
		if got := d.values(t, topic+"/partitions/0"); got != `"1" "2" "3" "6"` {
			t.Errorf("read %s", got)
		}
		take := func(want string) {
			t.Helper()
			got, err := d.Broker.Receive(ctx, "q", broker.ReceiveOptions{Max: 9, Lease: broker.DefaultLease})
			must(t, err)
			text := ""
			for _, m := range got {
				text += string(m.Payload)
			}
			if text != want {
				t.Errorf("the queue gives %q, want %q", text, want)
			}
		}
		take("36")
		time.Sleep(30*time.Minute + time.Second)
		take("361") // their leases lapsed
		time.Sleep(30 * time.Minute)
		take("3612")
	})
}

func TestReadsStopAtTheirLimits(t *testing.T) {
	d := open(t)
	d.produce(t, topic, `"aaaaa"`, `"bbbbb"`, `"ccccc"`)
	for query, want := range map[string]string{
		"max_messages=2":            `"aaaaa" "bbbbb"`,
		"maxMessage=1":              `"aaaaa"`,
		"max_bytes=1":               `"aaaaa"`,
		"max_bytes=100000":          `"aaaaa" "bbbbb" "ccccc"`,
		"maxByte=1&max_messages=9":  `"aaaaa"`,
		"max_messages=99999999":     `"aaaaa" "bbbbb" "ccccc"`,
		"position=latest&timeout=0": "",
		"offset=2":                  `"ccccc"`,
	} {
		if got := texts(ok[read](t, d, 200, "GET", topic+"/partitions/0/messages?"+query, "").Messages); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	long := `"` + strings.Repeat("z", 1000) + `"`
	d.produce(t, "/topics/public/default/long", long, long, long)
	if got := texts(ok[read](t, d, 200, "GET", "/topics/public/default/long/partitions/0/messages?max_bytes=2500", "").Messages); got != long+" "+long {
		t.Errorf("3 values of 1,000 bytes within 2,500: %d bytes", len(got))
	}
	for _, query := range []string{
		"max_messages=0", "max_bytes=0", "timeout=x", "timeout=-1", "include_schema=yes", "position=middle", "offset=-1",
		"message_id=x", "message_id=999:0:0", "offset=1&position=latest", "offset=1&offset=2",
	} {
		d.fails(t, 40001, "GET", topic+"/partitions/0/messages?"+query, "")
	}
	d.fails(t, 40402, "GET", topic+"/partitions/1/messages", "")
	d.fails(t, 40402, "GET", topic+"/partitions/first/messages", "")
}

func TestAReadWaitsForTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.produce(t, topic, `"first"`)
		answered := make(chan *httptest.ResponseRecorder, 1)
		wait := func() { answered <- d.Do(t, "GET", topic+"/partitions/0/messages?offset=1&timeout=99000", "") }
		start := time.Now()
		go wait()
		synctest.Wait()
		time.Sleep(2 * time.Second)
		d.produce(t, topic, `"second"`)
		if w := <-answered; !strings.Contains(w.Body.String(), `"second"`) || time.Since(start) != 2*time.Second {
			t.Errorf("after %v: %s", time.Since(start), w.Body)
		}
		start = time.Now()
		wait = func() { answered <- d.Do(t, "GET", topic+"/partitions/0/messages?offset=2&timeout=99000", "") }
		go wait()
		if w := <-answered; w.Code != 200 || time.Since(start) != 30*time.Second {
			t.Errorf("a longer wait is cut: after %v, %s", time.Since(start), w.Body)
		}
		go wait()
		synctest.Wait()
		start = time.Now()
		d.Drain()
		if w := <-answered; w.Code != 200 || time.Since(start) > time.Second {
			t.Errorf("the drain answers %d %s after %v", w.Code, w.Body, time.Since(start))
		}
	})
}

func TestTopicsAreMadeByTheFirstMessageUnlessSwitchedOff(t *testing.T) {
	d := open(t)
	d.fails(t, 40401, "POST", "/topics/public/default/x-partition-1", `{"messages":[{"value":1}]}`)
	d.produce(t, topic, `1`)
	d.Mux = pulsar.New(d.Broker, d.Shared, pulsar.Options{})
	d.produce(t, topic, `2`)
	d.fails(t, 40401, "POST", "/topics/public/default/new", `{"messages":[{"value":1}]}`)
	if w := d.As(t, "app", "POST", "/topics/public/default/new", `{"messages":[{"value":1}]}`); w.Code != 404 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestARestartKeepsMessagesAndSchemas(t *testing.T) {
	dir := t.TempDir()
	d := openOver(t, local.Options{Dir: dir})
	body := `{"schema_type":"AVRO","value_schema":{"type":"record","name":"N","fields":[{"name":"n","type":"int"}]},"producerName":"p","messages":[{"value":{"n":1},"sequenceId":1}]}`
	w := d.Do(t, "POST", topic, body)
	if w.Code != 200 || w.Header().Get("Millrace-Durability") != "disk" {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	ok[any](t, d, 204, "PUT", "/admin/v2/persistent/public/default/x/partitions", "3")
	before := d.Do(t, "GET", topic+"/partitions/0/messages?include_schema=true", "").Body.String()
	d.End()
	d = openOver(t, local.Options{Dir: dir})
	if after := d.Do(t, "GET", topic+"/partitions/0/messages?include_schema=true", "").Body.String(); after != before || !strings.Contains(after, `"value":{"n":1}`) {
		t.Errorf("before %s\nafter %s", before, after)
	}
	again := ok[produced](t, d, 200, "POST", topic, body)
	if *again.SchemaVersion != 0 || !again.MessageIDs[0].Duplicate || *again.MessageIDs[0].MessageID == "" {
		t.Errorf("the same once more: %+v", again)
	}
	if got := ok[map[string]int](t, d, 200, "GET", "/admin/v2/persistent/public/default/x/partitions", ""); got["partitions"] != 3 {
		t.Errorf("partitions: %v", got)
	}
}

func TestTokensOfAUserAreGoodHere(t *testing.T) {
	d := open(t)
	api := flowmq.New(d.Broker, d.Shared)
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/api/v1/users", strings.NewReader(`{"username":"ann","password":"correct horse"}`))
	r.Header.Set("Authorization", "Bearer root."+secret)
	api.ServeHTTP(httptest.NewRecorder(), r)
	w := httptest.NewRecorder()
	api.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/api/v1/login", strings.NewReader(`{"username":"ann","password":"correct horse"}`)))
	var login struct {
		Data struct {
			Token string `json:"access_token"`
		}
	}
	must(t, json.Unmarshal(w.Body.Bytes(), &login))
	send := func(header, method, path, body string) int {
		r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		r.Header.Set("Authorization", header)
		return d.Send(r).Code
	}
	bearer := "Bearer " + login.Data.Token
	if code := send(bearer, "POST", topic, `{"messages":[{"value":1}]}`); code != 200 {
		t.Errorf("produce by a user: %d", code)
	}
	if code := send(bearer, "PUT", "/admin/v2/persistent/public/default/x/partitions", "2"); code != 403 {
		t.Errorf("a user is a client, who manages nothing: %d", code)
	}
	r = httptest.NewRequestWithContext(t.Context(), "GET", topic+"/partitions/0/messages", nil)
	r.SetBasicAuth("app", secret)
	if w := d.Send(r); w.Code != 200 {
		t.Errorf("Basic of a key: %d %s", w.Code, w.Body)
	}
	for _, bad := range []string{"Bearer x", "Bearer root.wrong", "Basic eDp5", "Token x"} {
		if code := send(bad, "GET", topic+"/partitions/0/messages", ""); code != 401 {
			t.Errorf("%s: %d", bad, code)
		}
	}
	if w := d.As(t, "pub", "GET", topic+"/partitions/0/messages", ""); w.Code != 403 {
		t.Errorf("a publisher reads: %d", w.Code)
	}
}
