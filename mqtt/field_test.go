package mqtt_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"millrace/mqtt"
)

// TestClientIDsNameNoFiles has sessions of clients whose ids are paths.
func TestClientIDsNameNoFiles(t *testing.T) { // X041
	above := t.TempDir()
	dir := filepath.Join(above, "a", "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ids := []string{"../../x", "..", "/etc/x", "a/../../b", `..\x`}
	e := openDir(t, dir)
	for _, id := range ids {
		s, _ := keptIn(t, e, true, id, false, 3600)
		s.subscribe(1, 1, "t")
	}
	e.stop(t)
	e = openDir(t, dir)
	e.put(t, "t", "x")
	for _, id := range ids {
		if m := resumed(t, e, true, id).recv(); m.payload != "x" {
			t.Errorf("%s got %+v", id, m)
		}
	}
	for _, in := range []string{above, filepath.Dir(dir)} {
		if found, err := os.ReadDir(in); len(found) != 1 || err != nil {
			t.Errorf("in %s are %v, %v", in, found, err)
		}
	}
}

// TestAnAliasGivesNoRightThatIsGone publishes by an alias that was set while its
// topic was allowed.
func TestAnAliasGivesNoRightThatIsGone(t *testing.T) { // X096
	e := open(t)
	r := login(t, e, true, "")
	r.publish("t", "x", 1, 1, 0x23, 0, 1)
	r.want("40 03 00 01 10")
	e.rules(t, deny("publish", "t"))
	r.publish("", "y", 1, 2, 0x23, 0, 1)
	r.want("40 03 00 02 87")
}

// TestNoAckBeforeASessionHasIt is TestNoAckBeforeTheCommit for a message that
// matches a client who is away, and nothing else.
func TestNoAckBeforeASessionHasIt(t *testing.T) { // SB5, F3
	dir := t.TempDir()
	e := openDir(t, dir)
	s, _ := keptIn(t, e, true, "s", false, 3600)
	s.subscribe(1, 2, "t")
	e.offline(t, s)
	r := login(t, e, true, "")
	e.store.hold()
	r.publish("t", "one", 1, 1)
	r.publish("t", "two", 2, 2)
	eventually(t, "the publishes in the store", func() bool { return e.store.published() == 2 })
	r.quiet()
	e.store.open()
	r.want("40 02 00 01", "50 02 00 02")
	e.stop(t)
	e = openDir(t, dir)
	s = resumed(t, e, true, "s")
	for _, want := range []string{"one", "two"} {
		if m := s.recv(); m.payload != want {
			t.Errorf("got %+v, want %s", m, want)
		}
	}
}

// TestDeclaredLengthsAllocateNothing has many clients that say how much they
// will send, and send little of it.
func TestDeclaredLengthsAllocateNothing(t *testing.T) { // X004, SB2
	const n = 50
	e := open(t, silent)
	login(t, e, false, "first")
	big := append([]byte{0x30, 0x80, 0x80, 0x80, 0x02}, 0, 1, 't') // 4 MiB follow, it says
	before := memory()
	for i := range n {
		r := login(t, e, false, fmt.Sprint("c", i))
		r.ping()
		r.send(big)
		early := dial(t, e)
		early.sendHex("10 FF FF FF 7F 00 04 4D 51 54 54 04 02 00 3C 00 01 61")
		early.wantEnd(0)
		_ = early.Close()
	}
	eventually(t, "the end of those that did not log in", func() bool { return e.Stats().Refused["quota"] == n })
	if heap, _ := memory().sub(before); int64(heap) > n*(40<<10) { // with what the connections and clients have anyway
		t.Errorf("%d bytes each", int64(heap)/n)
	}
}

// TestPublishersAcksAndSubscriptionsDoNotLockUp has a small window filled by
// several publishers and emptied by acks, while the client subscribes.
func TestPublishersAcksAndSubscriptionsDoNotLockUp(t *testing.T) { // B14, SB8
	const publishers, each = 4, 1000
	e := open(t)
	s := dial(t, e)
	s.v5 = true
	s.send(connectPacket(true, "s", []byte{0x21, 0, 5}))
	s.packet()
	s.subscribe(1, 1, "t/#")
	_ = s.SetDeadline(time.Now().Add(time.Minute))
	var all sync.WaitGroup
	for p := range publishers {
		r := login(t, e, true, fmt.Sprint("p", p))
		_ = r.SetDeadline(time.Now().Add(time.Minute))
		all.Go(func() {
			for i := range uint16(each) {
				if _, err := r.Write(r.publishPacket(fmt.Sprint("t/", p), strconv.Itoa(int(i)), 1, i+1)); err != nil {
					t.Error(err)
					return
				}
			}
			for range each {
				if _, _, err := r.read(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	next := map[string]int{}
	for got := 0; got < publishers*each; {
		head, body := s.packet()
		if head>>4 != 3 {
			continue // SUBACK
		}
		m := s.parse(head, body)
		if m.payload != strconv.Itoa(next[m.topic]) {
			t.Fatalf("got %+v, want %d", m, next[m.topic])
		}
		next[m.topic]++
		s.ackFor(m)
		if got++; got%50 == 0 {
			s.send(s.subscribePacket(uint16(got), 1, nil, fmt.Sprint("other/", got)))
		}
	}
	all.Wait()
}

// TestASubscriberThatFlapsMissesNothing has a message every third of a second, and
// a client that comes and goes every ten. What it acknowledged does not come
// again, and it costs next to nothing: 0.1 % of a processor, more where the
// detector of races watches.
func TestASubscriberThatFlapsMissesNothing(t *testing.T) { // F24
	const life, beat = 10 * time.Minute, time.Second / 3
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := openWith(t, dir, mqtt.Bare, silent)
		r := pipeIn(t, e, true, "p")
		start, spent, sent := time.Now(), cpu(), 0
		next := 0
		for time.Since(start) < life {
			s, _ := keptPipe(t, e, "s", false, 3600)
			if next == 0 && sent == 0 {
				s.subscribe(1, 1, "t")
			}
			for range 15 {
				r.publish("t", strconv.Itoa(sent), 1, 1)
				r.packet()
				sent++
				<-time.After(beat)
				for ; next < sent; next++ {
					m := s.recv()
					if m.payload != strconv.Itoa(next) || m.dup {
						t.Fatalf("got %+v, want %d", m, next)
					}
					s.ackFor(m)
				}
			}
			s.ping()
			_ = s.Close()
			for range 15 {
				<-time.After(beat)
				r.publish("t", strconv.Itoa(sent), 1, 1)
				r.packet()
				sent++
			}
		}
		dropped := int64(0)
		for _, n := range e.Stats().Dropped {
			dropped += n
		}
		share := float64(cpu()-spent) / float64(life)
		t.Logf("%d messages: %.4f of a processor", sent, share)
		if dropped > 0 || share > 0.05 {
			t.Errorf("%d dropped, %.4f of a processor spent", dropped, share)
		}
	})
}
