package mqtt_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"

	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// put publishes texts to a topic through the broker.
func (e *edge) put(tb testing.TB, topic string, texts ...string) {
	tb.Helper()
	for _, text := range texts {
		if _, err := e.broker.Publish(system(), &broker.Message{Topic: topic, Payload: []byte(text), QoS: 2}); err != nil {
			tb.Fatal(err)
		}
	}
}

// counts says what is in a queue.
func (e *edge) counts(tb testing.TB, queue string) string {
	tb.Helper()
	i, err := e.broker.Queue(system(), queue)
	if err != nil {
		tb.Fatal(err)
	}
	return fmt.Sprintf("ready=%d leased=%d delayed=%d dead=%d", i.Ready, i.Leased, i.Delayed, i.Dead)
}

func (e *edge) want(tb testing.TB, queue, counts string) {
	tb.Helper()
	eventually(tb, queue+" has "+counts, func() bool { return e.counts(tb, queue) == counts })
}

// users returns the user properties among props, which hold no others but an expiry.
func users(props []byte) map[string]string {
	got := map[string]string{}
	for len(props) > 0 {
		if props[0] != 38 {
			return got
		}
		n := int(binary.BigEndian.Uint16(props[1:]))
		k := string(props[3 : 3+n])
		props = props[3+n:]
		n = int(binary.BigEndian.Uint16(props))
		got[k] = string(props[2 : 2+n])
		props = props[2+n:]
	}
	return got
}

func (r *raw) nackFor(m message, code byte) {
	r.t.Helper()
	r.send([]byte{0x40, 3, byte(m.id >> 8), byte(m.id), code})
}

func TestQueueDelivery(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		for _, form := range []string{"$q/work", "$queue/work", "$q/work/#", "$queue/work/#"} {
			e := open(t)
			e.queue(t, "work", "jobs/#")
			e.put(t, "jobs/1", "one")
			s := login(t, e, v5, "")
			if got := s.subscribe(1, 1, form); got[0] != 1 {
				t.Fatalf("SUBACK is %x", got)
			}
			m := s.recv()
			topic := strings.TrimSuffix(form, "/#")
			if topic != form {
				topic += "/jobs/1"
			}
			if m.topic != topic || m.payload != "one" || m.qos != 1 || m.dup || m.retain {
				t.Errorf("got %+v", m)
			}
			if u := users(m.props); v5 && (u["original-topic"] != "jobs/1" || len(u["message-id"]) != 26 || u["delivery-count"] != "1" || u["enqueue-time"] == "") {
				t.Errorf("user properties %v", u)
			}
			if got := e.counts(t, "work"); got != "ready=0 leased=1 delayed=0 dead=0" {
				t.Errorf("%s", got)
			}
			s.ackFor(m)
			e.want(t, "work", "ready=0 leased=0 delayed=0 dead=0")
			e.put(t, "jobs/2", "two") // it waits for more
			s.ackFor(s.recv())
			e.want(t, "work", "ready=0 leased=0 delayed=0 dead=0")
			s.quiet()
		}
	}
}

func TestQueueSubscriptionRefused(t *testing.T) { // X-rows of 5.4, mochi.md 10 no. 23
	e := open(t)
	e.queue(t, "work", "jobs/#")
	e.queue(t, "secret", "s/#")
	e.rules(t, auth.Rule{Effect: "deny", Who: "all", Do: []string{"consume"}, Filter: "queue:secret"})
	s, old := login(t, e, true, ""), login(t, e, false, "")
	for _, row := range []struct {
		filter string
		qos    byte
		code   byte
		text   bool
	}{
		{"$q/work", 0, 0x83, true},
		{"$q/nothing", 1, 0x83, true},
		{"$q/secret", 1, 0x87, true},
		{"$q/", 1, 0x8F, false},
		{"$q//x", 1, 0x8F, false},
		{"$q/+", 1, 0x8F, false},
		{"$queue/#", 1, 0x8F, false},
		{"$q/work/", 1, 0x8F, false},
		{"$q/work/a#", 1, 0x8F, false},
		{"$q/work/jobs/a+", 1, 0x8F, false},
	} {
		s.send(s.subscribePacket(1, row.qos, nil, row.filter))
		_, body := s.packet()
		if code := body[len(body)-1]; code != row.code || row.text != (body[2] > 0) {
			t.Errorf("%s: SUBACK is %x", row.filter, body)
		}
		if got := old.subscribe(1, row.qos, row.filter); got[0] != 0x80 {
			t.Errorf("%s: SUBACK is %x", row.filter, got)
		}
	}
	e.put(t, "jobs/1", "x")
	s.quiet()
	e.want(t, "work", "ready=1 leased=0 delayed=0 dead=0")
}

