package mqtt_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/mqtt"
)

// event reads the next message as an event.
func (r *raw) event() (topic string, e mqtt.Event) {
	r.t.Helper()
	m := r.recv()
	if err := json.Unmarshal([]byte(m.payload), &e); err != nil {
		r.t.Fatalf("%s: %v in %s", m.topic, err, m.payload)
	}
	if m.qos > 0 {
		r.ackFor(m)
	}
	return m.topic, e
}

func TestLifeOfAClientAsTopics(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		b := boss(t, e, "boss")
		synctest.Wait() // until that is told
		b.subscribe(1, 1, "$events/client/#")
		want := func(topic string, want mqtt.Event) {
			t.Helper()
			got, event := b.event()
			if event.Sequence == 0 || event.Time == "" {
				t.Errorf("no sequence, or no time: %+v", event)
			}
			want.Address, want.Transport, want.Protocol = "pipe", "tcp", "MQTT 5"
			want.Sequence, want.Time, want.Text = event.Sequence, event.Time, event.Text
			if got != topic || event != want {
				t.Errorf("got %s %+v\nwant %s %+v", got, event, topic, want)
			}
		}
		first := pipeIn(t, e, true, "pump/7+#%", 17, 0, 0, 0, 60)
		const id, at = "pump/7+#%", "$events/client/pump%2F7%2B%23%25/"
		want(at+"connected", mqtt.Event{Event: "connected", ClientID: id, User: "anonymous"})
		first.send([]byte{0xE0, 0})
		first.wantEnd(0)
		want(at+"disconnected", mqtt.Event{Event: "disconnected", ClientID: id, User: "anonymous", Reason: "client"})

		second := pipeResume(t, e, id)
		want(at+"connected", mqtt.Event{Event: "connected", ClientID: id, User: "anonymous", SessionPresent: true})
		third := pipeResume(t, e, id)
		want(at+"takeover", mqtt.Event{Event: "takeover", ClientID: id, User: "anonymous", Other: "pipe"})
		want(at+"disconnected", mqtt.Event{Event: "disconnected", ClientID: id, User: "anonymous", Reason: "taken_over", Code: 0x8E})
		want(at+"connected", mqtt.Event{Event: "connected", ClientID: id, User: "anonymous", SessionPresent: true})
		second.wantEnd(0x8E)
		_ = third.Close()
		want(at+"disconnected", mqtt.Event{Event: "disconnected", ClientID: id, User: "anonymous", Reason: "lost"})

		wrong := pipe(t, e)
		wrong.v5 = true
		bad := connectPacket(true, "x", nil)[2:]
		bad[7] |= 0xC0
		wrong.send(packet(0x10, str(str(bad, "boss"), "hunter2")))
		wrong.want("20 03 00 86 00")
		want("$events/client/x/denied", mqtt.Event{Event: "denied", ClientID: "x", Reason: "auth", Code: 0x86})
	})
}

// pipeResume connects with the session of before.
func pipeResume(t *testing.T, e *edge, id string) *raw {
	t.Helper()
	r := pipe(t, e)
	r.v5 = true
	b := connectPacket(true, id, []byte{17, 0, 0, 0, 60})
	b[9] = 0 // clean start
	r.send(b)
	if head, body := r.packet(); head != 0x20 || body[1] != 0 {
		t.Fatalf("CONNACK is %x %x", head, body)
	}
	return r
}

func TestEventsGoIntoAQueueThatNamesThem(t *testing.T) {
	e := open(t)
	e.queue(t, "life", "$events/client/+/connected")
	e.queue(t, "all", "#")
	for i := range 20 {
		login(t, e, true, fmt.Sprint("c", i))
	}
	var last int64
	seen := map[string]bool{}
	for i := range 20 {
		ds, err := e.broker.Receive(system(), "life", broker.ReceiveOptions{Max: 1, Wait: 10 * time.Second, Lease: broker.DefaultLease})
		if err != nil || len(ds) != 1 {
			t.Fatalf("event %d: %v, %v", i, ds, err)
		}
		var ev mqtt.Event
		if err := json.Unmarshal(ds[0].Payload, &ev); err != nil {
			t.Fatal(err)
		}
		// A client may have its CONNACK before its event is numbered.
		if seen[ev.ClientID] || i > 0 && ev.Sequence != last+1 || ds[0].ContentType != "application/json" {
			t.Errorf("event %d is %+v after %d", i, ev, last)
		}
		last, seen[ev.ClientID] = ev.Sequence, true
	}
	if ds, err := e.broker.Receive(system(), "all", broker.ReceiveOptions{Max: 1}); err != nil || len(ds) != 0 {
		t.Errorf("the queue of # has %v, %v", ds, err)
	}
}

