package main_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestRelaxedModeIsMarkedInEveryAnswerToAWrite(t *testing.T) {
	for sync, want := range map[string]string{"interval": "relaxed", "group": "disk"} {
		boot := bootstrapFile(t, testKeyYAML+"queues:\n- {name: work, topic_filter: \"work/#\"}\n- {name: mem, topic_filter: \"mem/#\", driver: memory}\nstreams:\n- {name: log, topic_filter: \"work/#\"}\n")
		s := startServer(t, "--data", t.TempDir(), "--bootstrap-file", boot, "--set", "store.sync="+sync)
		for _, c := range []struct{ method, path, body, want string }{
			{"POST", "/api/v1/topics/work/a/messages", `{"payload":"x"}`, want},
			{"POST", "/api/v1/topics/work/a/messages/batch", `{"messages":[{"payload":"x"}]}`, want},
			{"POST", "/api/v1/queues/work/messages/consume", `{}`, ""},
			{"POST", "/api/v1/queues/work/purge", ``, want},
			{"POST", "/api/v1/queues", `{"name":"q","topic_filter":"q/#"}`, want},
			{"PATCH", "/api/v1/queues/q", `{"max_messages":5}`, want},
			{"POST", "/api/v1/streams/log/cursors/c", `{"offsets":[{"partition":0,"offset":1}]}`, want},
			{"DELETE", "/api/v1/queues/q", ``, want},
			{"POST", "/api/v1/topics/mem/a/messages", `{"payload":"x"}`, "memory"},
			{"POST", "/topics/persistent/public/default/log", `{"producerName":"p","messages":[{"payload":"x"}]}`, want},
			{"POST", "/api/v5/publish", `{"topic":"work/a","payload":"x"}`, want},
		} {
			r, err := http.NewRequestWithContext(t.Context(), c.method, s.url()+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+testKey)
			if strings.HasPrefix(c.path, "/api/v5") {
				id, secret, _ := strings.Cut(testKey, ".")
				r.Header.Del("Authorization")
				r.SetBasicAuth(id, secret)
			}
			r.Header.Set("Content-Type", "application/json")
			w, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = w.Body.Close()
			if w.StatusCode/100 != 2 {
				t.Errorf("%s: %s %s: %s", sync, c.method, c.path, w.Status)
			}
			if got := w.Header.Get("Millrace-Durability"); got != c.want && c.want != "" {
				t.Errorf("%s: %s %s says %q, want %q", sync, c.method, c.path, got, c.want)
			}
		}
		s.stop()
	}
}
