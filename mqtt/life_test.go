package mqtt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/broker/auth"
	"millrace/mqtt"
)

func TestSilentSocketIsClosed(t *testing.T) { // X001 to X003, B15, SB1
	e := open(t, func(o *mqtt.Options) { o.ConnectTimeout = 200 * time.Millisecond })
	start := time.Now()
	silent, half, slow := dial(t, e), dial(t, e), dial(t, e)
	half.sendHex("10")
	done := make(chan struct{})
	go func() { // progress does not help
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for _, b := range connectPacket(false, strings.Repeat("x", 100), nil) {
			if _, err := slow.Write([]byte{b}); err != nil {
				return
			}
			<-tick.C
		}
	}()
	for _, r := range []*raw{silent, half, slow} {
		r.wantEnd(0)
	}
	if took := time.Since(start); took > 20*time.Second || took < 150*time.Millisecond {
		t.Errorf("closed after %v", took)
	}
	<-done
	eventually(t, "three counted", func() bool { return e.Stats().Refused["timeout"] == 3 })
}

func TestCrowdBeforeConnectLosesItsOldest(t *testing.T) { // X018
	e := open(t, func(o *mqtt.Options) { o.MaxWaiting = 3 })
	var rs []*raw
	for i := range 5 {
		rs = append(rs, dial(t, e))
		eventually(t, "accepted", func() bool { return e.Stats().Accepted == int64(i+1) })
	}
	rs[0].wantEnd(0)
	rs[1].wantEnd(0)
	for _, r := range rs[2:] {
		r.send(connectPacket(false, "", nil))
		r.want("20 02 00 00")
	}
}

func TestAddressLimit(t *testing.T) { // X018
	e := open(t, func(o *mqtt.Options) { o.MaxPerAddress = 2 })
	first := login(t, e, false, "a")
	login(t, e, false, "b")
	dial(t, e).wantEnd(0)
	first.send([]byte{0xE0, 0})
	first.wantEnd(0)
	eventually(t, "room for another", func() bool {
		c, err := net.Dial("tcp", e.Addr().String())
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = c.Write(connectPacket(false, "c", nil))
		n, _ := c.Read(make([]byte, 4))
		return n == 4
	})
}

func TestOtherProtocolsAreNamedInTheLog(t *testing.T) { // X014
	e := open(t)
	r := dial(t, e)
	r.send([]byte("GET /\r\n{\"evil\":1} HTTP/1.1\r\n\r\n"))
	r.wantEnd(0)
	for _, row := range []struct{ send, want string }{
		{"47 45 54 20 2F", "HTTP request on the MQTT port"},
		{"16 03 01 02 00 01", "TLS handshake on the plain port"},
	} {
		eventually(t, row.want, func() bool { // one line a second
			r := dial(t, e)
			r.sendHex(row.send)
			r.wantEnd(0)
			return strings.Contains(e.log.String(), row.want)
		})
	}
	if strings.Contains(e.log.String(), "evil") {
		t.Error("log holds what was sent")
	}
}

func TestKeepAlive(t *testing.T) {
	e := open(t)
	r := dial(t, e)
	b := connectPacket(true, "k", nil)
	b[11] = 1
	r.v5 = true
	r.send(b)
	r.packet()
	start := time.Now()
	r.wantEnd(0x8D)
	if took := time.Since(start); took < 1400*time.Millisecond || took > 20*time.Second {
		t.Errorf("closed after %v, want 1.5 s", took)
	}
}

func TestTakeover(t *testing.T) { // X068, B22
	e := open(t)
	for _, v5 := range []bool{true, false} {
		old := login(t, e, v5, "same")
		old.subscribe(1, 1, "t")
		now := login(t, e, true, "same")
		old.wantEnd(0x8E)
		now.publish("t", "x", 1, 1)
		now.want("40 03 00 01 10")
	}
}

func TestClientIDOfAnotherIdentityIsRefused(t *testing.T) { // X069, SB11
	e := open(t)
	if err := e.auth.AddUser(system(), auth.UserSpec{Username: "ann", Password: "long enough 1"}); err != nil {
		t.Fatal(err)
	}
	old := login(t, e, true, "same")
	old.subscribe(1, 1, "t")
	for _, v5 := range []bool{true, false} {
		r := dial(t, e)
		b := connectPacket(v5, "same", nil)[2:]
		b[7] |= 0xC0
		r.send(packet(0x10, str(str(b, "ann"), "long enough 1")))
		if v5 {
			r.want("20 03 00 85 00")
		} else {
			r.want("20 02 00 02")
		}
		r.wantEnd(0)
	}
	old.publish("t", "x", 0, 1)
	old.recv()
}