func TestNobodyElseSpeaksForTheServer(t *testing.T) { // D15
	e := open(t)
	r := login(t, e, true, "c")
	for _, topic := range []string{"$events/client/x/connected", "$SYS/broker/uptime"} {
		r.publish(topic, "x", 1, 1)
		r.want("40 03 00 01 90")
	}
	r.send(r.subscribePacket(1, 0, nil, "$events/#")) // anonymous
	r.want("90 04 00 01 00 87")
}

func TestEventsCanBeOff(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		b := boss(t, e, "boss")
		synctest.Wait()
		b.subscribe(1, 0, "$events/#")
		pipeIn(t, e, true, "c")
		b.ping()
	}, func(o *mqtt.Options) { o.NoEvents = true })
}

// TestRivalsAreNamedAndBraked has two clients that connect again as soon as
// they lost their id to each other.
func TestRivalsAreNamedAndBraked(t *testing.T) { // F25
	bubble(t, func(t *testing.T, e *edge) {
		b := boss(t, e, "boss")
		b.subscribe(1, 0, "$events/client/+/takeover")
		var logins, rivals []time.Duration
		start := time.Now()
		var fighters sync.WaitGroup
		var mu sync.Mutex
		for range 2 {
			fighters.Go(func() {
				for time.Since(start) < time.Minute {
					r := pipe(t, e)
					r.send(connectPacket(true, "both", nil))
					r.v5 = true
					if head, body := r.packet(); head != 0x20 || body[1] != 0 {
						t.Errorf("CONNACK is %x %x", head, body)
						return
					}
					mu.Lock()
					logins = append(logins, time.Since(start))
					mu.Unlock()
					_, _, _ = r.read() // until the other takes it
				}
			})
		}
		for time.Since(start) < 55*time.Second {
			if _, ev := b.event(); ev.Rivals {
				rivals = append(rivals, time.Since(start))
			}
			other := pipeIn(t, e, true, "other") // feels nothing of it
			other.send([]byte{0xE0, 0})
			other.wantEnd(0)
		}
		go func() {
			for {
				if _, _, err := b.read(); err != nil {
					return
				}
			}
		}()
		<-time.After(2*time.Minute - time.Since(start))
		pipeIn(t, e, true, "both") // ends the one that holds it
		fighters.Wait()
		_ = b.Close()
		if n := len(logins); n < 5 || n > 20 {
			t.Errorf("%d logins in a minute: %v", n, logins)
		}
		if len(rivals) < 3 {
			t.Errorf("named %d times", len(rivals))
		}
		a := e.Alarms().Active()
		if len(a) != 1 || a[0].Name != "rival_clients" || a[0].Details["client_id"] != "both" || a[0].Details["address"] == nil || a[0].Details["other_address"] == nil {
			t.Errorf("alarms are %+v", a)
		}
		<-time.After(2 * time.Minute)
		if a := e.Alarms().Active(); len(a) > 0 {
			t.Errorf("two minutes later alarms are %+v", a)
		}
		if n := strings.Count(e.log.String(), "two clients fight for one client id"); n != 1 {
			t.Errorf("logged %d times", n)
		}
	})
}

// TestARivalThatLeavesWhileItIsHeldTakesNothing: who was there stays. One that waits
// is let in, and what it has sent meanwhile is served.
func TestARivalThatLeavesWhileItIsHeldTakesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		b := boss(t, e, "boss")
		b.subscribe(1, 0, "$events/client/+/takeover")
		var r *raw
		for range mqtt.DefaultRivalsFrom + 1 { // the first takes nothing over
			r = pipeIn(t, e, true, "c")
		}
		for range mqtt.DefaultRivalsFrom {
			b.event()
		}
		for range 20 { // more than are held at once
			gone := pipe(t, e)
			gone.send(append(connectPacket(true, "c", nil), 0xC0, 0))
			synctest.Wait()
			_ = gone.Close()
			synctest.Wait()
		}
		<-time.After(5 * time.Second)
		r.ping()
		b.ping() // nobody took it
		stays := pipe(t, e)
		stays.send(connectPacket(true, "c", nil))
		synctest.Wait()
		stays.send([]byte{0xC0, 0})
		if head, body := stays.packet(); head != 0x20 || body[1] != 0 {
			t.Errorf("CONNACK is %x %x", head, body)
		}
		if head, _ := stays.packet(); head != 0xD0 {
			t.Errorf("a ping of before is answered with %x", head)
		}
	})
}

func TestATakeoverNowAndThenIsNoFight(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		for range 10 {
			start := time.Now()
			pipeIn(t, e, true, "c")
			if took := time.Since(start); took > 0 {
				t.Errorf("a CONNECT waited %v", took)
			}
			<-time.After(11 * time.Second)
		}
		if strings.Contains(e.log.String(), "fight") {
			t.Error("it is called a fight")
		}
	})
}