func TestNackOfAQueueDelivery(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		c := broker.NewQueueConfig("work", "jobs")
		c.Driver, c.MaxRetries = broker.Memory, 2
		if _, err := e.broker.CreateQueue(system(), c); err != nil {
			t.Fatal(err)
		}
		e.put(t, "jobs", "bad", "good")
		s := pipeIn(t, e, true, "")
		s.subscribe(1, 2, "$q/work")
		bad, good := s.recv(), s.recv()
		for attempt := 1; ; attempt++ {
			if u := users(bad.props); bad.payload != "bad" || u["delivery-count"] != fmt.Sprint(attempt) {
				t.Fatalf("got %+v %v", bad, u)
			}
			start := time.Now()
			s.send([]byte{0x50, 3, byte(bad.id >> 8), byte(bad.id), 0x80}) // PUBREC that refuses
			if attempt == 3 {
				break
			}
			bad = s.recv()
			if d, want := time.Since(start), time.Second<<(attempt-1); d < want || d > want+100*time.Millisecond {
				t.Errorf("attempt %d came back after %v", attempt, d)
			}
		}
		time.Sleep(5 * time.Second) // of fake time: the last back-off is over
		if got := e.counts(t, "work"); got != "ready=0 leased=1 delayed=0 dead=1" {
			t.Errorf("%s", got)
		}
		s.send([]byte{0x50, 2, byte(good.id >> 8), byte(good.id)})
		s.want(fmt.Sprintf("62 02 %04x", good.id)) // after the ack is committed
		if got := e.counts(t, "work"); got != "ready=0 leased=0 delayed=0 dead=1" {
			t.Errorf("%s", got)
		}
		s.send([]byte{0x70, 2, byte(good.id >> 8), byte(good.id)})
		s.ping()
	})
}

// TestDisconnectReturnsTheWindow is mochi.md 10 no. 18: what was sent counts an
// attempt, what was not is as if nobody had asked.
func TestDisconnectReturnsTheWindow(t *testing.T) {
	e := open(t)
	e.queue(t, "work", "jobs")
	e.put(t, "jobs", "1", "2", "3", "4", "5")
	s := dial(t, e)
	s.v5 = true
	s.send(connectPacket(true, "s", []byte{0x21, 0, 3}))
	s.packet()
	s.subscribe(1, 1, "$q/work")
	for range 2 {
		s.recv()
	}
	s.ackFor(s.recv()) // the third
	if m := s.recv(); m.payload != "4" {
		t.Errorf("got %+v", m)
	}
	_ = s.Close()
	e.want(t, "work", "ready=4 leased=0 delayed=0 dead=0")
	z := login(t, e, true, "")
	z.subscribe(1, 1, "$q/work")
	for i, want := range []string{"1 2", "2 2", "4 2", "5 1"} {
		m := z.recv()
		if got := m.payload + " " + users(m.props)["delivery-count"]; got != want {
			t.Errorf("message %d is %s, want %s", i, got, want)
		}
	}
}

func TestUnsubscribeEndsAQueueSubscription(t *testing.T) {
	e := open(t)
	e.queue(t, "work", "jobs")
	s := login(t, e, true, "")
	s.subscribe(1, 1, "$q/work")
	e.put(t, "jobs", "1")
	m := s.recv()
	s.sendHex("A2 0C 00 02 00 00 07 24712F776F726B") // $q/work
	s.want("B0 04 00 02 00 00")
	e.put(t, "jobs", "2")
	s.quiet()
	s.ackFor(m) // what it holds it may settle
	e.want(t, "work", "ready=1 leased=0 delayed=0 dead=0")
	s.sendHex("A2 0C 00 02 00 00 07 24712F776F726B")
	s.want("B0 04 00 02 00 11")
	s.subscribe(3, 1, "$q/work")
	s.recv()
	if err := e.broker.DeleteQueue(system(), "work"); err != nil {
		t.Fatal(err)
	}
	s.quiet()
	if got := s.subscribe(4, 1, "$q/work"); got[0] != 0x83 {
		t.Errorf("SUBACK is %x", got)
	}
}

