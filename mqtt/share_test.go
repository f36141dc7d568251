package mqtt_test

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/mqtt"

	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// members connects n clients to one shared subscription.
func members(t *testing.T, e *edge, n int, v5 bool, filter string, props ...byte) []*raw {
	t.Helper()
	ms := make([]*raw, n)
	for i := range ms {
		ms[i] = pipeIn(t, e, v5, fmt.Sprint("m", i), props...)
		if got := ms[i].subscribe(1, 1, filter); got[0] != 1 {
			t.Fatalf("SUBACK is %x", got)
		}
	}
	return ms
}

func TestSharedSubscriptionTakesTurns(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		bubble(t, func(t *testing.T, e *edge) {
			ms := members(t, e, 3, v5, "$share/g/t/#")
			other := pipeIn(t, e, v5, "other")
			other.subscribe(1, 1, "$share/other/t/#", "t/1")
			var all sync.WaitGroup
			all.Go(func() {
				for range 2 * 9 { // another group, and a plain subscription, have copies of their own
					other.ackFor(other.recv())
				}
			})
			for i := range 9 {
				e.put(t, "t/1", fmt.Sprint(i))
				m := ms[i%3].recv()
				if m.payload != fmt.Sprint(i) || m.topic != "t/1" || m.qos != 1 {
					t.Errorf("got %+v", m)
				}
				ms[i%3].ackFor(m)
				synctest.Wait() // its acknowledgement counts before the next is given out
			}
			all.Wait()
			for _, m := range ms {
				m.quiet()
			}
		})
	}
}

func TestSharedSubscriptionPrefersWhoHasLeast(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		ms := members(t, e, 2, true, "$share/g/t")
		e.put(t, "t", "0", "1")
		ms[0].recv() // and does not acknowledge
		ms[1].ackFor(ms[1].recv())
		synctest.Wait()
		e.put(t, "t", "2")
		if m := ms[1].recv(); m.payload != "2" {
			t.Errorf("got %+v", m)
		}
		ms[0].quiet()
	})
}

// TestSharedSubscriptionPassesOverTheFull: what nobody has room for waits for
// the first that has, in order.
func TestSharedSubscriptionPassesOverTheFull(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		ms := members(t, e, 2, true, "$share/g/t", 0x21, 0, 1)
		for i := range 6 {
			e.put(t, "t", fmt.Sprint(i))
		}
		held := ms[0].recv()
		at := ms[1].recv()
		ms[0].quiet()
		ms[1].quiet()
		for i := 2; i < 6; i++ {
			ms[1].ackFor(at)
			if at = ms[1].recv(); at.payload != fmt.Sprint(i) {
				t.Errorf("got %+v, want %d", at, i)
			}
		}
		ms[0].ackFor(held)
		ms[0].quiet()
	})
}

// TestMembersLeavingGiveBack is mochi.md 10 no. 32.
func TestMembersLeavingGiveBack(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		s := pipeIn(t, e, true, "s")
		s.subscribe(1, 1, "$share/g/t")
		for i := range 5 {
			e.put(t, "t", fmt.Sprint(i))
		}
		for i := range 5 {
			if m := s.recv(); i == 2 {
				s.ackFor(m)
			}
		}
		s.ping()
		z := pipeIn(t, e, true, "z")
		z.subscribe(1, 1, "$share/g/t")
		_ = s.Close()
		for _, want := range []string{"0", "1", "3", "4"} {
			m := z.recv()
			if m.payload != want || m.dup {
				t.Errorf("got %+v, want %s", m, want)
			}
			z.ackFor(m)
		}
		z.quiet()
		// The last one leaves: what waited is dropped, and counted.
		before := e.Stats().Dropped["session_ended"]
		e.put(t, "t", "5")
		z.recv()
		_ = z.Close()
		synctest.Wait()
		if n := e.Stats().Dropped["session_ended"] - before; n != 1 {
			t.Errorf("%d dropped, want 1", n)
		}
	})
}

// TestSharedQoS2IsNotGivenTwice is [MQTT-4.8.2-5].
func TestSharedQoS2IsNotGivenTwice(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		s, z := pipeIn(t, e, true, "s"), pipeIn(t, e, true, "z")
		s.subscribe(1, 2, "$share/g/t")
		e.put(t, "t", "once")
		m := s.recv()
		if m.qos != 2 {
			t.Errorf("got %+v", m)
		}
		z.subscribe(1, 2, "$share/g/t")
		_ = s.Close()
		synctest.Wait()
		z.quiet()
		e.put(t, "t", "two")
		m = z.recv()
		z.send([]byte{0x50, 2, byte(m.id >> 8), byte(m.id)})
		z.want(fmt.Sprintf("62 02 %04x", m.id))
		z.send([]byte{0x70, 2, byte(m.id >> 8), byte(m.id)})
		e.put(t, "t", "three")
		m = z.recv()
		z.send([]byte{0x50, 3, byte(m.id >> 8), byte(m.id), 0x80}) // refused: to nobody else
		z.quiet()
	})
}

