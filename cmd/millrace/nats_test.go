package main_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	natsserver "github.com/nats-io/nats-server/v2/server"

	"millrace/persistence/jetstream/jetstreamtest"
)

// overNATS starts a broker over NATS servers, with a data directory of its own.
func overNATS(t *testing.T, url string, more ...string) (*server, *service) {
	t.Helper()
	args := []string{"--data", t.TempDir(), "--allow-anonymous", "--store", url, "--nats-sync", "always", "--bootstrap-file", bootstrapFile(t, testKeyYAML+`
queues:
- {name: e, topic_filter: "e/#"}
`)}
	s := startServer(t, append(args, more...)...)
	return s, newService(s)
}

// dial connects a client of MQTT 3.1.1.
func dial(s *server, id string, clean bool) (paho.Client, error) {
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + s.ports["mqtt"]).SetClientID(id).SetCleanSession(clean).SetProtocolVersion(4).SetAutoReconnect(false))
	token := c.Connect()
	if !token.WaitTimeout(20 * time.Second) {
		return nil, fmt.Errorf("no CONNACK")
	}
	return c, token.Error()
}

// TestMessagesStayInNATS has devices publish and a service consume, over a stop
// and a kill, on machines that share nothing but the NATS server.
func TestMessagesStayInNATS(t *testing.T) {
	c := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1})
	for round := range 3 {
		s, api := overNATS(t, c.URL())
		if round > 0 {
			expectNumbers(t, collect(t, api, "e", 200), "d-", 200)
			if n, err := api.counts(t.Context(), "e"); err != nil || n.Waiting+n.Held+n.Books.Difference != 0 {
				t.Errorf("%+v are left, %v", n, err)
			}
		}
		device, err := dial(s, "device", true)
		if err != nil {
			t.Fatal(err)
		}
		var tokens []paho.Token
		for i := range 200 {
			tokens = append(tokens, device.Publish("e/d", byte(1+i%2), false, fmt.Sprintf("d-%04d", i)))
		}
		for i, token := range tokens {
			if !token.WaitTimeout(30*time.Second) || token.Error() != nil {
				t.Fatalf("message %d has no answer: %v", i, token.Error())
			}
		}
		device.Disconnect(100)
		if round == 1 {
			s.kill()
		} else {
			s.stop()
		}
	}
}

// TestMosquittoFindsItsSessionInNATS has a client be away while the broker is
// killed, and get everything on another machine.
func TestMosquittoFindsItsSessionInNATS(t *testing.T) {
	needTools(t)
	url := lone(t, nil)
	s, _ := overNATS(t, url)
	sub := func(qos, n int) string {
		t.Helper()
		_, port, _ := strings.Cut(s.ports["mqtt"], ":")
		args := []string{"-p", port, "-c", "-i", fmt.Sprint("m", qos), "-q", fmt.Sprint(qos), "-t", "e/#"}
		if n == 0 {
			args = append(args, "-E") // subscribe, and go
		} else {
			args = append(args, "-C", fmt.Sprint(n), "-W", "60")
		}
		out, err := exec.Command("mosquitto_sub", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("mosquitto_sub: %v: %s", err, out)
		}
		return string(out)
	}
	sub(1, 0)
	sub(2, 0)
	const n = 100
	want := ""
	for round := range 2 {
		device, err := dial(s, "device", true)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			text := fmt.Sprintf("%d-%03d", round, i)
			if token := device.Publish("e/d", 2, false, text); !token.WaitTimeout(30*time.Second) || token.Error() != nil {
				t.Fatalf("message %s has no answer: %v", text, token.Error())
			}
			want += text + "\n"
		}
		device.Disconnect(100)
		s.kill()
		s, _ = overNATS(t, url)
	}
	for qos := 1; qos <= 2; qos++ {
		if got := sub(qos, 2*n); got != want {
			t.Errorf("in QoS %d it gets\n%s, want\n%s", qos, got, want)
		}
	}
}

func TestNodesTellTheirNames(t *testing.T) {
	url := lone(t, nil)
	for _, given := range [][]string{nil, {"--node-name", "rack-7"}} {
		data := t.TempDir()
		s := startServer(t, append([]string{"--data", data, "--store", url}, given...)...)
		name := "rack-7"
		if given == nil {
			kept, err := os.ReadFile(filepath.Join(data, "node"))
			if name = strings.TrimSpace(string(kept)); err != nil || len(name) < 5 {
				t.Fatalf("the name is %q, %v", name, err)
			}
		}
		_, errs, code := command(t, "serve", "--data", t.TempDir(), "--mqtt-listen", "none", "--http-listen", "127.0.0.1:0", "--store", url, "--node-name", name)
		if code != 75 || !strings.Contains(errs, fmt.Sprintf("a node named %q is in the cluster already", name)) || !strings.Contains(errs, "--node-name") {
			t.Errorf("a second node of that name ends with code %d: %s", code, errs)
		}
		s.stop()
	}
}

func TestAStartWithoutNATSEnds(t *testing.T) {
	off := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1, Configure: func(o *natsserver.Options) { o.JetStreamMaxStore = -1 }})
	_, errs, code := command(t, "serve", "--data", t.TempDir(), "--http-listen", "127.0.0.1:0", "--store", off.URL())
	if code != 78 || !strings.Contains(errs, "start its servers with -js") {
		t.Errorf("without JetStream it ends with code %d: %s", code, errs)
	}
	url := off.URL()
	off.Stop()
	_, errs, code = command(t, "serve", "--data", t.TempDir(), "--http-listen", "127.0.0.1:0", "--store", url, "--nats-wait", "1s")
	if code != 7 || !strings.Contains(errs, "no nats server at "+url+" within 1s") || !strings.Contains(errs, "start the servers, or name others with --store") {
		t.Errorf("without a server it ends with code %d: %s", code, errs)
	}
}

// TestAStartThatWaitsForNATSIsLive, and not ready: it is not to be started again.
func TestAStartThatWaitsForNATSIsLive(t *testing.T) {
	away, address := freeAddress(t), freeAddress(t)
	s := launchServer(t, "--data", t.TempDir(), "--http-listen", address, "--store", "nats://"+away, "--nats-wait", "5m")
	ask := func(path string) (status int, body string) {
		r, err := http.Get("http://" + address + path)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = r.Body.Close() }()
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return 0, err.Error()
		}
		return r.StatusCode, string(text)
	}
	if !eventually(40*time.Second, func() bool { status, _ := ask("/livez"); return status == http.StatusOK }) {
		_, body := ask("/livez")
		t.Fatalf("/livez of a start that waits: %s", body)
	}
	for _, path := range []string{"/readyz", "/api/v1/queues"} {
		if status, body := ask(path); status != http.StatusServiceUnavailable || !strings.Contains(body, "waiting for the store at the nats servers") {
			t.Errorf("%s is %d: %s", path, status, body)
		}
	}
	_, port, _ := net.SplitHostPort(away)
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1, Configure: func(o *natsserver.Options) { o.Port = n }})
	s.listens()
	if !eventually(40*time.Second, func() bool { status, _ := ask("/readyz"); return status == http.StatusOK }) {
		status, body := ask("/readyz")
		t.Errorf("/readyz once the servers are there: %d, %s", status, body)
	}
}
