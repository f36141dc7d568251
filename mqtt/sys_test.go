package mqtt_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"millrace/broker/auth"
	"millrace/broker/clustertest"
	"millrace/mqtt"
)

// boss connects a superuser over a pipe.
func boss(t *testing.T, e *edge, id string) *raw {
	t.Helper()
	if _, err := e.auth.User("boss"); err != nil {
		if err := e.auth.AddUser(system(), auth.UserSpec{Username: "boss", Password: "long enough 1", Superuser: true}); err != nil {
			t.Fatal(err)
		}
	}
	r := pipe(t, e)
	r.v5 = true
	b := connectPacket(true, id, nil)[2:]
	b[7] |= 0xC0
	r.send(packet(0x10, str(str(b, "boss"), "long enough 1")))
	if head, body := r.packet(); head != 0x20 || body[1] != 0 {
		t.Fatalf("CONNACK is %x %x", head, body)
	}
	return r
}

// retainedOf subscribes to a filter, and returns what is retained.
func retainedOf(t *testing.T, r *raw, filter string) map[string]string {
	t.Helper()
	r.send(r.subscribePacket(1, 0, nil, filter))
	got := map[string]string{}
	r.send([]byte{0xC0, 0}) // its answer comes after them
	for {
		head, body := r.packet()
		switch head >> 4 {
		case 3:
			m := r.parse(head, body)
			if !m.retain {
				t.Errorf("%s came without the retain flag", m.topic)
			}
			got[m.topic] = m.payload
		case 13:
			return got
		}
	}
}

func TestSysHasMosquittosNames(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		synctest.Wait() // for the first round
		pub := pipeIn(t, e, false, "pub")
		sub := pipeIn(t, e, false, "sub")
		sub.subscribe(1, 0, "t/#")
		go func() { // a pipe holds nothing
			for range 90 {
				pub.publish("t/x", "12345", 0, 0)
			}
		}()
		for range 90 {
			sub.recv()
		}
		<-time.After(60 * time.Second)
		synctest.Wait()
		b := boss(t, e, "boss")
		got := retainedOf(t, b, "$SYS/#")
		for name, want := range map[string]string{
			"version": "millrace version 1.2.3", "uptime": "60 seconds",
			"clients/connected": "2", "clients/maximum": "2", "clients/total": "2", "clients/disconnected": "0", "clients/expired": "0",
			"publish/messages/received": "90", "publish/messages/sent": "90", "publish/bytes/received": "450", "publish/bytes/sent": "450",
			"publish/messages/dropped": "0", "messages/received": "93", "messages/sent": "93",
			"subscriptions/count": "1", "retained messages/count": "0", "shared_subscriptions/count": "0",
		} {
			if got["$SYS/broker/"+name] != want {
				t.Errorf("%s is %q, want %q", name, got["$SYS/broker/"+name], want)
			}
		}
		for _, name := range []string{
			"load/messages/received", "load/messages/sent", "load/publish/received", "load/publish/sent", "load/publish/dropped",
			"load/bytes/received", "load/bytes/sent", "load/sockets", "load/connections",
		} {
			for _, span := range []string{"1min", "5min", "15min"} {
				if v, err := strconv.ParseFloat(got["$SYS/broker/"+name+"/"+span], 64); err != nil || v < 0 {
					t.Errorf("%s/%s is %q", name, span, got["$SYS/broker/"+name+"/"+span])
				}
			}
		}
		// All of it came in the first ten seconds: 540 a minute then, and nothing since.
		if v := got["$SYS/broker/load/publish/received/1min"]; !strings.HasPrefix(v, "36.") {
			t.Errorf("the average of a minute is %s", v)
		}
		for _, name := range []string{"bytes/received", "bytes/sent", "heap/current", "heap/maximum"} {
			if n, err := strconv.Atoi(got["$SYS/broker/"+name]); err != nil || n <= 0 {
				t.Errorf("%s is %q", name, got["$SYS/broker/"+name])
			}
		}
		m := b.recv() // what changes is told
		if m.retain || !strings.HasPrefix(m.topic, "$SYS/broker/") {
			t.Errorf("then came %+v", m)
		}
	}, func(o *mqtt.Options) { o.SysInterval, o.Version = 10*time.Second, "1.2.3" })
}

