package main_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"millrace/cmd/millrace/wire"
)

// enter connects, and tells the code of a refusal.
func (s *server) enter(l wire.Login) (c *wire.Conn, code byte) {
	s.t.Helper()
	c, err := wire.Dial(s.t.Context(), s.ports["mqtt"], l)
	if refused, ok := errors.AsType[*wire.RefusedError](err); ok {
		return nil, refused.Code
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c, 0
}

// waiting reads the payloads that come, up to n and the answer to a ping.
func waiting(t *testing.T, c *wire.Conn, n int) (texts []string) {
	t.Helper()
	if _, err := c.Write(wire.AppendPing(nil)); err != nil {
		t.Fatal(err)
	}
	for ponged := false; !ponged || len(texts) < n; {
		p, err := c.Read1()
		if err != nil {
			t.Fatalf("after %v: %v", texts, err)
		}
		switch p.Type {
		case wire.Pingresp:
			ponged = true
		case wire.Publish:
			_, id, payload, _ := p.Message()
			texts = append(texts, string(payload))
			if _, err := c.Write(wire.AppendAck(nil, wire.Puback, id)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return texts
}

// TestASessionIsOfItsIdentity has others come with the client id of a session:
// while it is connected, while it is away, and after a restart.
func TestASessionIsOfItsIdentity(t *testing.T) {
	const secret, password = "sixteen-characters", "a password of ann"
	data := t.TempDir()
	boot := bootstrapFile(t, testKeyYAML+"- {id: app, secret: "+secret+"}\n- {id: ann, secret: "+secret+"}\nusers:\n- {username: ann, password: "+password+"}\n")
	args := []string{"--data", data, "--bootstrap-file", boot, "--allow-anonymous"}
	s := startServer(t, args...)
	owner := wire.Login{ClientID: "panel", User: "app", Password: secret, Keep: true}
	others := map[string]wire.Login{
		"a user":                  {ClientID: "panel", User: "ann", Password: password, Keep: true},
		"a key of that user name": {ClientID: "panel", User: "ann", Password: secret, Keep: true},
		"nobody":                  {ClientID: "panel", Keep: true},
		"nobody with a clean one": {ClientID: "panel"},
	}
	refused := func(when string) {
		t.Helper()
		for who, l := range others {
			if c, code := s.enter(l); c != nil || code != 2 && code != 5 {
				t.Errorf("%s: %s takes the session over: code %d", when, who, code)
			}
		}
	}
	c, _ := s.enter(owner)
	if _, err := c.Write(wire.AppendSubscribe(nil, 1, "alarms/#", 1)); err != nil {
		t.Fatal(err)
	}
	refused("connected")
	publish := func(payload string) {
		t.Helper()
		body := `{"payload":"` + payload + `"}`
		if status, text := (&doors{t: t, s: s}).request(s.url(), "Bearer "+testKey, "POST", "/api/v1/topics/alarms/1/messages", body, true); status != 200 {
			t.Fatalf("%d %s", status, text)
		}
	}
	publish("first")
	if got := waiting(t, c, 1); fmt.Sprint(got) != "[first]" {
		t.Errorf("after the others the session gets %v", got)
	}
	if _, err := c.Write(wire.AppendDisconnect(nil)); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	publish("second")
	refused("away")
	s.stop()
	s = startServer(t, args...)
	refused("after a restart")
	c, code := s.enter(owner)
	if c == nil {
		t.Fatalf("the owner is refused with code %d", code)
	}
	if got := waiting(t, c, 1); fmt.Sprint(got) != "[second]" {
		t.Errorf("the owner comes back to %v", got)
	}
}

// TestNamesAreLiteralsInRules has clients and users with names that mean
// something in filters ask for what %c and %u stand for.
func TestNamesAreLiteralsInRules(t *testing.T) {
	const password = "a password of all"
	names := []string{"+", "#", "a/b", "a/#", "+/x", "%c", "%u", "$SYS", "a", "ä b", "a+", "*"}
	boot := "users:\n"
	for _, name := range names {
		boot += fmt.Sprintf("- {username: %q, password: %s}\n", name, password)
	}
	boot += "rules:\n- {effect: allow, who: all, do: [publish, subscribe], filter: own/%u}\n- {effect: allow, who: all, do: [publish, subscribe], filter: at/%c}\n"
	s := startServer(t, "--data", t.TempDir(), "--bootstrap-file", bootstrapFile(t, testKeyYAML+boot))
	granted := func(c *wire.Conn, filter string) bool {
		t.Helper()
		if _, err := c.Write(wire.AppendSubscribe(nil, 1, filter, 0)); err != nil {
			t.Fatal(err)
		}
		p, err := c.Read1()
		if err != nil || p.Type != wire.Suback {
			t.Fatalf("packet type %d, %v", p.Type, err)
		}
		return p.Body[2] < 0x80
	}
	for _, name := range names {
		c, code := s.enter(wire.Login{ClientID: name, User: name, Password: password})
		if c == nil {
			t.Fatalf("%s: code %d", name, code)
		}
		plain := name == "a" || name == "ä b" || name == "*" || name == "%c" || name == "%u" || name == "$SYS"
		for _, at := range []string{"own/", "at/"} {
			for filter, want := range map[string]bool{at + "b": false, at + "#": plain, at + "+": plain, "#": plain, at + "other/x": false} {
				if got := granted(c, filter); got != want {
					t.Errorf("%q asks for %s: got %t, want %t", name, filter, got, want)
				}
			}
			if plain && !granted(c, at+name) {
				t.Errorf("%q may not have %s", name, at+name)
			}
		}
	}
}
