package mqtt_test

import (
	"bytes"
	"fmt"
	"strconv"
	"testing"
	"time"

	"millrace/broker"
	"millrace/mqtt"
)

// TestAClientThatAcknowledgesLateGetsItsWindow has more waiting than the output
// holds, and a client that answers when its window is full.
func TestAClientThatAcknowledgesLateGetsItsWindow(t *testing.T) {
	const n = 200
	e := open(t, func(o *mqtt.Options) { o.MaxOutput = 64 << 10 })
	s, _ := keptIn(t, e, false, "s", false, 3600)
	s.subscribe(1, 1, "t")
	e.offline(t, s)
	e.put(t, "t", slicesOf(n, bytes.Repeat([]byte("x"), 8<<10))...)
	s = resumed(t, e, false, "s")
	for range n {
		s.recv()
	}
	s.quiet()
}

// slicesOf is n times the text.
func slicesOf(n int, text []byte) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = string(text)
	}
	return all
}

// flood publishes n messages to t, numbered from 0.
func (e *edge) flood(t *testing.T, n int) {
	t.Helper()
	for i := 0; i < n; {
		var ms []*broker.Message
		for ; i < n && len(ms) < 1000; i++ {
			ms = append(ms, &broker.Message{Topic: "t", Payload: strconv.AppendInt(nil, int64(i), 10), QoS: 2})
		}
		if _, err := e.broker.PublishBatch(system(), ms); err != nil {
			t.Fatal(err)
		}
	}
}

// takeAll takes n messages in their order, and acknowledges those of which ack
// says so.
func (r *raw) takeAll(n int, ack func(i int, m message) bool) {
	r.t.Helper()
	next, open := 0, 0 // QoS 2, whose PUBREL is to come
	var answers []byte
	for next < n || open > 0 {
		if r.br.Buffered() == 0 || len(answers) > 400 {
			r.send(answers)
			answers = answers[:0]
		}
		head, body := r.packet()
		switch head >> 4 {
		case 3:
			m := r.parse(head, body)
			if m.payload != strconv.Itoa(next) || m.dup {
				r.t.Fatalf("got %+v, want %d", m, next)
			}
			switch yes := ack(next, m); {
			case yes && m.qos == 1:
				answers = append(answers, 0x40, 2, byte(m.id>>8), byte(m.id))
			case yes:
				answers = append(answers, 0x50, 2, byte(m.id>>8), byte(m.id))
				open++
			}
			next++
		case 6:
			answers = append(answers, 0x70, 2, body[0], body[1])
			open--
		}
	}
	r.send(answers)
}

// TestAMessageWithoutAcknowledgementHoldsNobodyUp has a client that leaves a few
// messages unanswered while more go by than there are packet ids. What then has
// an id that is taken gets another one, which it keeps over a restart.
func TestAMessageWithoutAcknowledgementHoldsNobodyUp(t *testing.T) {
	const n = 50_000
	for qos := byte(1); qos <= 2; qos++ {
		t.Run(fmt.Sprint("qos=", qos), func(t *testing.T) {
			dir := t.TempDir()
			e := openDir(t, dir)
			s, _ := keptIn(t, e, true, "s", false, 3600)
			s.subscribe(1, qos, "t")
			e.offline(t, s)
			e.flood(t, n)
			window := []byte{0x21, 0, 5} // of which four are taken up in the end
			if qos == 2 {
				window = nil
			}
			s, _ = keptIn(t, e, true, "s", false, 3600, window...)
			_ = s.SetDeadline(time.Now().Add(patience))
			left := map[int]uint16{} // unanswered, with its id
			s.takeAll(n, func(i int, m message) bool {
				for other, id := range left {
					if id == m.id {
						t.Fatalf("message %d has the id %d of %d, which is not acknowledged", i, m.id, other)
					}
				}
				if i < 3 || i == 49_152 || i == n-1 { // among them one that got another id
					left[i] = m.id
					return false
				}
				return true
			})
			s.ping()
			e.stop(t)
			e = openDir(t, dir)
			s = resumed(t, e, true, "s")
			var again []message
			for _, i := range []int{0, 1, 2, 49_152, n - 1} {
				m := s.recv()
				if m.payload != strconv.Itoa(i) || !m.dup || m.id != left[i] {
					t.Errorf("got %+v, want %d again under %d", m, i, left[i])
				}
				again = append(again, m)
			}
			s.settle(again...)
			s.ping()
			_ = s.Close()
			e.gone(t)
			if n, err := e.kept(); n != 2 || err != nil { // the session and its backlog
				t.Errorf("%d keys and targets are left, %v", n, err)
			}
		})
	}
}