// TestCreditIsOfTheConnection is mochi.md 10 no. 20: several queues, live
// messages beside them, one Receive Maximum.
func TestCreditIsOfTheConnection(t *testing.T) {
	for _, window := range []byte{1, 7} {
		bubble(t, func(t *testing.T, e *edge) {
			const each = 100
			for _, q := range []string{"a", "b", "c"} {
				e.queue(t, q, q)
				for i := range each {
					e.put(t, q, fmt.Sprint(i))
				}
			}
			s := pipeIn(t, e, true, "s", 0x21, 0, window)
			s.send(s.subscribePacket(1, 1, nil, "$q/a", "$q/b", "$q/c", "live"))
			s.suback()
			e.put(t, "live", "x", "x", "x")
			next := map[string]int{}
			for n := 0; n < 3*each+3; {
				var got []message
				for range min(int(window), 3*each+3-n) {
					m := s.recv()
					if m.topic != "live" && m.payload != fmt.Sprint(next[m.topic]) {
						t.Fatalf("after %d of %s came %s", next[m.topic], m.topic, m.payload)
					}
					next[m.topic]++
					n++
					got = append(got, m)
				}
				synctest.Wait()
				s.ping() // no more than the window
				for _, m := range got {
					s.ackFor(m)
				}
			}
			synctest.Wait()
			for _, q := range []string{"a", "b", "c"} {
				if got := e.counts(t, q); got != "ready=0 leased=0 delayed=0 dead=0" {
					t.Errorf("%s: %s", q, got)
				}
			}
		})
	}
}

func TestLeaseLastsAsLongAsTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		e.queue(t, "work", "jobs")
		e.put(t, "jobs", "x")
		s := pipeIn(t, e, true, "")
		s.subscribe(1, 1, "$q/work")
		m := s.recv()
		time.Sleep(24 * time.Hour) // of fake time
		if got := e.counts(t, "work"); got != "ready=0 leased=1 delayed=0 dead=0" {
			t.Errorf("%s", got)
		}
		s.ackFor(m)
		e.want(t, "work", "ready=0 leased=0 delayed=0 dead=0")
	})
}

func TestFixedLeaseEnds(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		c := broker.NewQueueConfig("work", "jobs")
		c.Driver, c.MQTTLease = broker.Memory, 10*time.Second
		if _, err := e.broker.CreateQueue(system(), c); err != nil {
			t.Fatal(err)
		}
		e.put(t, "jobs", "x")
		s, z := pipeIn(t, e, true, "s"), pipeIn(t, e, true, "z", 0x21, 0, 1)
		s.subscribe(1, 1, "$q/work")
		old := s.recv()
		synctest.Wait() // s waits again before z does
		z.subscribe(1, 1, "$q/work")
		start := time.Now()
		s.send([]byte{0xC0, 0}) // so that its own next delivery is told from PINGRESP
		s.want("D0 00")
		// It comes back to whoever has waited longest: to s, under a new id.
		m := s.recv()
		if d := time.Since(start); d < 10*time.Second || d > 11*time.Second || users(m.props)["delivery-count"] != "2" || m.dup || m.id == old.id {
			t.Errorf("after %v: %+v", d, m)
		}
		s.ackFor(old) // too late
		synctest.Wait()
		if got := e.counts(t, "work"); got != "ready=0 leased=1 delayed=0 dead=0" {
			t.Errorf("%s", got)
		}
		s.ackFor(m)
		synctest.Wait()
		if got := e.counts(t, "work"); got != "ready=0 leased=0 delayed=0 dead=0" {
			t.Errorf("%s", got)
		}
	})
}

func TestMessageTooLargeForItsConsumerIsForOthers(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		e.queue(t, "work", "jobs")
		s := pipeIn(t, e, true, "s", 0x27, 0, 0, 1, 0)
		s.subscribe(1, 1, "$q/work")
		e.put(t, "jobs", strings.Repeat("x", 1000), "small")
		if m := s.recv(); m.payload != "small" {
			t.Errorf("got %d bytes", len(m.payload))
		}
		synctest.Wait()
		if got := e.counts(t, "work"); got != "ready=0 leased=1 delayed=1 dead=0" {
			t.Errorf("%s", got)
		}
		time.Sleep(time.Minute) // of fake time
		if got := e.counts(t, "work"); got != "ready=0 leased=1 delayed=0 dead=1" {
			t.Errorf("%s", got)
		}
	})
}

// TestRightToConsumeTakenAway is X151 for queues.
func TestRightToConsumeTakenAway(t *testing.T) {
	e := open(t)
	e.queue(t, "work", "jobs")
	s := login(t, e, true, "")
	s.subscribe(1, 1, "$q/work")
	e.rules(t, auth.Rule{Effect: "deny", Who: "all", Do: []string{"consume"}, Filter: "queue:work"})
	eventually(t, "the subscription gone", func() bool {
		s.sendHex("A2 0C 00 02 00 00 07 24712F776F726B") // UNSUBSCRIBE of $q/other would do as well
		_, body := s.packet()
		return body[3] == 0x11
	})
}