func TestLogin(t *testing.T) { // X074, X076 to X078
	e := open(t)
	if err := e.auth.AddUser(system(), auth.UserSpec{Username: "ann", Password: "long enough 1"}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		user, password string
		listener       int
		v3, v5         string
	}{
		{"ann", "long enough 1", 1, "20 02 00 00", ""},
		{"ann", "hunter2", 0, "20 02 00 04", "20 03 00 86 00"},
		{"nobody", "x", 1, "20 02 00 04", "20 03 00 86 00"},
		{"nobody", "x", 0, "20 02 00 00", ""},
		{"ann", strings.Repeat("x", 8193), 0, "20 02 00 04", "20 03 00 86 00"},
		{strings.Repeat("x", 257), "", 0, "20 02 00 04", "20 03 00 86 00"},
	} {
		for v5, want := range map[bool]string{false: row.v3, true: row.v5} {
			if want == "" {
				continue
			}
			c, err := net.Dial("tcp", e.Addrs()[row.listener].String())
			if err != nil {
				t.Fatal(err)
			}
			r := dial(t, e)
			_ = r.Close()
			r.Conn = c
			r.br.Reset(c)
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			b := connectPacket(v5, "c", nil)[2:]
			b[7] |= 0xC0
			r.send(packet(0x10, str(str(b, row.user), row.password)))
			r.want(want)
			_ = c.Close()
		}
	}
	if strings.Contains(e.log.String(), "hunter2") || strings.Contains(e.log.String(), "xxxxxxxxxx\"") {
		t.Error("log holds a password")
	}
}

func TestNoPasswordIsLogged(t *testing.T) { // X067, SB17
	e := open(t)
	r := login(t, e, true, "c")
	b := connectPacket(true, "c", nil)[2:]
	b[7] |= 0xC0
	r.send(packet(0x10, str(str(b, "user"), "hunter2")))
	r.wantEnd(0x82)
	eventually(t, "the end in the log", func() bool { return strings.Contains(e.log.String(), "connection ended") })
	if strings.Contains(e.log.String(), "hunter2") {
		t.Error("log holds a password")
	}
}

func TestAssignedClientIDsAreRandom(t *testing.T) { // X044
	e := open(t)
	seen := map[string]bool{}
	for range 20 {
		r := dial(t, e)
		r.send(connectPacket(true, "", nil))
		_, body := r.packet()
		i := bytes.Index(body, []byte("auto-"))
		if i < 0 {
			t.Fatalf("CONNACK %x assigns no id", body)
		}
		id := string(body[i:])
		if seen[id] || len(id) < 27 {
			t.Errorf("id %q", id)
		}
		seen[id] = true
	}
}

// stuck is a subscriber of t that never reads.
func stuck(t *testing.T, e *edge, qos byte) *raw {
	t.Helper()
	r := login(t, e, true, fmt.Sprintf("stuck%d", qos))
	if err := r.Conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	r.subscribe(1, qos, "t")
	return r
}

// TestSlowSubscriberIsItsOwnProblem is X128, B25, SB4, SB9.
func TestSlowSubscriberIsItsOwnProblem(t *testing.T) {
	e := open(t, func(o *mqtt.Options) {
		o.MaxOutput = 1 << 20
		o.BacklogMessages = 50
	})
	for qos := range byte(3) {
		stuck(t, e, qos)
	}
	s, r := login(t, e, true, ""), login(t, e, true, "")
	s.subscribe(1, 0, "t")
	const messages = 1000
	payload := strings.Repeat("x", 10_000)
	for i := range uint16(messages) {
		r.publish("t", payload, 1, i+1)
		if m := s.recv(); len(m.payload) != len(payload) {
			t.Fatalf("got %+v", m)
		}
		r.packet()
	}
	eventually(t, "shed and dropped", func() bool {
		st := e.Stats()
		return st.Dropped["shed"] > 0 && st.Dropped["backlog"] > 0
	})
}

func TestSocketThatTakesNothingIsClosed(t *testing.T) { // X072, X128
	e := open(t, func(o *mqtt.Options) { o.StallTimeout = 200 * time.Millisecond })
	for qos := range byte(3) {
		stuck(t, e, qos)
	}
	r := login(t, e, true, "")
	payload := strings.Repeat("x", 1<<20)
	for i := range uint16(12) { // more than the buffers of the kernel
		r.publish("t", payload, 2, i+1)
	}
	eventually(t, "three slow consumers closed", func() bool { return e.Stats().Closed["slow_consumer"] == 3 })
	if n := e.Stats().SlowConsumers; n != 3 {
		t.Errorf("%d slow consumers, want 3", n)
	}
}