func TestSysIsForAdministrators(t *testing.T) { // D15
	e := open(t, func(o *mqtt.Options) { o.SysInterval = 10 * time.Millisecond })
	if err := e.auth.AddUser(system(), auth.UserSpec{Username: "ann", Password: "long enough 1"}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*raw{login(t, e, true, "anonymous"), loginAs(t, e, "ann", "ann", "long enough 1", 0)} {
		for _, filter := range []string{"$SYS/#", "$SYS/broker/uptime", "$share/g/$SYS/#"} {
			r.send(r.subscribePacket(1, 0, nil, filter))
			r.want("90 04 00 01 00 87")
		}
		r.send(r.subscribePacket(1, 0, nil, "#", "+/broker/uptime"))
		r.want("90 05 00 01 00 00 00")
		<-time.After(50 * time.Millisecond)
		r.ping()
	}
}

// TestSharedWildcardsDoNotSeeSys: a shared subscription is no way around what #
// and + do not match.
func TestSharedWildcardsDoNotSeeSys(t *testing.T) { // B17
	bubble(t, func(t *testing.T, e *edge) {
		b := boss(t, e, "boss")
		b.subscribe(1, 0, "$share/g/#")
		b.subscribe(2, 0, "$share/g/+/broker/uptime")
		<-time.After(5 * time.Minute)
		pipeIn(t, e, true, "").publish("$any/x", "hidden", 0, 0)
		b.quiet()
		b.subscribe(3, 0, "$share/g/$SYS/broker/uptime")
		if m := b.recv(); m.topic != "$SYS/broker/uptime" {
			t.Errorf("got %+v", m)
		}
	}, func(o *mqtt.Options) { o.SysInterval = time.Minute })
}

func TestSysCanBeOff(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		<-time.After(time.Minute)
		if got := retainedOf(t, boss(t, e, "boss"), "$SYS/#"); len(got) > 0 {
			t.Errorf("got %v", got)
		}
	})
}

func TestSysCountsSessionsOfClientsThatAreAway(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		for i, expiry := range []byte{20, 200} {
			r := pipeIn(t, e, true, fmt.Sprint("c", i), 17, 0, 0, 0, expiry)
			r.subscribe(1, 1, "t")
			r.send([]byte{0xE0, 0})
			r.wantEnd(0)
		}
		stays := pipeIn(t, e, true, "stays", 17, 0, 0, 0, 200)
		want := func(connected, disconnected, total, expired, subs string) {
			t.Helper()
			<-time.After(11 * time.Second)
			synctest.Wait()
			b := boss(t, e, "")
			got := retainedOf(t, b, "$SYS/broker/+/+")
			b.send([]byte{0xE0, 0})
			for name, want := range map[string]string{
				"clients/connected": connected, "clients/disconnected": disconnected, "clients/total": total,
				"clients/expired": expired, "subscriptions/count": subs,
			} {
				if v := got["$SYS/broker/"+name]; v != want {
					t.Errorf("%s is %s, want %s", name, v, want)
				}
			}
		}
		want("1", "2", "3", "0", "2")
		<-time.After(20 * time.Second)
		want("1", "1", "2", "1", "1")
		stays.send([]byte{0xC0, 0})
		stays.want("D0 00")
	}, func(o *mqtt.Options) { o.SysInterval = 10 * time.Second })
}

// TestSysNamesTheNodesAndShowsTheFiguresOfEach, under the names that EMQX has for
// the list, and mosquitto for the figures.
func TestSysNamesTheNodesAndShowsTheFiguresOfEach(t *testing.T) {
	sharing(t, func(t *testing.T, a, b *edge, _, bn *clustertest.View) {
		pipeIn(t, b, true, "on-b")
		time.Sleep(15 * time.Second)
		kept := func(e *edge, filter string, want map[string]string) {
			t.Helper()
			synctest.Wait()
			r := boss(t, e, "")
			if diff := cmp.Diff(want, retainedOf(t, r, filter)); diff != "" {
				t.Error(diff)
			}
			r.send([]byte{0xE0, 0})
			r.wantEnd(0)
		}
		told := func(r *raw, topic, payload string) {
			t.Helper()
			if m := r.recv(); m.topic != topic || m.payload != payload {
				t.Errorf("told %s %q, want %s %q", m.topic, m.payload, topic, payload)
			}
		}
		const nodes, figure = "$SYS/brokers", "$SYS/brokers/b/clients/maximum"
		kept(a, nodes, map[string]string{nodes: "a,b"})
		kept(a, "$SYS/brokers/+/clients/maximum", map[string]string{"$SYS/brokers/a/clients/maximum": "0", figure: "1"})
		kept(b, "$SYS/brokers/+/version", map[string]string{"$SYS/brokers/a/version": "millrace version 1", "$SYS/brokers/b/version": "millrace version 1"})
		at, there := boss(t, a, "boss-a"), boss(t, b, "boss-b")
		at.subscribe(1, 0, nodes, figure)
		there.subscribe(1, 0, nodes)
		at.recv() // what is retained
		at.recv()
		there.recv()
		time.Sleep(10 * time.Second)
		told(at, figure, "2")
		bn.CutOff()
		told(at, nodes, "a")
		told(at, figure, "")
		told(there, nodes, "b")
		kept(a, "$SYS/brokers/b/#", map[string]string{})
		bn.Reconnect()
		told(at, nodes, "a,b")
		told(there, nodes, "a,b")
		time.Sleep(10 * time.Second)
		told(at, figure, "2")
	}, func(o *mqtt.Options) { o.SysInterval, o.Version = 10*time.Second, "1" })
}