func TestUnsubscribedMemberGetsNoMore(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		ms := members(t, e, 2, true, "$share/g/t")
		e.put(t, "t", "0")
		held := ms[0].recv()
		ms[0].send(packet(0xA2, str([]byte{0, 2, 0}, "$share/g/t")))
		ms[0].want("B0 04 00 02 00 00")
		for i := range 4 {
			e.put(t, "t", fmt.Sprint(i+1))
			ms[1].ackFor(ms[1].recv())
		}
		ms[0].quiet()
		_ = held
		_ = ms[0].Close() // what it still held goes to the other
		if m := ms[1].recv(); m.payload != "0" {
			t.Errorf("got %+v", m)
		}
	})
}

func TestSharedSubscriptionOptions(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		e.retain(t, "t", "kept", 1)
		s := pipeIn(t, e, true, "s")
		s.send(s.subscribePacket(1, 8|1, []byte{0x0B, 9}, "$share/g/t")) // Retain As Published
		s.suback()
		s.quiet() // no retained messages
		e.retain(t, "t", "new", 1)
		if m := s.recv(); !m.retain || string(m.props) != "\x0b\x09" {
			t.Errorf("got %+v", m)
		}
		s.subscribe(2, 0, "$share/g/t") // in place of the old one
		e.put(t, "t", "x")
		if m := s.recv(); m.qos != 0 || len(m.props) > 0 {
			t.Errorf("got %+v", m)
		}
		s.quiet()
		z := pipeIn(t, e, true, "z") // X136
		z.send(z.subscribePacket(1, 4|1, nil, "$share/g/t"))
		z.wantEnd(0x82)
	})
}

// TestSharedSubscriptionKeepsToRights is X146 and B17: a member that may not
// read a topic does not take its messages from the others.
func TestSharedSubscriptionKeepsToRights(t *testing.T) {
	e := open(t)
	e.rules(t, deny("subscribe", "secret/#"))
	s, r := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 1, "$share/g/#")
	for i, topic := range []string{"secret/x", "open", "secret/y", "open"} {
		r.publish(topic, topic, 1, uint16(i+1))
		r.packet()
	}
	for range 2 {
		if m := s.recv(); m.topic != "open" {
			t.Errorf("got %+v", m)
		}
	}
	s.quiet()
	e.rules(t, deny("subscribe", "#"))
	eventually(t, "the subscription gone", func() bool {
		r.publish("open", "x", 1, 9)
		_, body := r.packet()
		return len(body) == 3 && body[2] == 0x10
	})
}

// TestSharedSubscriptionUnderChange has members come and go, some of them
// without acknowledging, while messages flow: none is lost.
func TestSharedSubscriptionUnderChange(t *testing.T) {
	const n = 4000
	e := open(t, func(o *mqtt.Options) { o.MaxInflight = 20 })
	got := make(chan string, 4*n)
	stay := login(t, e, true, "")
	stay.subscribe(1, 1, "$share/g/t")
	_ = stay.SetDeadline(noDeadline)
	read := func(s *raw, most int) {
		for range most {
			head, b, err := s.read()
			if err != nil {
				return
			}
			if head>>4 != 3 {
				continue
			}
			m := s.parse(head, b)
			if _, err := s.Write([]byte{0x40, 2, byte(m.id >> 8), byte(m.id)}); err != nil {
				return
			}
			got <- m.payload
		}
	}
	ended := make(chan struct{})
	go func() { defer close(ended); read(stay, 4*n) }()
	stop, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for {
			select {
			case <-stop:
				return
			default:
			}
			s := login(t, e, false, "")
			_, _ = s.Write(s.subscribePacket(1, 1, nil, "$share/g/t")) // what fails, fails below
			_ = s.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			read(s, 30)
			_ = s.Close()
		}
	}()
	for i := range n {
		e.put(t, "t", fmt.Sprint(i))
	}
	seen := map[string]bool{}
	for len(seen) < n {
		select {
		case p := <-got:
			seen[p] = true
		case <-time.After(20 * time.Second):
			t.Fatalf("only %d of %d came, %+v", len(seen), n, e.Stats().Dropped)
		}
	}
	close(stop)
	<-gone
	_ = stay.Close()
	<-ended
}

func TestSharedSubscriptionClients(t *testing.T) {
	e := open(t)
	got := make(chan string, 10)
	c := paho3.NewClient(paho3.NewClientOptions().AddBroker("tcp://" + e.Addr().String()).SetClientID("c").SetAutoReconnect(false))
	if tok := c.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	if tok := c.Subscribe("$share/g/t/#", 1, func(_ paho3.Client, m paho3.Message) { got <- string(m.Payload()) }); tok.Wait() && tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	e.put(t, "t/1", "x")
	select {
	case p := <-got:
		if p != "x" {
			t.Errorf("got %s", p)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
	}
	c.Disconnect(100)
	if _, err := exec.LookPath("mosquitto_sub"); err != nil {
		t.Skip("mosquitto_sub is not installed")
	}
	_, port, _ := net.SplitHostPort(e.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out strings.Builder
	sub := exec.CommandContext(ctx, "mosquitto_sub", "-p", port, "-V", "5", "-q", "1", "-t", "$share/g/m", "-C", "1", "-W", "15")
	sub.Stdout = &out
	if err := sub.Start(); err != nil {
		t.Fatal(err)
	}
	probe := login(t, e, true, "")
	eventually(t, "its subscription", func() bool {
		probe.publish("m", "hello", 1, 1)
		_, body := probe.packet()
		return len(body) == 2
	})
	if err := sub.Wait(); err != nil || out.String() != "hello\n" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}
