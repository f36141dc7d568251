package mqtt_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// TestPahoV3Resumes has the library come back to a session, over a restart.
func TestPahoV3Resumes(t *testing.T) {
	dir := t.TempDir()
	e := openDir(t, dir)
	got := make(chan string, 1000)
	connect := func() paho3.Client {
		c := paho3.NewClient(paho3.NewClientOptions().AddBroker("tcp://" + e.Addr().String()).
			SetClientID("p3").SetCleanSession(false).SetProtocolVersion(4).SetAutoReconnect(false).
			SetDefaultPublishHandler(func(_ paho3.Client, m paho3.Message) { got <- string(m.Payload()) }))
		if tok := c.Connect(); tok.Wait() && tok.Error() != nil {
			t.Fatal(tok.Error())
		}
		return c
	}
	c := connect()
	for _, qos := range []byte{1, 2} {
		if tok := c.Subscribe(fmt.Sprint("p/", qos), qos, nil); tok.Wait() && tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	}
	c.Disconnect(100)
	e.gone(t)
	const n = 300
	for i := range n {
		e.put(t, fmt.Sprint("p/", 1+i%2), fmt.Sprint(i))
	}
	e.stop(t)
	e = openDir(t, dir)
	c = connect()
	defer c.Disconnect(100)
	wantAll(t, got, n)
}

// wantAll wants 0 to n-1, in order.
func wantAll(t *testing.T, got <-chan string, n int) {
	t.Helper()
	for i := range n {
		select {
		case p := <-got:
			if p != fmt.Sprint(i) {
				t.Fatalf("message %d is %s", i, p)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("message %d never came", i)
		}
	}
}

// TestPahoV5Resumes does the same in MQTT 5, with a small window.
func TestPahoV5Resumes(t *testing.T) {
	e := open(t)
	got := make(chan string, 1000)
	connect := func() (*paho5.Client, bool) {
		conn, err := net.Dial("tcp", e.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := paho5.NewClient(paho5.ClientConfig{
			ClientID: "p5", Conn: conn,
			OnPublishReceived: []func(paho5.PublishReceived) (bool, error){func(p paho5.PublishReceived) (bool, error) {
				got <- string(p.Packet.Payload)
				return true, nil
			}},
		})
		expiry, window := uint32(3600), uint16(7)
		ca, err := c.Connect(t.Context(), &paho5.Connect{ClientID: "p5", KeepAlive: 30, Properties: &paho5.ConnectProperties{
			SessionExpiryInterval: &expiry, ReceiveMaximum: &window,
		}})
		if err != nil {
			t.Fatal(err)
		}
		return c, ca.SessionPresent
	}
	c, _ := connect()
	if _, err := c.Subscribe(t.Context(), &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: "p", QoS: 2}}}); err != nil {
		t.Fatal(err)
	}
	_ = c.Disconnect(&paho5.Disconnect{})
	e.gone(t)
	const n = 300
	for i := range n {
		e.put(t, "p", fmt.Sprint(i))
	}
	c, present := connect()
	defer func() { _ = c.Disconnect(&paho5.Disconnect{}) }()
	if !present {
		t.Error("session present is 0")
	}
	wantAll(t, got, n)
}

// TestMosquittoSubResumes runs mosquitto_sub -c of the machine.
func TestMosquittoSubResumes(t *testing.T) {
	if _, err := exec.LookPath("mosquitto_sub"); err != nil {
		t.Skip("mosquitto_sub is not installed")
	}
	for _, version := range []string{"mqttv311", "mqttv5"} {
		for qos := 1; qos <= 2; qos++ {
			e := open(t)
			_, port, _ := net.SplitHostPort(e.Addr().String())
			args := []string{"-p", port, "-V", version, "-q", fmt.Sprint(qos), "-i", "ms", "-c", "-t", "m/#", "-W", "15"}
			if version == "mqttv5" {
				args = append(args, "-x", "3600")
			}
			run := func(more ...string) string {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				var out bytes.Buffer
				cmd := exec.CommandContext(ctx, "mosquitto_sub", append(args, more...)...)
				cmd.Stdout, cmd.Stderr = &out, &out
				if err := cmd.Run(); err != nil {
					t.Fatalf("mosquitto_sub %s: %v, %s", version, err, out.String())
				}
				return out.String()
			}
			run("-E") // subscribes and leaves
			e.gone(t)
			e.put(t, "m/1", "one", "two", "three")
			if got := run("-C", "3"); got != "one\ntwo\nthree\n" {
				t.Errorf("%s QoS %d: got %q", version, qos, strings.TrimSpace(got))
			}
			e.gone(t)
		}
	}
}
