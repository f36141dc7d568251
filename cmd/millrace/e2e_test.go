package main_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	pahov3 "github.com/eclipse/paho.mqtt.golang"
)

// e2e starts a broker with a key and a queue that collects e/#.
func e2e(t *testing.T) (*server, *service) {
	t.Helper()
	s := startServer(t, "--data", t.TempDir(), "--allow-anonymous", "--bootstrap-file", bootstrapFile(t, testKeyYAML+`
queues:
- {name: e, topic_filter: "e/#"}
`))
	return s, newService(s)
}

// collect takes everything out of a queue until n payloads are there.
func collect(t *testing.T, api *service, queue string, n int) []string {
	t.Helper()
	var got []string
	for end := time.Now().Add(30 * time.Second); len(got) < n && time.Now().Before(end); {
		hs, err := api.consume(t.Context(), queue, 100, 2, 30)
		if err != nil {
			t.Fatal(err)
		}
		if len(hs) == 0 {
			continue
		}
		for _, h := range hs {
			got = append(got, string(h.bytes()))
		}
		if _, err := api.ackAll(t.Context(), queue, hs); err != nil {
			t.Fatal(err)
		}
	}
	return got
}

func expectNumbers(t *testing.T, got []string, prefix string, n int) {
	t.Helper()
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("%s%04d", prefix, i))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%d messages, want %d, each once", len(got), len(want))
	}
}

func TestMosquittoPublishesAndAServiceConsumes(t *testing.T) {
	needTools(t)
	s, api := e2e(t)
	_, port, _ := strings.Cut(s.ports["mqtt"], ":")
	for _, version := range []string{"mqttv311", "mqttv5"} {
		for _, qos := range []string{"0", "1", "2"} {
			out, err := exec.Command("mosquitto_pub", "-V", version, "-p", port, "-t", "e/m", "-m", version+qos, "-q", qos).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if got := collect(t, api, "e", 1); !slices.Equal(got, []string{version + qos}) {
				t.Errorf("%s QoS %s: got %q", version, qos, got)
			}
		}
	}
}

func TestAServicePublishesAndMosquittoSubscribes(t *testing.T) {
	needTools(t)
	s, api := e2e(t)
	_, port, _ := strings.Cut(s.ports["mqtt"], ":")
	for _, version := range []string{"mqttv311", "mqttv5"} {
		sub := exec.Command("mosquitto_sub", "-V", version, "-p", port, "-t", "e/+/"+version, "-q", "1", "-v", "-C", "1", "-W", "20")
		var out strings.Builder
		sub.Stdout = &out
		if err := sub.Start(); err != nil {
			t.Fatal(err)
		}
		var seen struct {
			Matched struct{ Subscribers int }
		}
		if !eventually(20*time.Second, func() bool {
			if err := api.call(t.Context(), http.MethodPost, "/topics/e/1/"+version+"/messages", map[string]string{"payload": "hello"}, &seen); err != nil {
				t.Error(err)
				return true
			}
			return seen.Matched.Subscribers == 1
		}) {
			t.Error("the subscriber never matched")
		}
		if err := sub.Wait(); err != nil || out.String() != "e/1/"+version+" hello\n" {
			t.Errorf("%s: got %q, %v", version, out.String(), err)
		}
	}
}

// TestPahoV3WithAThousandInFlight publishes without waiting for answers.
func TestPahoV3WithAThousandInFlight(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			s, api := e2e(t)
			c := pahov3.NewClient(pahov3.NewClientOptions().AddBroker("tcp://" + s.ports["mqtt"]).SetClientID("v3").SetMessageChannelDepth(2000))
			if token := c.Connect(); !token.WaitTimeout(20*time.Second) || token.Error() != nil {
				t.Fatalf("connect: %v", token.Error())
			}
			defer c.Disconnect(100)
			var tokens []pahov3.Token
			for i := range 1000 {
				tokens = append(tokens, c.Publish("e/v3", qos, false, fmt.Sprintf("v3-%04d", i)))
			}
			for i, token := range tokens {
				if !token.WaitTimeout(30*time.Second) || token.Error() != nil {
					t.Fatalf("message %d has no answer: %v", i, token.Error())
				}
			}
			expectNumbers(t, collect(t, api, "e", 1000), "v3-", 1000)
		})
	}
}

