package main_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/paho"

	"millrace/cmd/millrace/wire"
)

func TestALowDiskRefusesAtEveryDoorAndConsumingGoesOn(t *testing.T) {
	data := t.TempDir()
	boot := bootstrapFile(t, testKeyYAML+"queues:\n- {name: work, topic_filter: \"work/#\"}\n- {name: old, topic_filter: \"old\"}\nstreams:\n- {name: log, topic_filter: \"work/#\"}\n")
	s := startServer(t, "--data", data, "--allow-anonymous", "--bootstrap-file", boot)
	d := &doors{t: t, s: s}
	d.admin("POST", "/topics/work/a/messages", `{"payload":"one"}`)
	s.stop()
	// More than any disk has.
	d.s = startServer(t, "--data", data, "--allow-anonymous", "--bootstrap-file", boot, "--set", "store.low_disk=1000000000GiB",
		"--fastqueue-listen", "127.0.0.1:0", "--memfifo-listen", "127.0.0.1:0")
	admin := "Bearer " + testKey
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/topics/work/a/messages", `{"payload":"two"}`, 507},
		{"POST", "/topics/elsewhere/messages", `{"payload":"two"}`, 200}, // it takes no room
		{"POST", "/queues", `{"name":"new","topic_filter":"x/#"}`, 507},
		{"POST", "/streams", `{"name":"new","topic_filter":"x/#"}`, 507},
		{"PATCH", "/queues/old", `{"max_messages":7}`, 200},
		{"DELETE", "/queues/old", "", 200},
	} {
		status, answer := d.call(admin, c.method, c.path, c.body, false)
		if status != c.status || status == 507 && !strings.Contains(string(answer), `"STORAGE_FULL"`) {
			t.Errorf("%s %s on a low disk: %d %s, want %d", c.method, c.path, status, answer, c.status)
		}
	}
	r, err := http.Get(d.s.url() + "/readyz")
	if err != nil || r.StatusCode != 503 {
		t.Errorf("readyz: %v, %v", r, err)
	}
	_ = r.Body.Close()

	v := d.device("five", "", "")
	for _, retain := range []bool{false, true} {
		p := &paho.Publish{Topic: "work/b", QoS: 1, Payload: []byte("x"), Retain: retain}
		if answer, err := v.Publish(t.Context(), p); answer == nil || answer.ReasonCode != 0x97 {
			t.Errorf("MQTT 5 publish, retain %v: %+v, %v", retain, answer, err)
		}
	}
	c, err := wire.Dial(t.Context(), d.s.ports["mqtt"], wire.Login{ClientID: "three"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(wire.AppendPublish(nil, "work/c", 1, 7, []byte("x"))); err != nil {
		t.Fatal(err)
	}
	if p, err := c.Read1(); err == nil {
		t.Errorf("MQTT 3.1.1 publish is answered with %+v", p)
	}

	// What is there is consumed and acknowledged.
	out, errs, code := command(t, "queue", "receive", "work", "--ack", "--url", d.s.url(), "--key", testKey)
	if code != 0 || !strings.Contains(out, "one") {
		t.Errorf("receive on a low disk ends with %d: %s %s", code, out, errs)
	}
	if status, answer := d.call(admin, "GET", "/queues/work", "", false); status != 200 || !strings.Contains(string(answer), `"message_count":0`) {
		t.Errorf("after the ack: %d %s", status, answer)
	}
	d.s.stop()
	if out, errs, code := command(t, "check", "--data", data); code != 0 {
		t.Error(fmt.Sprint(out, errs))
	}
}