func TestTakeoverOfAClientThatDoesNotRead(t *testing.T) { // X071, B35
	e := open(t)
	stuck(t, e, 0)
	r := login(t, e, true, "")
	for range 200 {
		r.publish("t", strings.Repeat("x", 100_000), 0, 0)
	}
	r.ping()
	start := time.Now()
	login(t, e, true, "stuck0").ping()
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestReasonArrivesThoughMoreWasSent sends much after the packet that ends the
// connection: an unread byte must not make the kernel reset it.
func TestReasonArrivesThoughMoreWasSent(t *testing.T) {
	e := open(t)
	for range 20 {
		r := login(t, e, true, "")
		b := r.publishPacket("a/+", "x", 1, 1)
		for i := range uint16(1000) {
			b = append(b, r.publishPacket("t", "more", 0, i)...)
		}
		r.send(b)
		r.wantEnd(0x90)
	}
}

func TestCloseDrains(t *testing.T) {
	for _, v5 := range []bool{true, false} {
		e := open(t)
		e.queue(t, "q", "t")
		r := login(t, e, v5, "")
		e.store.hold()
		for i := range uint16(10) {
			r.publish("t", "x", 1, i+1)
		}
		eventually(t, "ten in the store", func() bool { return e.store.published() == 10 })
		closed := make(chan error)
		go func() { closed <- e.Close(t.Context()) }()
		eventually(t, "refusal of new connections", func() bool {
			c, err := net.Dial("tcp", e.Addr().String())
			if err == nil {
				_ = c.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
		e.store.open()
		for i := range 10 {
			if head, body := r.packet(); head != 0x40 || body[1] != byte(i+1) {
				t.Fatalf("got %x %x", head, body)
			}
		}
		r.wantEnd(0x8B)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if err := e.Close(t.Context()); err != nil { // again
			t.Error(err)
		}
	}
}

// TestCloseTakesTheAcksThatHaveCome has a client acknowledge just before the stop.
func TestCloseTakesTheAcksThatHaveCome(t *testing.T) {
	dir := t.TempDir()
	e := openDir(t, dir)
	s, _ := keptIn(t, e, true, "s", false, 3600)
	s.subscribe(1, 1, "t")
	e.put(t, "t", "x")
	m := s.recv()
	e.store.hold()
	b := s.publishPacket("x", "x", 0, 0)
	b[0] |= 1
	s.send(append(b, s.subscribePacket(1, 0, nil, "x")...)) // which waits for the commit
	eventually(t, "the commit", func() bool { return e.Stats().Received == 1 })
	s.ackFor(m)
	closed := make(chan error)
	go func() { closed <- e.Close(t.Context()) }()
	eventually(t, "the stop", func() bool { return e.Listeners()[0].Running == false })
	e.store.open()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	e.stop(t)
	e = openDir(t, dir)
	s = resumed(t, e, true, "s")
	s.quiet()
}

func TestCloseIsBounded(t *testing.T) { // B35
	e := open(t)
	e.queue(t, "q", "t")
	stuck(t, e, 0)
	r := login(t, e, true, "")
	e.store.hold()
	for range 100 {
		r.publish("t", strings.Repeat("x", 100_000), 0, 0)
	}
	r.publish("t", "x", 1, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := e.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close answers %v", err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("took %v", took)
	}
}

// TestPanicEndsItsConnectionOnly has a fault of ours below one connection.
func TestPanicEndsItsConnectionOnly(t *testing.T) {
	e := open(t)
	e.queue(t, "q", "t")
	other, r := login(t, e, true, ""), login(t, e, true, "")
	other.subscribe(1, 1, "x")
	e.store.mu.Lock()
	e.store.bang = true
	e.store.mu.Unlock()
	r.publish("t", "secret payload", 1, 1)
	r.wantEnd(0x80)
	other.publish("x", "x", 0, 0)
	other.recv()
	eventually(t, "the end", func() bool { st := e.Stats(); return st.Panics == 1 && st.Open == 1 })
	if s := e.log.String(); !strings.Contains(s, "connection panicked") || strings.Contains(s, "secret payload") {
		t.Errorf("log is %s", s)
	}
}

// TestNothingStaysBehind is X019, and the leak check of many short lives.
func TestNothingStaysBehind(t *testing.T) {
	e := open(t)
	for i := range 300 {
		r := login(t, e, i%2 == 0, fmt.Sprint("c", i%10))
		r.subscribe(1, 1, "t/#")
		switch i % 3 {
		case 0:
			_ = r.Conn.(*net.TCPConn).SetLinger(0) // reset
		case 1:
			r.send([]byte{0xE0, 0})
		}
		_ = r.Close()
	}
	eventually(t, "all gone", func() bool { st := e.Stats(); return st.Open == 0 && st.Waiting == 0 })
	r := login(t, e, true, "")
	r.publish("t/x", "x", 1, 1)
	r.want("40 03 00 01 10") // B9, SB12: no old subscription is left
}

func TestOptionsThatCannotBe(t *testing.T) {
	e := open(t)
	one := []mqtt.Listener{{Address: "127.0.0.1:0"}}
	for want, o := range map[string]mqtt.Options{
		"Options.Broker is missing":      {Listeners: one},
		"ReceiveMaximum is 70000":        {Broker: e.broker, Listeners: one, ReceiveMaximum: 70_000},
		"has a negative limit":           {Broker: e.broker, Listeners: one, Limits: mqtt.Limits{MaxKeepAlive: -1}},
		"listen on " + e.Addr().String(): {Broker: e.broker, Listeners: append(one, mqtt.Listener{Address: e.Addr().String()})},
	} {
		if _, err := mqtt.Listen(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Listen answers %v, want %q", err, want)
		}
	}
}
