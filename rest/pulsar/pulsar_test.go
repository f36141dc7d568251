package pulsar_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"millrace/persistence/local"
	"millrace/rest/internal/resttest"
	"millrace/rest/pulsar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = resttest.Secret

// door is the dialect over a real broker, asked without a socket.
type door struct{ *resttest.Door }

// open starts a broker over the memory driver; all of it ends with tb.
func open(tb testing.TB) *door {
	tb.Helper()
	return openOver(tb, local.Options{})
}

func openOver(tb testing.TB, o local.Options) *door {
	tb.Helper()
	d := resttest.Open(tb, o)
	d.Mux = pulsar.New(d.Broker, d.Shared, pulsar.Options{CreateTopics: true})
	return &door{d}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	resttest.Must(tb, err)
}

// ok sends a request that must be answered with status, and returns the answer.
func ok[T any](tb testing.TB, d *door, status int, method, path, body string) (answer T) {
	tb.Helper()
	w := d.Do(tb, method, path, body)
	if w.Code != status {
		tb.Fatalf("%s %s %.300s: status %d, want %d: %s", method, path, body, w.Code, status, w.Body)
	}
	if w.Body.Len() > 0 {
		must(tb, json.Unmarshal(w.Body.Bytes(), &answer))
	}
	return answer
}

// produced is the answer to a produce.
type produced struct {
	SchemaVersion *int `json:"schema_version"`
	MessageIDs    []struct {
		Partition *int
		MessageID *string
		ErrorCode *int `json:"error_code"`
		Error     *string
		Duplicate bool
	} `json:"messageIds"`
}

// read is the answer to a read.
type read struct {
	Messages []message
	Schemas  []struct {
		Type       string
		Version    int
		Data       []byte
		Properties map[string]string
	}
	Next uint64 `json:"next_offset"`
}

type message struct {
	MessageID           string
	Key, Value          json.RawMessage
	ValueEncoding       string `json:"value_encoding"`
	Partition           int
	Properties          map[string]string
	EventTime           *int64
	SequenceID          *int64
	ReplicationClusters []string
	RedeliveryCount     int
	SchemaVersion       *int `json:"schema_version"`
}

const topic = "/topics/public/default/x"

// produce sends messages, each as the JSON of its value.
func (d *door) produce(tb testing.TB, path string, values ...string) produced {
	tb.Helper()
	var ms []string
	for _, v := range values {
		ms = append(ms, `{"value":`+v+`}`)
	}
	got := ok[produced](tb, d, 200, "POST", path, `{"messages":[`+strings.Join(ms, ",")+`]}`)
	for i, m := range got.MessageIDs {
		if m.Error != nil {
			tb.Fatalf("message %d: %s", i, *m.Error)
		}
	}
	return got
}

// values reads a partition from its beginning.
func (d *door) values(tb testing.TB, path string) string {
	tb.Helper()
	return texts(ok[read](tb, d, 200, "GET", path+"/messages?timeout=0", "").Messages)
}

func texts(ms []message) string {
	var all []string
	for _, m := range ms {
		all = append(all, string(m.Value))
	}
	return strings.Join(all, " ")
}

// fails sends a request that must be answered with an error code.
func (d *door) fails(tb testing.TB, code int, method, path, body string) *httptest.ResponseRecorder {
	tb.Helper()
	w := d.Do(tb, method, path, body)
	var e struct {
		Code            int `json:"error_code"`
		Message, Reason string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Code != code || w.Code != code/100 || e.Message == "" || e.Reason != e.Message {
		tb.Errorf("%s %s %.200s: %d %s, want code %d", method, path, body, w.Code, w.Body, code)
	}
	return w
}
