package mqtt_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// TestPahoV3 has 1000 publishes of each QoS in flight.
func TestPahoV3(t *testing.T) {
	e := open(t)
	e.queue(t, "q", "jobs/#")
	connect := func(id string) paho3.Client {
		c := paho3.NewClient(paho3.NewClientOptions().AddBroker("tcp://" + e.Addr().String()).
			SetClientID(id).SetProtocolVersion(4).SetAutoReconnect(false))
		if tok := c.Connect(); tok.Wait() && tok.Error() != nil {
			t.Fatal(tok.Error())
		}
		t.Cleanup(func() { c.Disconnect(100) })
		return c
	}
	sub, pub := connect("sub"), connect("pub")
	for qos := range byte(3) {
		const n = 1000
		got := make(chan string, n)
		topic := fmt.Sprintf("jobs/%d", qos)
		if tok := sub.Subscribe(topic, qos, func(_ paho3.Client, m paho3.Message) {
			got <- string(m.Payload())
		}); tok.Wait() && tok.Error() != nil {
			t.Fatal(tok.Error())
		}
		var toks []paho3.Token
		for i := range n {
			toks = append(toks, pub.Publish(topic, qos, false, fmt.Sprint(i)))
		}
		for i, tok := range toks {
			if tok.Wait() && tok.Error() != nil {
				t.Fatalf("publish %d: %v", i, tok.Error())
			}
		}
		for i := range n {
			select {
			case p := <-got:
				if p != fmt.Sprint(i) {
					t.Fatalf("QoS %d: message %d is %s", qos, i, p)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("QoS %d: message %d never came", qos, i)
			}
		}
	}
}

// TestPahoV5 has 1000 publishes of QoS 1 and 2 in flight, and a subscriber with
// a small Receive Maximum.
func TestPahoV5(t *testing.T) {
	e := open(t)
	e.queue(t, "q", "jobs/#")
	got := make(chan *paho5.Publish, 10_000)
	connect := func(id string, window uint16) *paho5.Client {
		conn, err := net.Dial("tcp", e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := paho5.NewClient(paho5.ClientConfig{
			ClientID: id, Conn: conn,
			OnPublishReceived: []func(paho5.PublishReceived) (bool, error){func(p paho5.PublishReceived) (bool, error) {
				got <- p.Packet
				return true, nil
			}},
		})
		cp := &paho5.Connect{ClientID: id, CleanStart: true, KeepAlive: 30, Properties: &paho5.ConnectProperties{}}
		if window > 0 {
			cp.Properties.ReceiveMaximum = &window
		}
		ca, err := c.Connect(t.Context(), cp)
		if err != nil {
			t.Fatal(err)
		}
		if ca.Properties.ReceiveMaximum == nil || *ca.Properties.ReceiveMaximum != 1024 || !ca.Properties.SharedSubAvailable {
			t.Errorf("CONNACK is %+v", ca.Properties)
		}
		t.Cleanup(func() { _ = c.Disconnect(&paho5.Disconnect{}) })
		return c
	}
	sub, pub := connect("sub", 7), connect("pub", 0)
	for _, qos := range []byte{1, 2} {
		const n = 1000
		topic := fmt.Sprintf("jobs/%d", qos)
		if _, err := sub.Subscribe(t.Context(), &paho5.Subscribe{
			Subscriptions: []paho5.SubscribeOptions{{Topic: topic, QoS: qos}},
		}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				pr, err := pub.Publish(ctx, &paho5.Publish{
					Topic: topic, QoS: qos, Payload: fmt.Append(nil, i),
					Properties: &paho5.PublishProperties{ContentType: "text/plain", User: paho5.UserProperties{{Key: "k", Value: "v"}}},
				})
				if err != nil || pr.ReasonCode != 0 {
					t.Errorf("publish %d: %v %+v", i, err, pr)
				}
			})
		}
		wg.Wait()
		seen := map[string]bool{}
		for range n {
			select {
			case p := <-got:
				seen[string(p.Payload)] = true
				if p.Properties.ContentType != "text/plain" || p.Properties.User.Get("k") != "v" || p.QoS != qos {
					t.Fatalf("got %+v", p)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("QoS %d: only %d came", qos, len(seen))
			}
		}
		if len(seen) != n {
			t.Errorf("QoS %d: %d different messages", qos, len(seen))
		}
	}
}

// TestMosquittoClients runs mosquitto_pub and mosquitto_sub of the machine.
func TestMosquittoClients(t *testing.T) {
	if _, err := exec.LookPath("mosquitto_sub"); err != nil {
		t.Skip("mosquitto_sub is not installed")
	}
	e := open(t)
	e.queue(t, "q", "m/t")
	_, port, _ := net.SplitHostPort(e.Addr().String())
	for _, version := range []string{"mqttv311", "mqttv5"} {
		for qos := range 3 {
			eventually(t, "the clients before gone", func() bool { return e.Stats().Open == 0 })
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			var out, errs bytes.Buffer
			args := []string{"-p", port, "-V", version, "-q", fmt.Sprint(qos)}
			sub := exec.CommandContext(ctx, "mosquitto_sub", append(args, "-t", "m/+", "-C", "3", "-F", "%t %p", "-W", "15")...)
			sub.Stdout, sub.Stderr = &out, &errs
			if err := sub.Start(); err != nil {
				t.Fatal(err)
			}
			probe := login(t, e, true, "")
			eventually(t, "its subscription", func() bool {
				probe.publish("m/x", "", 1, 1)
				_, body := probe.packet()
				return len(body) == 2 // and not 0x10: nobody
			})
			for _, p := range []string{"one", "two"} {
				b, err := exec.CommandContext(ctx, "mosquitto_pub", append(args, "-t", "m/t", "-m", p)...).CombinedOutput()
				if err != nil {
					t.Fatalf("mosquitto_pub: %v, %s", err, b)
				}
			}
			if err := sub.Wait(); err != nil {
				t.Fatalf("mosquitto_sub %s QoS %d: %v, %s, got %q, %+v", version, qos, err, errs.String(), out.String(), e.Stats())
			}
			if want := "m/x \nm/t one\nm/t two\n"; out.String() != want {
				t.Errorf("%s QoS %d: got %q, want %q", version, qos, strings.TrimSpace(out.String()), want)
			}
			cancel()
			_ = probe.Close()
		}
	}
}
