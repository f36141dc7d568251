package mqtt_test

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// sessionPacket builds a CONNECT for a session that outlives its connection; in
// 3.1.1 expiry only says whether it does.
func sessionPacket(v5 bool, id string, clean bool, expiry uint32, props ...byte) []byte {
	if expiry > 0 {
		props = append(binary.BigEndian.AppendUint32([]byte{17}, expiry), props...)
	}
	b := connectPacket(v5, id, props)
	at := len(b) - len(id) - 2
	if v5 {
		at -= 1 + len(props)
	}
	if !clean {
		b[at-3] &^= 2 // flags, before keep alive
	}
	return b
}

// keptIn connects a client with such a session and reads its CONNACK.
func keptIn(tb testing.TB, e *edge, v5 bool, id string, clean bool, expiry uint32, props ...byte) (r *raw, present bool) {
	tb.Helper()
	r = dial(tb, e)
	r.v5 = v5
	return r, r.begin(sessionPacket(v5, id, clean, expiry, props...))
}

// keptPipe is keptIn for a bubble.
func keptPipe(tb testing.TB, e *edge, id string, clean bool, expiry uint32, props ...byte) (r *raw, present bool) {
	tb.Helper()
	r = pipe(tb, e)
	r.v5 = true
	return r, r.begin(sessionPacket(true, id, clean, expiry, props...))
}

// begin sends a CONNECT that is accepted, and says whether the session was there.
func (r *raw) begin(packet []byte) (present bool) {
	r.t.Helper()
	r.send(packet)
	head, body := r.packet()
	if head != 0x20 || body[1] != 0 {
		r.t.Fatalf("CONNACK is %x %x", head, body)
	}
	return body[0] == 1
}

// resumed connects a client that was here before.
func resumed(tb testing.TB, e *edge, v5 bool, id string) *raw {
	tb.Helper()
	r, present := keptIn(tb, e, v5, id, false, 3600)
	if !present {
		tb.Fatal("session present is 0")
	}
	return r
}

// gone waits until no client is connected.
func (e *edge) gone(tb testing.TB) {
	tb.Helper()
	eventually(tb, "the end of all connections", func() bool { return e.Stats().Open == 0 })
}

func TestKeptMessagesComeAfterReconnectAndRestart(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		for _, qos := range []byte{1, 2} {
			t.Run(fmt.Sprintf("v5=%v/qos=%d", v5, qos), func(t *testing.T) {
				dir := t.TempDir()
				e := openDir(t, dir)
				s, present := keptIn(t, e, v5, "sub", false, 3600)
				if present {
					t.Fatal("a session that never was is present")
				}
				s.subscribe(1, qos, "k/#")
				e.put(t, "k/0", "live")
				live := s.recv()
				if live.payload != "live" || live.qos != qos || live.dup {
					t.Fatalf("got %+v", live)
				}
				_ = s.Close()
				e.gone(t)
				e.put(t, "k/1", "one", "two")
				s = resumed(t, e, v5, "sub")
				if m := s.recv(); m.payload != "live" || !m.dup || m.id != live.id {
					t.Fatalf("got %+v, want %+v again", m, live)
				}
				for _, want := range []string{"one", "two"} {
					if m := s.recv(); m.payload != want || m.dup || m.qos != qos {
						t.Fatalf("got %+v, want %s", m, want)
					}
				}
				_ = s.Close()
				e.gone(t)
				e.put(t, "k/2", "three")
				e.stop(t)

				e = openDir(t, dir)
				s = resumed(t, e, v5, "sub")
				var got []message
				for i, want := range []string{"live", "one", "two", "three"} {
					m := s.recv()
					if m.payload != want || m.dup != (i < 3) || m.qos != qos {
						t.Fatalf("got %+v, want %s", m, want)
					}
					got = append(got, m)
				}
				s.settle(got...)
				s.ping()
				s = resumed(t, e, v5, "sub")
				s.quiet()
			})
		}
	}
}

// settle acknowledges messages in the way of their QoS.
func (r *raw) settle(ms ...message) {
	r.t.Helper()
	for _, m := range ms {
		id := []byte{byte(m.id >> 8), byte(m.id)}
		if m.qos < 2 {
			r.ackFor(m)
			continue
		}
		r.send(append([]byte{0x50, 2}, id...))
		if head, body := r.packet(); head != 0x62 || string(body[:2]) != string(id) {
			r.t.Fatalf("got %x %x, want PUBREL %x", head, body, id)
		}
		r.send(append([]byte{0x70, 2}, id...))
	}
}
