package pulsar_test

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/persistence/local"
	"millrace/rest/internal/resttest"
	"millrace/rest/pulsar"
)

const sub = topic + "/subscription/s"

// join makes a consumer of a subscription that begins at the first message, and
// returns the path under which it is asked.
func (d *door) join(tb testing.TB, more string) string {
	tb.Helper()
	got := ok[struct {
		ID   string
		Base string `json:"base_uri"`
	}](tb, d, 200, "POST", sub, `{"position":"earliest"`+more+`}`)
	path, found := strings.CutPrefix(got.Base, "http://example.com")
	if !found || !strings.HasSuffix(path, "/"+got.ID) {
		tb.Fatalf("base_uri is %s", got.Base)
	}
	return path
}

// fetch takes what is there, and returns its values.
func (d *door) fetch(tb testing.TB, consumer string) []message {
	tb.Helper()
	return ok[read](tb, d, 200, "GET", consumer+"/messages?timeout=0", "").Messages
}

// cursor answers what an acknowledgement does: how many it did, and not.
func (d *door) cursor(tb testing.TB, typ string, ms ...message) (done, unknown int) {
	tb.Helper()
	ids := []string{}
	for _, m := range ms {
		ids = append(ids, m.MessageID)
	}
	text, _ := json.Marshal(map[string]any{"type": typ, "messageIds": ids})
	got := ok[struct {
		MessageIDs []string `json:"messageIds"`
		Unknown    []string
	}](tb, d, 200, "POST", sub+"/cursor", string(text))
	return len(got.MessageIDs), len(got.Unknown)
}