// TestQueueSharedByMQTTAndOthers has one queue served by MQTT clients of both
// kinds, some of which die, and by receives as HTTP makes them.
func TestQueueSharedByMQTTAndOthers(t *testing.T) {
	const n = 3000
	e := open(t)
	c := broker.NewQueueConfig("work", "jobs")
	c.Driver, c.MaxRetries = broker.Memory, broker.Unlimited
	if _, err := e.broker.CreateQueue(system(), c); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[string]int{}
	note := func(text string) { mu.Lock(); seen[text]++; mu.Unlock() }
	ctx, cancel := context.WithCancel(system())
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				s := login(t, e, i%2 == 0, "")
				stop := context.AfterFunc(ctx, func() { _ = s.Close() })
				_, _ = s.Write(s.subscribePacket(1, 1, nil, "$q/work")) // what fails, fails below
				for k := 0; i > 1 || k < 50+round; k++ {                // the others die with a window open
					head, b, err := s.read()
					if err != nil {
						break
					}
					if head>>4 != 3 {
						continue
					}
					m := s.parse(head, b)
					if _, err := s.Write([]byte{0x40, 2, byte(m.id >> 8), byte(m.id)}); err != nil {
						break
					}
					note(m.payload)
				}
				stop()
				_ = s.Close()
			}
		})
	}
	all.Go(func() {
		for ctx.Err() == nil {
			got, err := e.broker.Receive(ctx, "work", broker.ReceiveOptions{Max: 10, Wait: time.Minute, Lease: time.Minute})
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			for i := range got {
				if _, err := e.broker.Ack(system(), "work", got[i].ID, got[i].Receipt); err != nil {
					t.Error(err)
				}
				note(string(got[i].Payload))
			}
		}
	})
	for i := range n {
		e.put(t, "jobs", fmt.Sprint(i))
	}
	e.want(t, "work", "ready=0 leased=0 delayed=0 dead=0")
	cancel()
	all.Wait()
	if len(seen) != n {
		t.Errorf("%d different messages came, want %d", len(seen), n)
	}
}

func TestQueueClients(t *testing.T) { // mochi.md 10 no. 21
	e := open(t)
	e.queue(t, "work", "jobs/#")
	for i := range 10 {
		e.put(t, "jobs/x", fmt.Sprint(i))
	}
	got := make(chan string, 10)
	take := func(want string) {
		t.Helper()
		select {
		case p := <-got:
			if p != want {
				t.Errorf("got %s, want %s", p, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s never came", want)
		}
	}
	old := paho3.NewClient(paho3.NewClientOptions().AddBroker("tcp://" + e.Addr().String()).SetClientID("old").SetAutoReconnect(false))
	if tok := old.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	if tok := old.Subscribe("$q/work/#", 1, func(_ paho3.Client, m paho3.Message) { got <- m.Topic() + " " + string(m.Payload()) }); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	for i := range 10 {
		take(fmt.Sprintf("$q/work/jobs/x %d", i))
	}
	e.want(t, "work", "ready=0 leased=0 delayed=0 dead=0")
	old.Disconnect(100)

	sock, err := net.Dial("tcp", e.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	modern := paho5.NewClient(paho5.ClientConfig{
		ClientID: "modern", Conn: sock,
		OnPublishReceived: []func(paho5.PublishReceived) (bool, error){func(p paho5.PublishReceived) (bool, error) {
			got <- p.Packet.Topic + " " + p.Packet.Properties.User.Get("original-topic")
			return true, nil
		}},
	})
	if _, err := modern.Connect(t.Context(), &paho5.Connect{ClientID: "modern", CleanStart: true, KeepAlive: 30}); err != nil {
		t.Fatal(err)
	}
	if _, err := modern.Subscribe(t.Context(), &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: "$queue/work", QoS: 2}}}); err != nil {
		t.Fatal(err)
	}
	e.put(t, "jobs/y", "x")
	take("$queue/work jobs/y")
	e.want(t, "work", "ready=0 leased=0 delayed=0 dead=0")
	_ = modern.Disconnect(&paho5.Disconnect{})

	if _, err := exec.LookPath("mosquitto_sub"); err != nil {
		t.Skip("mosquitto_sub is not installed")
	}
	e.put(t, "jobs/z", "1", "2")
	_, port, _ := net.SplitHostPort(e.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "mosquitto_sub", "-p", port, "-V", "5", "-q", "1", "-t", "$q/work", "-C", "2", "-W", "15", "-F", "%t %p").CombinedOutput()
	if err != nil || string(out) != "$q/work 1\n$q/work 2\n" {
		t.Errorf("got %q, %v", out, err)
	}
}
