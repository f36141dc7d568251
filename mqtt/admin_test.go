package mqtt_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/broker/clients"
	"millrace/mqtt"
)

// indexed gives the edge an index that the test can look into.
func indexed(r *clients.Registry) func(*mqtt.Options) {
	return func(o *mqtt.Options) { o.Clients = r }
}

func TestASessionStaysListedWhileItsClientIsAwayAndOverARestart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &clients.Registry{}
		e := openWith(t, dir, mqtt.Bare, indexed(r))
		s, _ := keptPipe(t, e, "c", false, 100)
		s.subscribe(1, 1, "a/+")
		c, _ := r.Get("c")
		if !c.Facts.Connected || c.Facts.Expiry != 100 || c.Facts.Version != 5 || c.Numbers().Subscriptions != 1 {
			t.Errorf("connected: %+v %+v", c.Facts, c.Numbers())
		}
		_ = s.Close()
		synctest.Wait()
		e.put(t, "a/1", "x")
		for _, when := range []string{"away", "after a restart"} {
			c, ok := r.Get("c")
			if !ok || c.Facts.Connected || c.Numbers().Waiting != 1 || r.Subscribers("a/+") != 1 || c.Facts.DisconnectedAt.IsZero() {
				t.Fatalf("%s: %v %+v", when, ok, c)
			}
			if held := c.Waiting(0, 10); len(held) != 1 || string(held[0].Message.Payload) != "x" || held[0].QoS != 1 {
				t.Errorf("%s: %+v wait", when, held)
			}
			if when == "away" {
				e.stop(t)
				r = &clients.Registry{}
				e = openWith(t, dir, mqtt.Bare, indexed(r))
			}
		}
		<-time.After(101 * time.Second)
		synctest.Wait()
		if _, ok := r.Get("c"); ok || r.Subscribers("a/+") != 0 {
			t.Error("a session that has expired is listed")
		}
	})
}

func TestAnOperatorChangesASessionWhoseClientIsAway(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		r := e.Registry()
		if _, err := e.broker.Publish(system(), &broker.Message{Topic: "r/1", Payload: []byte("kept"), QoS: 1, Retain: true}); err != nil {
			t.Fatal(err)
		}
		s, _ := keptPipe(t, e, "c", false, 100)
		_ = s.Close()
		synctest.Wait()
		c, _ := r.Get("c")
		if err := c.Subscribe(clients.Subscription{Filter: "r/#", QoS: 1}); err != nil {
			t.Fatal(err)
		}
		if err := c.SetKeepAlive(5); !errors.Is(err, clients.ErrOffline) {
			t.Errorf("keep alive: %v", err)
		}
		e.put(t, "r/2", "live")
		s, present := keptPipe(t, e, "c", false, 100)
		if !present {
			t.Fatal("the session is gone")
		}
		for _, want := range []string{"kept", "live"} {
			if m := s.recv(); m.payload != want {
				t.Errorf("got %+v, want %s", m, want)
			} else {
				s.settle(m)
			}
		}
		_ = s.Close()
		synctest.Wait()
		c, _ = r.Get("c")
		if !c.Unsubscribe("r/#") || c.Unsubscribe("r/#") || r.Subscribers("r/#") != 0 {
			t.Error("the subscription was not removed once")
		}
		<-c.Kick()
		if _, ok := r.Get("c"); ok || e.sessions() != 0 {
			t.Error("the session is still there")
		}
	})
}

func TestKickEndsASessionThatWouldLast(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		s, _ := keptPipe(t, e, "c", false, 100)
		c, _ := e.Registry().Get("c")
		done := c.Kick()
		s.wantEnd(0x98)
		<-done
		if _, ok := e.Registry().Get("c"); ok || e.sessions() != 0 {
			t.Error("the session is still there")
		}
	})
}

func TestABanIsFeltAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		s, _ := keptPipe(t, e, "noisy", true, 0)
		began := time.Now()
		if _, err := e.auth.AddBan(system(), auth.Ban{Kind: auth.BanClientID, Who: "noisy"}); err != nil {
			t.Fatal(err)
		}
		s.wantEnd(0x8A)
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v: as long as a look at everything", took)
		}
	})
}

func TestAShorterKeepAliveHoldsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		s, _ := keptPipe(t, e, "c", true, 0)
		c, _ := e.Registry().Get("c")
		<-time.After(time.Minute)
		if err := c.SetKeepAlive(100); err != nil {
			t.Fatal(err)
		}
		if got := c.Numbers().KeepAlive; got != 100 {
			t.Errorf("the keep alive is %d", got)
		}
		began := time.Now()
		s.wantEnd(0x8D)
		if took := time.Since(began); took != 90*time.Second { // 150 s after the last packet
			t.Errorf("after %v", took)
		}
	})
}

// TestABanThatFollowsAnotherIsFeltAtOnce, while the first is still looked at.
func TestABanThatFollowsAnotherIsFeltAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		s, _ := keptPipe(t, e, "noisy", true, 0)
		for _, who := range []string{"a", "b", "c", "noisy"} {
			if _, err := e.auth.AddBan(system(), auth.Ban{Kind: auth.BanClientID, Who: who}); err != nil {
				t.Fatal(err)
			}
			<-time.After(300 * time.Millisecond)
		}
		began := time.Now()
		s.wantEnd(0x8A)
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v longer", took)
		}
	})
}

// TestABanReachesWhoIsJustConnecting: whose login was accepted before the ban,
// and whose connection was not among those that were looked at.
func TestABanReachesWhoIsJustConnecting(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		for range 4 { // take-overs, so that the next one is held for half a second
			keptPipe(t, e, "noisy", true, 0)
		}
		held := pipe(t, e)
		held.v5 = true
		held.send(sessionPacket(true, "noisy", true, 0))
		synctest.Wait()
		if _, err := e.auth.AddBan(system(), auth.Ban{Kind: auth.BanClientID, Who: "noisy"}); err != nil {
			t.Fatal(err)
		}
		if head, _ := held.packet(); head != 0x20 {
			t.Fatalf("got %x, want a CONNACK", head)
		}
		began := time.Now()
		held.wantEnd(0x8A)
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v longer", took)
		}
	})
}
