package main_test

import (
	"net/http"
	"strings"
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
