package rest_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
)

// publishes is a publish in the words of each dialect that has one here, and
// what its refusal for a rate says.
var publishes = []struct{ name, method, listener, path, body, says string }{
	{"flowmq", "POST", "http", "/api/v1/topics/a/messages", `{"payload":"xx"}`, `"code":"LIMIT_REACHED"`},
	{"fastqueue", "POST", "http", "/v1/queue/q", `{"Action":"SendMessage","MessageBody":"xx"}`, `"detail":`},
	{"memfifo", "POST", "memfifo", "/queues/q/messages", "xx", `"error":`},
}

func TestRatesAre429WithTheWaitInEveryDialect(t *testing.T) {
	for _, rates := range []auth.Rates{{Requests: 1}, {Messages: 1}, {Bytes: 1}} {
		for _, p := range publishes {
			s := openRated(t, rates, nil)
			c := broker.NewQueueConfig("q", "")
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
				wait, err := strconv.Atoi(w.Header.Get("Retry-After"))
				if w.StatusCode != http.StatusTooManyRequests || err != nil || wait < 1 || !strings.Contains(text, p.says) || !strings.Contains(text, "a second: wait") {
					t.Errorf("%+v, %s: %d, wait %d: %s", rates, p.name, w.StatusCode, wait, text)
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
