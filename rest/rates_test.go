package rest_test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
)

// publishes are the publishes of each dialect, to topic a or, where direct, to
// the queue q, and what a refusal for a rate says.
var publishes = []struct {
	name, listener, path, body, says string
	direct                           bool
}{
	{"flowmq", "http", "/api/v1/topics/a/messages", `{"payload":"xx"}`, `"code":"LIMIT_REACHED"`, false},
	{"flowmq", "http", "/api/v1/topics/a/messages/batch", `{"messages":[{"payload":"xx"}]}`, `"code":"LIMIT_REACHED"`, false},
	{"fastqueue", "http", "/v1/queue/q", `{"Action":"SendMessage","MessageBody":"xx"}`, `"detail":`, true},
	{"memfifo", "memfifo", "/queues/q/messages", "xx", `"error":`, true},
	{"emqx", "http", "/api/v5/publish", `{"topic":"a","payload":"xx"}`, `"code":"EXCEED_LIMIT"`, false},
	{"emqx", "http", "/api/v5/publish/bulk", `[{"topic":"a","payload":"xx"}]`, `"code":"EXCEED_LIMIT"`, false},
	{"pulsar", "http", "/topics/persistent/public/default/a", `{"messages":[{"payload":"xx"}]}`, `"error_code":42901`, false},
}

// queueFor makes the queue q of a publish.
func (s *site) queueFor(t *testing.T, name string, direct bool) {
	t.Helper()
	c := broker.NewQueueConfig("q", "a")
	c.Driver = broker.Memory
	if direct {
		c.Filter = ""
	}
	if name == "memfifo" {
		c.Maker = name
	}
	_, err := s.broker.CreateQueue(auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System}), c)
	must(t, err)
}

func TestRatesAre429WithTheWaitInEveryDialect(t *testing.T) {
	for _, rates := range []auth.Rates{{Requests: 1}, {Messages: 1}, {Bytes: 1}} {
		for _, p := range publishes {
			s := openRated(t, rates, nil)
			s.queueFor(t, p.name, p.direct)
			url := "http://" + s.Addr(p.listener).String() + p.path
			refused := false
			for range 20 {
				w, text := s.do(t, "POST", url, p.body)
				if w.StatusCode/100 == 2 {
					continue
				}
				_, told, _ := strings.Cut(text, "a second: wait ")
				told, _, _ = strings.Cut(told, " ")
				wait, err := time.ParseDuration(told)
				header := w.Header.Get("Retry-After")
				if w.StatusCode != http.StatusTooManyRequests || err != nil || header != fmt.Sprint(math.Ceil(wait.Seconds())) || !strings.Contains(text, p.says) {
					t.Errorf("%+v, %s: %d, Retry-After %s: %s", rates, p.path, w.StatusCode, header, text)
				}
				refused = true
				break
			}
			if !refused {
				t.Errorf("%+v, %s: nothing was refused", rates, p.path)
			}
		}
	}
}
