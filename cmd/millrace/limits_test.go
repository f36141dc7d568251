package main_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// TestAMemoryLimitRefuses has so small a limit that nothing fits.
func TestAMemoryLimitRefuses(t *testing.T) {
	s := startServer(t, "--dev", "--set", "limits.memory=1MiB")
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + s.ports["mqtt"]).SetAutoReconnect(false).SetProtocolVersion(4))
	if tok := c.Connect(); tok.Wait() && (tok.Error() == nil || !strings.Contains(strings.ToLower(tok.Error().Error()), "unavailable")) {
		t.Errorf("connect: %v", tok.Error())
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url()+"/api/v1/topics/demo/x/messages", strings.NewReader(`{"payload":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	key := apiKeyLine.FindStringSubmatch(s.banner())
	if key == nil {
		t.Fatalf("no API key in the banner:\n%s", s.banner())
	}
	r.Header.Set("Authorization", "Bearer "+key[1])
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
		t.Errorf("publish: %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
}

// TestLimitsOfAllThatIsStoredChangeWhileItRuns: a SIGHUP sets them, an alarm and figures
// say that they are reached, and another one lifts them.
func TestLimitsOfAllThatIsStoredChangeWhileItRuns(t *testing.T) { // D29
	conf := filepath.Join(t.TempDir(), "millrace.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("log: {level: info}\n")
	s := startServer(t, "--data", t.TempDir(), "--bootstrap-file", bootstrapFile(t, testKeyYAML), "--config", conf)
	api := newService(s)
	create := func(kind, name string) error {
		return api.call(t.Context(), http.MethodPost, "/"+kind, map[string]any{"name": name, "topic_filter": "t/#"}, nil)
	}
	taken := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	refused := func(err error, key string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "LIMIT_REACHED") || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
	taken(create("queues", "one"))
	taken(create("streams", "one"))
	taken(api.publish(t.Context(), "t/1", "x"))

	write("log: {level: debug}\nlimits: {queues: 1, streams: 1, stored: 1B, retained: 1}\n")
	hangUp(t, s, `"changed":"log.level limits.queues limits.streams limits.stored limits.retained","time"`)
	refused(create("queues", "two"), "limits.queues")
	refused(create("streams", "two"), "limits.streams")
	refused(api.publish(t.Context(), "t/1", "x"), "limits.stored")
	if !s.logs(`"alarm":"limit_reached:queues"`) || !s.logs(`"alarm":"limit_reached:streams"`) || !s.logs(`"alarm":"limit_reached:stored"`) {
		t.Errorf("there are not all alarms:\n%s", tail(s.log))
	}
	figures := strings.Join(scrape(t, s), "\n")
	for _, want := range []string{
		`millrace_total_now{limit="queues"} 1`, `millrace_total_limit{limit="stored"} 1`, `millrace_total_refusals_total{limit="queues"} 1`,
		`millrace_total_refusals_total{limit="streams"} 1`, `millrace_total_refusals_total{limit="stored"} 1`,
	} {
		if !strings.Contains(figures, want) {
			t.Errorf("the figures lack %s", want)
		}
	}
	held, err := api.consume(t.Context(), "one", 1, 0, 30)
	if err != nil || len(held) != 1 {
		t.Fatalf("consumed %d, %v", len(held), err)
	}
	taken(api.ack(t.Context(), "one", held[0]))

	write("log: {level: debug}\n")
	hangUp(t, s, `"changed":"limits.queues limits.streams limits.stored limits.retained","time"`)
	taken(create("queues", "two"))
	taken(create("streams", "two"))
	taken(api.publish(t.Context(), "t/1", "x"))
	s.stop()
}

// hangUp has the server read its files again, and waits until the log says so.
func hangUp(t *testing.T, s *server, says string) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !s.logs(says) {
		t.Errorf("the log does not say %s:\n%s", says, tail(s.log))
	}
}
