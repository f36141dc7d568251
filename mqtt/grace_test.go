package mqtt_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestQueueMessagesWaitForTheirClient has a client of a durable session come
// back within the grace, and settle what it had under the same packet ids.
func TestQueueMessagesWaitForTheirClient(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprint("qos=", qos), func(t *testing.T) {
			bubble(t, func(t *testing.T, e *edge) {
				e.queue(t, "work", "jobs")
				s, _ := keptPipe(t, e, "c", false, 1000)
				s.subscribe(1, qos, "$q/work")
				e.put(t, "jobs", "one", "two", "three")
				var ms []message
				for range 3 {
					ms = append(ms, s.recv())
				}
				s.settle(ms[1])
				s.ping()
				_ = s.Close()
				<-time.After(29 * time.Second)
				e.wantNow(t, "work", "ready=0 leased=2 delayed=0 dead=0")
				s, _ = keptPipe(t, e, "c", false, 1000)
				for _, m := range []message{ms[0], ms[2]} {
					got := s.recv()
					if got.payload != m.payload || got.id != m.id || !got.dup || got.qos != qos {
						t.Fatalf("got %+v, want %+v again", got, m)
					}
				}
				s.settle(ms[0], ms[2])
				s.ping()
				synctest.Wait()
				e.wantNow(t, "work", "ready=0 leased=0 delayed=0 dead=0")
				e.put(t, "jobs", "four") // the subscription is there again
				if m := s.recv(); m.payload != "four" || m.dup || m.id == ms[1].id {
					t.Errorf("got %+v", m)
				}
			})
		})
	}
}

// wantNow is want where nothing has to be waited for.
func (e *edge) wantNow(tb testing.TB, queue, counts string) {
	tb.Helper()
	if got := e.counts(tb, queue); got != counts {
		tb.Errorf("queue %s has %s, want %s", queue, got, counts)
	}
}

// TestQueueMessagesGoOnAfterTheGrace to others, with their attempts counted. The
// client is told to forget the id of a QoS 2 message when it is back.
func TestQueueMessagesGoOnAfterTheGrace(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprint("qos=", qos), func(t *testing.T) {
			aged(t, func(t *testing.T, e *edge, again func(time.Duration) *edge) {
				e.queue(t, "work", "jobs")
				s, _ := keptPipe(t, e, "c", false, 1000)
				s.subscribe(1, qos, "$q/work")
				e.put(t, "jobs", "one")
				m := s.recv()
				_ = s.Close()
				<-time.After(31 * time.Second)
				synctest.Wait()
				e.wantNow(t, "work", "ready=1 leased=0 delayed=0 dead=0")
				o := pipe(t, e)
				o.v5 = true
				o.begin(connectPacket(true, "other", nil))
				o.subscribe(1, 1, "$q/work")
				if got := o.recv(); users(got.props)["delivery-count"] != "2" {
					t.Errorf("got %+v", got)
				}
				go drainRaw(o)
				e = again(0)
				s, _ = keptPipe(t, e, "c", false, 1000)
				if qos == 2 {
					s.want(fmt.Sprintf("62 02 %04x", m.id))
					s.sendHex(fmt.Sprintf("70 03 %04x 92", m.id))
				}
			})
		})
	}
}

// TestEndedSessionHasNoGrace: clean ones, and those that end with their connection.
func TestEndedSessionHasNoGrace(t *testing.T) {
	bubble(t, func(t *testing.T, e *edge) {
		e.queue(t, "work", "jobs")
		s, _ := keptPipe(t, e, "c", false, 1000)
		s.subscribe(1, 1, "$q/work")
		e.put(t, "jobs", "one")
		s.recv()
		s.send([]byte{0xE0, 7, 0, 5, 17, 0, 0, 0, 0})
		_ = s.Close()
		synctest.Wait()
		e.wantNow(t, "work", "ready=1 leased=0 delayed=0 dead=0")
		s, _ = keptPipe(t, e, "c", false, 1000)
		s.subscribe(1, 1, "$q/work")
		s.recv()
		_ = s.Close()
		s, _ = keptPipe(t, e, "c", true, 1000) // Clean Start
		synctest.Wait()
		e.wantNow(t, "work", "ready=1 leased=0 delayed=0 dead=0")
		s.quiet()
	})
}
