package main_test

import (
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// TestTheServerTellsOfItself reads $SYS and $events as the administrator that a
// development server names in its banner.
func TestTheServerTellsOfItself(t *testing.T) {
	s := startServer(t, "--dev")
	user := loginLine.FindStringSubmatch(s.banner())
	if user == nil {
		t.Fatalf("no login in the banner:\n%s", s.banner())
	}
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + s.ports["mqtt"]).SetUsername(user[1]).SetPassword(user[2]).
		SetAutoReconnect(false).SetConnectTimeout(10 * time.Second))
	if tok := c.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	defer c.Disconnect(0)
	got := make(chan paho.Message, 1000)
	take := func(_ paho.Client, m paho.Message) { got <- m }
	if tok := c.SubscribeMultiple(map[string]byte{"$SYS/broker/version": 0, "$events/client/c7/connected": 0}, take); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	other := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + s.ports["mqtt"]).SetClientID("c7").SetAutoReconnect(false))
	if tok := other.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	defer other.Disconnect(0)
	for range 2 {
		select {
		case m := <-got:
			text := string(m.Payload())
			if m.Topic() == "$SYS/broker/version" && !strings.HasPrefix(text, "millrace version ") ||
				m.Topic() != "$SYS/broker/version" && !strings.Contains(text, `"client_id":"c7"`) {
				t.Errorf("%s is %s", m.Topic(), text)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nothing came")
		}
	}
}
