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

// publishes is a publish in the words of each dialect, the filter with which
// queue q gets it, and what its refusal for a rate says.
var publishes = []struct{ name, method, listener, path, body, filter, says string }{
	{"flowmq", "POST", "http", "/api/v1/topics/a/messages", `{"payload":"xx"}`, "a", `"code":"LIMIT_REACHED"`},
	{"emqx", "POST", "http", "/api/v5/publish", `{"topic":"a","payload":"xx"}`, "a", `"code":`},
	{"fastqueue", "POST", "http", "/v1/queue/q", `{"Action":"SendMessage","MessageBody":"xx"}`, "", `"detail":`},
	{"memfifo", "POST", "memfifo", "/queues/q/messages", "xx", "", `"error":`},
	{"pulsar", "POST", "http", "/topics/public/default/a", `{"messages":[{"value":"xx"}]}`, "a", `"error_code":42901`},
}

func TestRatesAre429WithTheWaitInEveryDialect(t *testing.T) {
	for _, rates := range []auth.Rates{{Requests: 1}, {Messages: 1}, {Bytes: 1}} {
		for _, p := range publishes {
			s := openRated(t, rates, nil)
			c := broker.NewQueueConfig("q", p.filter)
			if c.Driver = broker.Memory; p.name == "memfifo" {
				c.Maker = "memfifo"
			}
			_, err := s.broker.CreateQueue(auth.WithPrincipal(t.Context(), &auth.Principal{Kind: auth.System}), c)
			must(t, err)
			url := "http://" + s.Addr(p.listener).String() + p.path
			refused := false
			for range 20 {
				w, text := s.do(t, p.method, url, p.body)
				if w.StatusCode/100 == 2 {
					continue
				}
				_, told, _ := strings.Cut(text, "a second: wait ")
				told, _, _ = strings.Cut(told, " ")
				wait, err := time.ParseDuration(told)
				header := w.Header.Get("Retry-After")
				if w.StatusCode != http.StatusTooManyRequests || err != nil || header != fmt.Sprint(math.Ceil(wait.Seconds())) || !strings.Contains(text, p.says) {
					t.Errorf("%+v, %s: %d, Retry-After %s: %s", rates, p.name, w.StatusCode, header, text)
				}
				refused = true
				break
			}
			if !refused {
				t.Errorf("%+v, %s: nothing was refused", rates, p.name)
			}
		}
	}
}
