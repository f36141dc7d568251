package mqtt_test

import (
	"context"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// connect31 builds the CONNECT of MQTT 3.1.
func connect31(id string, clean bool) []byte {
	flags := byte(0)
	if clean {
		flags = 2
	}
	return packet(0x10, str(append(str(nil, "MQIsdp"), 3, flags, 0, 0), id))
}

func login31(t *testing.T, e *edge, id string) *raw {
	t.Helper()
	r := dial(t, e)
	r.send(connect31(id, true))
	r.want("20 02 00 00")
	return r
}

func TestConnectOfMQTT31(t *testing.T) {
	e := open(t)
	for _, row := range []struct {
		name string
		send []byte
		want string
	}{
		{"long client id", connect31(strings.Repeat("x", 256), true), "20 02 00 00"},
		{"persistent", connect31("p", false), "20 02 00 00"},
		{"empty client id", connect31("", true), "20 02 00 02"},
		{"client id too long", connect31(strings.Repeat("x", 257), true), "20 02 00 02"},
		{"level 4", packet(0x10, str(append(str(nil, "MQIsdp"), 4, 2, 0, 0), "a")), "20 02 00 01"},
		{"MQTT with level 3", packet(0x10, str(append(str(nil, "MQTT"), 3, 2, 0, 0), "a")), "20 02 00 01"},
		{"will of 20 KiB", packet(0x10, str(str(str(append(str(nil, "MQIsdp"), 3, 6, 0, 0), "w"), "t"), strings.Repeat("x", 20<<10))), "20 02 00 00"},
	} {
		r := dial(t, e)
		r.send(row.send)
		r.want(row.want)
		if strings.HasSuffix(row.want, "00 00") {
			r.ping()
		}
	}
}

func TestSubackOfMQTT31CannotRefuse(t *testing.T) {
	e := open(t)
	e.rules(t, deny("subscribe", "secret/#"))
	s := login31(t, e, "s")
	if got := s.subscribe(1, 1, "secret/x", "open"); got[0] != 1 || got[1] != 1 {
		t.Errorf("SUBACK is %x", got)
	}
	s.send(append([]byte{0x8A}, s.subscribePacket(2, 1, nil, "open")[1:]...)) // again, with DUP
	s.suback()
	r := login31(t, e, "r")
	r.publish("secret/x", "hidden", 2, 1)
	r.want("50 02 00 01")
	r.send([]byte{0x6A, 2, 0, 1})
	r.want("70 02 00 01")
	r.publish("open", "seen", 1, 2)
	if m := s.recv(); m.payload != "seen" {
		t.Errorf("got %+v", m)
	}
	s.quiet()
	for _, f := range []string{"a#", "$share//x", "$stream/x"} {
		z := login31(t, e, "z")
		z.send(z.subscribePacket(1, 1, nil, f))
		z.wantEnd(0)
	}
}

func TestClientsOfMQTT31(t *testing.T) {
	e := open(t)
	e.retain(t, "t", "kept", 2)
	c := paho3.NewClient(paho3.NewClientOptions().AddBroker("tcp://" + e.Addr().String()).
		SetClientID("old").SetProtocolVersion(3).SetAutoReconnect(false))
	if tok := c.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	defer c.Disconnect(100)
	got := make(chan string, 10)
	if tok := c.Subscribe("t", 2, func(_ paho3.Client, m paho3.Message) { got <- string(m.Payload()) }); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	if tok := c.Publish("t", 2, false, "live"); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	for _, want := range []string{"kept", "live"} {
		select {
		case p := <-got:
			if p != want {
				t.Errorf("got %s, want %s", p, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s never came", want)
		}
	}
	if _, err := exec.LookPath("mosquitto_sub"); err != nil {
		t.Skip("mosquitto_sub is not installed")
	}
	_, port, _ := net.SplitHostPort(e.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "mosquitto_sub", "-p", port, "-i", "m", "-V", "mqttv31", "-q", "2", "-t", "t", "-C", "1", "-W", "15").CombinedOutput()
	if err != nil || string(out) != "kept\n" {
		t.Errorf("got %q, %v", out, err)
	}
}
