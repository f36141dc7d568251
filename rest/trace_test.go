package rest_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
)

const parent, state = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"

// traced sends a request within a trace.
func (s *site) traced(t *testing.T, method, url, body, parent string, states ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	must(t, err)
	r.Header = http.Header{"Authorization": {bearer}, "Client-Id": {"test"}, "Content-Type": {"application/json"}, "Traceparent": {parent}, "Tracestate": states}
	w, err := http.DefaultClient.Do(r)
	must(t, err)
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	must(t, err)
	return w, string(text)
}

func TestATraceGoesFromEveryPublishToItsMessage(t *testing.T) {
	system := auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System})
	for _, p := range publishes {
		s := openSite(t, nil)
		s.queueFor(t, p.name, p.direct)
		url := "http://" + s.Addr(p.listener).String() + p.path
		receive := func() broker.Trace {
			t.Helper()
			got, err := s.broker.Receive(system, "q", broker.ReceiveOptions{Max: 1})
			must(t, err)
			if len(got) != 1 {
				t.Fatalf("%s: %d messages", p.path, len(got))
			}
			_, err = s.broker.Ack(system, "q", got[0].ID, got[0].Receipt)
			must(t, err)
			return broker.TraceOf(&got[0].Message)
		}
		s.traced(t, "POST", url, p.body, parent, strings.Split(state, ",")...)
		if got := receive(); got.Parent != parent || got.State != state {
			t.Errorf("%s: got %+v", p.path, got)
		}
		for _, bad := range []string{
			"", "x", strings.ToUpper(parent), "ff" + parent[2:], parent + "-00", "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
			"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", strings.ReplaceAll(parent, "-", "_"),
		} {
			s.traced(t, "POST", url, p.body, bad, state)
			if got := receive(); got != (broker.Trace{}) {
				t.Errorf("%s: %q became %+v", p.path, bad, got)
			}
		}
		s.traced(t, "POST", url, p.body, "01"+parent[2:]+"-more", strings.Repeat("x", 513))
		if got := receive(); got.Parent != "01"+parent[2:]+"-more" || got.State != "" {
			t.Errorf("%s: got %+v", p.path, got)
		}
	}
}

func TestAMessagesOwnTraceCounts(t *testing.T) {
	s := openSite(t, nil)
	c := broker.NewQueueConfig("q", "a")
	c.Driver = broker.Memory
	system := auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System})
	_, err := s.broker.CreateQueue(system, c)
	must(t, err)
	s.traced(t, "POST", s.url("/api/v1/topics/a/messages/batch"), `{"messages":[{"payload":"1","properties":{"traceparent":"mine"}},{"payload":"2"}]}`, parent, state)
	_, text := s.do(t, "POST", s.url("/api/v1/queues/q/messages/consume"), `{"max_messages":2}`)
	if !strings.Contains(text, `{"traceparent":"mine"}`) || strings.Count(text, parent) != 1 || strings.Count(text, state) != 1 {
		t.Errorf("got %s", text)
	}
}

func TestAMessageHandedOverRawTellsItsTrace(t *testing.T) {
	s := openSite(t, nil)
	c := broker.NewQueueConfig("q", "a")
	c.Driver, c.Maker = broker.Memory, "memfifo"
	system := auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System})
	_, err := s.broker.CreateQueue(system, c)
	must(t, err)
	url := "http://" + s.Addr("memfifo").String() + "/queues/q/messages"
	for _, x := range []struct{ sent, want, state, wantState string }{
		{parent, parent, state, state}, {parent, parent, "a\nb", ""}, {"x\r\nSet-Cookie: y", "", state, ""},
	} {
		m := &broker.Message{Topic: "a", Payload: []byte("x"), QoS: 1, Properties: []broker.Property{
			{Name: broker.TraceParent, Value: x.sent}, {Name: broker.TraceState, Value: x.state}, // of an MQTT 5 publisher
		}}
		_, err := s.broker.Publish(system, m)
		must(t, err)
		w, _ := s.do(t, "GET", url, "")
		if got := w.Header.Get("traceparent"); got != x.want || w.Header.Get("tracestate") != x.wantState {
			t.Errorf("%q: got %q and %q", x.sent, got, w.Header.Get("tracestate"))
		}
	}
}
