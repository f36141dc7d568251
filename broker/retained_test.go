package broker_test

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/broker/scenario"
)

func (f *fixture) retain(topic, text string) {
	f.tb.Helper()
	if _, err := f.Publish(f.ctx, &broker.Message{Topic: topic, Payload: []byte(text), QoS: 1, Retain: true}); err != nil {
		f.tb.Fatal(err)
	}
}

func (f *fixture) retained(p *auth.Principal, filter string) string {
	f.tb.Helper()
	var seen []string
	if err := f.Retained(f.ctx, p, filter, func(m *broker.Message) bool {
		seen = append(seen, m.Topic+"="+string(m.Payload))
		return true
	}); err != nil {
		f.tb.Fatal(err)
	}
	sort.Strings(seen)
	return strings.Join(seen, " ")
}

func TestRetainedMessageIsTheNewestOfItsTopic(t *testing.T) {
	f := open(t)
	f.queue("q", "#")
	f.retain("a/b", "1")
	f.retain("a/b", "2")
	f.retain("a/c", "3")
	f.retain("$other/x", "4")
	f.publish("a/d", "not retained")
	for filter, want := range map[string]string{
		"a/b": "a/b=2", "a/+": "a/b=2 a/c=3", "#": "a/b=2 a/c=3", "$other/#": "$other/x=4", "none": "", "+/+": "a/b=2 a/c=3",
	} {
		if got := f.retained(admin, filter); got != want {
			t.Errorf("%s: %q, want %q", filter, got, want)
		}
	}
	f.retain("a/b", "")
	if got := f.retained(admin, "#"); got != "a/c=3" {
		t.Errorf("after clearing: %q", got)
	}
	if i := f.info("q"); i.In != 5 { // a retained publish, and its clearing, go to queues like any other
		t.Errorf("the queue took %d", i.In)
	}
}

func TestRetainedMessageIsShownOnlyToThoseWhoMayReadIt(t *testing.T) {
	f := open(t)
	f.retain("open/1", "x")
	f.retain("secret/1", "y")
	p := &auth.Principal{Kind: auth.Key, Name: "k", Role: auth.Client, Scopes: []string{"open/#"}}
	if got := f.retained(p, "#"); got != "open/1=x" {
		t.Errorf("saw %q", got)
	}
}

func TestRetainedMessageExpires(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := open(t)
		if _, err := f.Publish(f.ctx, &broker.Message{
			Topic: "t", Payload: []byte("x"), Retain: true, Expires: time.Now().Add(10 * time.Second).UnixMilli(),
		}); err != nil {
			t.Fatal(err)
		}
		f.retain("for-ever", "y")
		time.Sleep(5 * time.Second)
		if got := f.retained(admin, "t"); got != "t=x" {
			t.Errorf("before its end: %q", got)
		}
		time.Sleep(48 * time.Hour)
		if got := f.retained(admin, "#"); got != "for-ever=y" {
			t.Errorf("after its end: %q", got)
		}
	})
}

func TestRetainedMessagesSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	w := &scenario.CoreWorld{OpenStore: stored(dir)}
	if err := w.Open(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			if _, err := w.Broker.Publish(w.Ctx, &broker.Message{Topic: fmt.Sprintf("t/%d", i), Payload: fmt.Append(nil, i), Retain: true}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if _, err := w.Broker.Publish(w.Ctx, &broker.Message{Topic: "t/7", Retain: true}); err != nil {
		t.Fatal(err)
	}
	if err := w.Restart(); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := w.Broker.Retained(context.Background(), admin, "t/+", func(m *broker.Message) bool {
		if m.Topic != "t/"+string(m.Payload) {
			t.Errorf("%s holds %q", m.Topic, m.Payload)
		}
		n++
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if n != 49 {
		t.Errorf("%d retained messages after the restart, want 49", n)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRetainedLookUpCostsWhatItFinds(t *testing.T) {
	f := open(t)
	for i := range 2000 {
		f.retain(fmt.Sprintf("elsewhere/%d", i), "x")
	}
	if n := testing.AllocsPerRun(10, func() { f.retained(admin, "here/#") }); n > 20 {
		t.Errorf("an unrelated filter costs %v allocations beside 2,000 retained messages", n)
	}
}