func TestConsumersNeverShareAMessage(t *testing.T) {
	d := open(t)
	ok[any](t, d, 204, "PUT", "/admin/v2/persistent/public/default/x/partitions", "3")
	const n, consumers = 300, 6
	for i := range n {
		d.produce(t, topic, strconv.Itoa(i))
	}
	var mu sync.Mutex
	seen := map[string]int{}
	var wait sync.WaitGroup
	for range consumers {
		c := d.join(t, "")
		wait.Go(func() {
			for {
				got := d.fetch(t, c)
				if len(got) == 0 {
					return
				}
				mu.Lock()
				for _, m := range got {
					seen[string(m.Value)]++
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	for value, times := range seen {
		if times != 1 {
			t.Errorf("message %s was given to %d consumers", value, times)
		}
	}
	if len(seen) != n {
		t.Errorf("%d messages of %d were received", len(seen), n)
	}
}

func TestAcknowledgementsByIDAndUpToOne(t *testing.T) {
	d := open(t)
	d.produce(t, topic, "0", "1", "2", "3", "4")
	c := d.join(t, "")
	got := d.fetch(t, c)
	if done, unknown := d.cursor(t, "INDIVIDUAL", got[3], got[3]); done != 2 || unknown != 0 {
		t.Errorf("individual: %d and %d", done, unknown)
	}
	if done, unknown := d.cursor(t, "cumulative", got[0], message{MessageID: d.ledger(t) + ":99:0"}); done != 0 || unknown != 2 {
		t.Errorf("cumulative beyond the end: %d and %d", done, unknown)
	}
	if done, unknown := d.cursor(t, "cumulative", got[1], got[0], message{MessageID: "1:99:0"}); done != 2 || unknown != 1 {
		t.Errorf("cumulative: %d and %d", done, unknown)
	}
	ok[any](t, d, 204, "DELETE", c, "")
	if again := d.fetch(t, d.join(t, "")); texts(again) != `"2" "4"` || again[0].RedeliveryCount != 1 {
		t.Errorf("left are %s", texts(again))
	}
	body := `{"ackType":"SINGLE","messagePositions":[{"ledgerId":0,"entryId":0}]}`
	d.fails(t, 40404, "POST", topic+"/subscription/none/cursor", body)
	d.fails(t, 40401, "POST", "/topics/public/default/none/subscription/s/cursor", body)
	for _, bad := range []string{
		`{"type":"individual"}`, `{"type":"individual","messageIds":["x"]}`, `{"type":"individual","messageIds":[5]}`,
		`{"ackType":"SINGLE","messagePositions":[{"entryId":1}]}`, `{"type":"seek"}`, `{"type":"seek","messageIds":["99:0:0"]}`,
	} {
		d.fails(t, 42205, "POST", sub+"/cursor", bad)
	}
	d.fails(t, 40001, "POST", sub+"/cursor", `{"type":"sideways"}`)
	d.fails(t, 42205, "POST", sub+"/cursor", `{"type":"seek","messageIds":["`+d.ledger(t)+`:99:0"]}`)
}

// ledger is the first part of the ids of the topic.
func (d *door) ledger(tb testing.TB) string {
	tb.Helper()
	s, err := d.Broker.Stream(resttest.System(tb), "public/default/x")
	must(tb, err)
	return strconv.FormatUint(s.Incarnation, 10)
}

func TestASubscriptionGoesOnWhereItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.produce(t, topic, "0", "1")
		time.Sleep(time.Minute)
		noon := time.Now().UnixMilli()
		d.produce(t, topic, "2", "3")
		c := d.join(t, "")
		for _, step := range []struct{ body, want string }{
			{`{"type":"latest"}`, ``},
			{`{"type":"earliest"}`, `"0" "1" "2" "3"`},
			{`{"type":"seek","messageIds":["` + d.ledger(t) + `:1:0"]}`, `"1" "2" "3"`},
			{`{"type":"seek","timestamp":` + strconv.FormatInt(noon, 10) + `}`, `"2" "3"`},
		} {
			ok[any](t, d, 200, "POST", sub+"/cursor", step.body)
			if got := texts(d.fetch(t, c)); got != step.want {
				t.Errorf("%s: %s", step.body, got)
			}
		}
		latest := ok[map[string]string](t, d, 200, "POST", topic+"/subscription/late", `{}`)["base_uri"]
		if got := texts(d.fetch(t, strings.TrimPrefix(latest, "http://example.com"))); got != "" {
			t.Errorf("a subscription begins behind %s", got)
		}
	})
}

func TestAConsumerThatIsIdleReleasesItsMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.produce(t, topic, "0")
		one, two := d.join(t, ""), d.join(t, "")
		d.fetch(t, one)
		for range 3 {
			time.Sleep(4 * time.Minute)
			ok[any](t, d, 200, "POST", one+"/cursor", `{"type":"individual","messageIds":["1:99:0"]}`)
			if got := d.fetch(t, two); len(got) > 0 {
				t.Fatalf("the other one is given %s", texts(got))
			}
		}
		time.Sleep(3 * time.Minute)
		d.fetch(t, two)
		time.Sleep(3 * time.Minute)
		if got := d.fetch(t, two); texts(got) != `"0"` {
			t.Errorf("after it was idle: %s", texts(got))
		}
		d.fails(t, 40403, "GET", one+"/messages", "")
	})
}

func TestAnAcknowledgementTimeoutOfASubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.produce(t, topic, "0")
		one, two := d.join(t, `,"ack_timeout_ms":20000`), d.join(t, "")
		d.fetch(t, one)
		time.Sleep(19 * time.Second)
		if got := d.fetch(t, two); len(got) > 0 {
			t.Errorf("before the timeout: %s", texts(got))
		}
		time.Sleep(2 * time.Second)
		if got := d.fetch(t, two); texts(got) != `"0"` {
			t.Errorf("after the timeout: %s", texts(got))
		}
		d.join(t, `,"ackTimeoutMillis":0`)
		ok[any](t, d, 200, "POST", sub+"/cursor", `{"type":"earliest"}`)
		d.fetch(t, one)
		time.Sleep(4 * time.Minute)
		if got := d.fetch(t, two); len(got) > 0 {
			t.Errorf("without a timeout: %s", texts(got))
		}
		d.fails(t, 40001, "POST", sub, `{"ack_timeout_ms":-1}`)
		d.fails(t, 40001, "POST", sub, `{"ack_timeout_ms":43200001}`)
	})
}

