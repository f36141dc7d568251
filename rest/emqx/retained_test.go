package emqx_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/rest/emqx"
)

// TestRetainedMessagesAreCountedAsTheyAreListed has beside the messages of clients
// those of the server itself, which no figure counts.
func TestRetainedMessagesAreCountedAsTheyAreListed(t *testing.T) {
	d := open(t)
	server := d.Broker.NewAnnouncer(func(err error) { t.Error(err) })
	for i := range 5 {
		server.Announce(&broker.Message{Topic: fmt.Sprint("$SYS/broker/", i), Payload: []byte("x"), Retain: true})
	}
	server.Flush()
	for _, topic := range []string{"a/1", "a/2", "$other/b"} {
		read[any](t, d, "POST", "/publish", `{"topic":"`+topic+`","payload":"p","retain":true}`)
	}
	type page struct {
		Data []struct{ Topic string }
		Meta struct {
			Count *int
			More  bool `json:"hasnext"`
		}
	}
	listed := func(query, want string) {
		t.Helper()
		p, w := read[page](t, d, "GET", "/mqtt/retainer/messages"+query, "")
		var topics []string
		for _, m := range p.Data {
			topics = append(topics, m.Topic)
		}
		got := fmt.Sprintf("%v%t", topics, p.Meta.More)
		if p.Meta.Count != nil {
			got += fmt.Sprint(" of ", *p.Meta.Count)
		}
		if got != want {
			t.Errorf("%s lists %s, want %s: %s", query, got, want, w.Body)
		}
	}
	counted := func(now, most int64) {
		t.Helper()
		stats, _ := read[map[string]int64](t, d, "GET", "/stats?aggregate=true", "")
		metrics, _ := read[map[string]int64](t, d, "GET", "/metrics?aggregate=true", "")
		current, _ := read[struct {
			Retained int64 `json:"retained_msg_count"`
		}](t, d, "GET", "/monitor_current", "")
		scrape := httptest.NewRequestWithContext(t.Context(), "GET", emqx.Prefix+"/prometheus/stats", nil)
		scrape.RemoteAddr = "127.0.0.1:4711"
		text := d.Send(scrape).Body.String()
		for _, line := range []string{"emqx_retained_count", "emqx_messages_retained"} {
			if !strings.Contains(text, fmt.Sprintf("\n%s %d\n", line, now)) {
				t.Errorf("%s is not exported as %d", line, now)
			}
		}
		for name, n := range map[string]int64{
			"stats": stats["retained.count"], "metrics": metrics["messages.retained"], "the monitor": current.Retained,
		} {
			if n != now {
				t.Errorf("%s shows %d, want %d", name, n, now)
			}
		}
		if n := stats["retained.max"]; n != most {
			t.Errorf("there were %d at most, want %d", n, most)
		}
	}
	listed("", "[$other/b a/1 a/2]false of 3")
	listed("?limit=1&page=2", "[a/1]true of 3")
	listed("?topic=%23", "[a/1 a/2]false")
	listed("?topic=$SYS/%23&limit=2", "[$SYS/broker/0 $SYS/broker/1]true")
	counted(3, 3)
	const sys = "/mqtt/retainer/message/$SYS%2Fbroker%2F"
	if _, w := read[any](t, d, "DELETE", sys+"%23", ""); w.Code != 400 || !strings.Contains(w.Body.String(), "the server's own") {
		t.Errorf("what the server tells is cleared: %d %s", w.Code, w.Body)
	}
	if _, w := read[any](t, d, "DELETE", "/mqtt/retainer/messages", ""); w.Code != 204 {
		t.Errorf("clearing all answers %d %s", w.Code, w.Body)
	}
	listed("", "[]false of 0")
	counted(0, 3)
	if _, w := read[any](t, d, "GET", sys+"4", ""); w.Code != 200 {
		t.Errorf("what the server tells has gone: %d %s", w.Code, w.Body)
	}
}