func TestPahoV5WithAThousandInFlight(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			s, api := e2e(t)
			u := &url.URL{Scheme: "mqtt", Host: s.ports["mqtt"]}
			got := make(chan string, 1000)
			m, err := autopaho.NewConnection(t.Context(), autopaho.ClientConfig{
				ServerUrls: []*url.URL{u}, KeepAlive: 20, ConnectUsername: testKeyID, ConnectPassword: []byte(testSecret),
				ClientConfig: paho.ClientConfig{ClientID: "v5", OnPublishReceived: []func(paho.PublishReceived) (bool, error){
					func(r paho.PublishReceived) (bool, error) { got <- string(r.Packet.Payload); return true, nil },
				}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.AwaitConnection(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "e/v5", QoS: qos}}}); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for i := range 1000 {
				wg.Go(func() {
					r, err := m.Publish(t.Context(), &paho.Publish{Topic: "e/v5", QoS: qos, Payload: fmt.Appendf(nil, "v5-%04d", i)})
					if err != nil || r.ReasonCode >= 0x80 {
						t.Errorf("message %d: %+v, %v", i, r, err)
					}
				})
			}
			wg.Wait()
			var live []string
			for range 1000 {
				select {
				case p := <-got:
					live = append(live, p)
				case <-time.After(20 * time.Second):
					t.Fatalf("the subscriber has %d of 1000", len(live))
				}
			}
			expectNumbers(t, live, "v5-", 1000)
			expectNumbers(t, collect(t, api, "e", 1000), "v5-", 1000)
			if err := m.Disconnect(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheClientCommandsWorkTogether(t *testing.T) {
	s, _ := e2e(t)
	_, port, _ := strings.Cut(s.ports["mqtt"], ":")
	queue := func(code int, args ...string) string {
		t.Helper()
		out, errs, got := command(t, append(append([]string{"queue"}, args...), "--url", s.url(), "--key", testKey)...)
		if got != code {
			t.Fatalf("queue %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out, errs)
		}
		return out + errs
	}
	queue(0, "add", "jobs", "--topic-filter", "jobs/#", "--max-retries", "unlimited")
	if got := queue(1, "add", "jobs", "--topic-filter", "jobs/#"); !strings.Contains(got, "hint: millrace queue edit") {
		t.Errorf("got %s", got)
	}
	queue(0, "edit", "jobs", "--max-messages", "5")
	if got := queue(0, "info", "jobs", "-o", "table"); !strings.Contains(got, "max_messages") {
		t.Errorf("got %s", got)
	}
	if got := queue(0, "ls", "-o", "table"); !strings.Contains(got, "NAME") || !strings.Contains(got, "jobs/#") {
		t.Errorf("got %s", got)
	}
	queue(6, "receive", "jobs")
	if _, errs, code := command(t, "pub", "-p", port, "-t", "jobs/1", "-m", "work", "-q", "1"); code != 0 {
		t.Fatalf("pub: %d %s", code, errs)
	}
	if got := queue(0, "peek", "jobs"); !strings.Contains(got, "work") {
		t.Errorf("got %s", got)
	}
	if got := queue(0, "receive", "jobs", "--wait", "10s", "--ack"); !strings.Contains(got, "work") {
		t.Errorf("got %s", got)
	}
	queue(6, "receive", "jobs")
	queue(0, "purge", "jobs", "--yes")
	queue(0, "rm", "jobs", "--yes")
	queue(3, "info", "jobs")
	if _, errs, code := command(t, "queue", "ls", "--url", s.url(), "--key", "nobody.nothing"); code != 4 || !strings.Contains(errs, "MILLRACE_KEY") {
		t.Errorf("exit code %d, %s", code, errs)
	}
	if _, errs, code := command(t, "sub", "-p", port, "-t", "quiet", "-C", "1", "-W", "1"); code != 6 {
		t.Errorf("sub: exit code %d, %s", code, errs)
	}
	if _, errs, code := command(t, "sub", "-p", port, "-t", "a", "-u", testKeyID, "-P", "wrong-secret-of-tester"); code != 4 {
		t.Errorf("sub with a wrong secret: exit code %d, %s", code, errs)
	}
}

func TestAStopUnderLoadEndsInTime(t *testing.T) {
	s, api := e2e(t)
	polling := make(chan error, 1)
	go func() {
		_, err := api.consume(t.Context(), "e", 1, 20, 30)
		polling <- err
	}()
	began := time.Now()
	s.stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the stop took %s", took)
	}
	<-polling
}