func TestAFetchWaitsForTheMessageAndEndsWithTheServer(t *testing.T) {
	for name, c := range map[string]struct {
		act    func(t *testing.T, d *door, consumer string)
		status int
		text   string
	}{
		"produce": {func(t *testing.T, d *door, _ string) { d.produce(t, topic, "1") }, 200, `"value":"1"`},
		"leave":   {func(t *testing.T, d *door, c string) { d.Do(t, "DELETE", c, "") }, 404, `40403`},
		"delete":  {func(t *testing.T, d *door, _ string) { d.Do(t, "DELETE", sub, "") }, 404, `40404`},
		"drain":   {func(_ *testing.T, d *door, _ string) { d.Drain() }, 200, `{"messages":[]}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := open(t)
				d.produce(t, topic, "0")
				c1 := d.join(t, "")
				d.fetch(t, c1)
				start := time.Now()
				answered := make(chan *httptest.ResponseRecorder, 1)
				go func() { answered <- d.Do(t, "GET", c1+"/messages?timeout=30000", "") }()
				synctest.Wait()
				c.act(t, d, c1)
				w := <-answered
				if w.Code != c.status || !strings.Contains(w.Body.String(), c.text) || time.Since(start) > time.Second {
					t.Errorf("after %v: %d %s", time.Since(start), w.Code, w.Body)
				}
			})
		})
	}
}

// broken is a client that has gone when its answer is written.
type broken struct{ *httptest.ResponseRecorder }

func (broken) Write([]byte) (int, error) { return 0, http.ErrHandlerTimeout }

func TestMessagesThatCouldNotBeHandedOverAreReadyAgain(t *testing.T) {
	d := open(t)
	d.produce(t, topic, "0")
	one, two := d.join(t, ""), d.join(t, "")
	r := httptest.NewRequestWithContext(t.Context(), "GET", one+"/messages", nil)
	r.Header.Set("Authorization", "Bearer root."+secret)
	d.Mux.ServeHTTP(broken{httptest.NewRecorder()}, r)
	if got := d.fetch(t, two); texts(got) != `"0"` || got[0].RedeliveryCount != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestAConsumerSaysWhatMessagesWithoutASchemaAre(t *testing.T) {
	d := open(t)
	d.produce(t, topic, `"x"`)
	_, err := d.Broker.Publish(resttest.System(t), &broker.Message{Topic: "x", QoS: 1, Payload: []byte(`{"n":1}`)})
	must(t, err)
	ok[any](t, d, 200, "POST", topic, `{"schema_type":"INT32","messages":[{"value":5}]}`)
	if got := texts(d.fetch(t, d.join(t, `,"schema_type":"JSON","value_schema":"{}"`))); got != `"eA==" {"n":1} 5` {
		t.Errorf("got %s", got)
	}
	d.join(t, `,"schema_version":0`)
	d.fails(t, 42204, "POST", sub, `{"schema_version":7}`)
	d.fails(t, 42202, "POST", sub, `{"schema_type":"AVRO"}`)
	d.fails(t, 42201, "POST", sub, `{"schema_type":"KEY_VALUE"}`)
	d.fails(t, 42203, "POST", sub, `{"key_schema":{"type":"NONSENSE"},"value_schema":"string"}`)
	d.fails(t, 40401, "POST", "/topics/public/default/none/subscription/s", `{"schema_version":7}`)
}

func TestConsumersBelongToWhoMadeThem(t *testing.T) {
	d := open(t)
	d.produce(t, topic, "0")
	c := d.join(t, "")
	if w := d.As(t, "app", "GET", c+"/messages", ""); w.Code != 404 {
		t.Errorf("another key's consumer: %d %s", w.Code, w.Body)
	}
	for _, call := range [][2]string{{"POST", sub}, {"GET", c + "/messages"}, {"DELETE", c}, {"POST", sub + "/cursor"}, {"DELETE", sub}, {"GET", sub + "/cursor"}} {
		if w := d.As(t, "pub", call[0], call[1], `{"type":"latest"}`); w.Code != 403 {
			t.Errorf("%s %s by a publisher: %d %s", call[0], call[1], w.Code, w.Body)
		}
	}
}

func TestTheBaseURIIsWhatClientsReachUsBy(t *testing.T) {
	d := open(t)
	d.produce(t, topic, "0")
	base := func(path string, secure bool) string {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), "POST", path, nil)
		r.Host = "broker:8080"
		if secure {
			r.TLS = &tls.ConnectionState{}
		}
		r.Header.Set("Authorization", "Bearer root."+secret)
		var got struct {
			ID   string
			Base string `json:"base_uri"`
		}
		must(t, json.Unmarshal(d.Send(r).Body.Bytes(), &got))
		return strings.TrimSuffix(got.Base, got.ID)
	}
	for _, c := range []struct {
		path   string
		secure bool
		want   string
	}{
		{topic + "/subscription/a%2Fb", false, "http://broker:8080" + topic + "/subscription/a%2Fb/consumer/"},
		{"/topics/persistent/public/default/x/subscription/s/consumers", true, "https://broker:8080/topics/persistent/public/default/x/subscription/s/consumer/"},
	} {
		if got := base(c.path, c.secure); got != c.want {
			t.Errorf("%s: %s", c.path, got)
		}
	}
	d.Mux = pulsar.New(d.Broker, d.Shared, pulsar.Options{PublicURL: "https://mq.example/"})
	if got := base(sub, false); got != "https://mq.example"+sub+"/consumer/" {
		t.Errorf("behind a proxy: %s", got)
	}
}

func TestARestartKeepsCursorsAndNoConsumers(t *testing.T) {
	dir := t.TempDir()
	d := openOver(t, local.Options{Dir: dir})
	ok[any](t, d, 204, "PUT", "/admin/v2/persistent/public/default/x/partitions", "2")
	for _, p := range []string{"/partitions/0", "/partitions/1"} {
		d.produce(t, topic+p, "0", "1", "2", "3")
	}
	c := d.join(t, "")
	got := d.fetch(t, c)
	d.cursor(t, "cumulative", got[1])
	d.cursor(t, "individual", got[5], got[7])
	before := d.Do(t, "GET", sub+"/cursor", "").Body.String()
	d.End()
	d = openOver(t, local.Options{Dir: dir})
	var was, is struct{ Cursor json.RawMessage }
	must(t, json.Unmarshal([]byte(before), &was))
	must(t, json.Unmarshal(d.Do(t, "GET", sub+"/cursor", "").Body.Bytes(), &is))
	if mark := func(b []byte) string { s, _, _ := strings.Cut(string(b), `"read_position"`); return s }; mark(is.Cursor) != mark(was.Cursor) {
		t.Errorf("before %s\nafter %s", was.Cursor, is.Cursor)
	}
	d.fails(t, 40403, "GET", c+"/messages", "")
	left := map[string]bool{}
	for _, m := range d.fetch(t, d.join(t, "")) {
		left[m.MessageID] = true
	}
	for i, m := range got {
		if acked := i < 2 && m.Partition == got[1].Partition || i == 5 || i == 7; left[m.MessageID] == acked {
			t.Errorf("message %d, partition %d, acknowledged %v: left %v", i, m.Partition, acked, left[m.MessageID])
		}
	}
}

func TestAfterAKillWhatAConsumerHeldIsBackWithinAMinute(t *testing.T) {
	dir, kept := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := openOver(t, local.Options{Dir: dir})
		d.produce(t, topic, `"held"`)
		if got := d.fetch(t, d.join(t, "")); texts(got) != `"held"` {
			t.Fatalf("fetched %s", texts(got))
		}
		d.produce(t, topic, `"free"`) // the lease is written with it
		synctest.Wait()
		must(t, os.CopyFS(kept, os.DirFS(dir)))
		d.End()
		d = openOver(t, local.Options{Dir: kept})
		defer d.End()
		c, start := d.join(t, ""), time.Now()
		if got := d.fetch(t, c); texts(got) != `"free"` {
			t.Fatalf("at once: %s", texts(got))
		}
		var got []message
		for len(got) == 0 && time.Since(start) < 2*time.Minute {
			got = ok[read](t, d, 200, "GET", c+"/messages?timeout=30000", "").Messages
		}
		if took := time.Since(start); texts(got) != `"held"` || got[0].RedeliveryCount != 1 || took > time.Minute {
			t.Errorf("after %v: %s, %+v", took, texts(got), got)
		}
	})
}
