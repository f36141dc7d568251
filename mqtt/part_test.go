package mqtt_test

import (
	"fmt"
	"testing"
)

// TestPartOfAQueue is the selective form of a queue: a client gets what its
// filter matches, in order, under the topic that tells where it comes from.
func TestPartOfAQueue(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		for _, form := range []string{"$q/work", "$queue/work", "$share/g/$q/work"} {
			e := open(t)
			e.queue(t, "work", "jobs/#")
			e.put(t, "jobs/b/1", "b1") // before anybody asks
			e.put(t, "jobs/a/1", "a1")
			s, all := login(t, e, v5, ""), login(t, e, v5, "")
			if got := s.subscribe(1, 1, form+"/jobs/a/+"); got[0] != 1 {
				t.Fatalf("SUBACK is %x", got)
			}
			m := s.recv()
			topic := form[len(form)-len("$q/work"):]
			if form == "$queue/work" {
				topic = form
			}
			if m.topic != topic+"/jobs/a/1" || m.payload != "a1" {
				t.Errorf("got %+v", m)
			}
			s.ackFor(m)
			e.put(t, "jobs/b/2", "b2")
			e.put(t, "jobs/a/2", "a2")
			m = s.recv()
			if m.payload != "a2" {
				t.Errorf("got %+v", m)
			}
			s.quiet()
			all.subscribe(1, 1, "$q/work")
			for _, want := range []string{"b1", "b2"} {
				got := all.recv()
				if got.payload != want {
					t.Errorf("the other got %+v, want %s", got, want)
				}
				all.ackFor(got)
			}
			all.quiet()
			s.ackFor(m)
			e.want(t, "work", "ready=0 leased=0 delayed=0 dead=0")
		}
	}
}

// TestPartsOfAQueueForManyDevices is a queue of commands, of which every device
// takes its own.
func TestPartsOfAQueueForManyDevices(t *testing.T) {
	e := open(t)
	e.queue(t, "commands", "cmd/#")
	const devices, each = 20, 10
	for i := range each {
		for d := range devices {
			e.put(t, fmt.Sprint("cmd/", d), fmt.Sprint(d, "-", i))
		}
	}
	var ss []*raw
	for d := range devices {
		s := login(t, e, d%2 == 0, fmt.Sprint("device", d))
		s.subscribe(1, 1, fmt.Sprint("$q/commands/cmd/", d))
		ss = append(ss, s)
	}
	for d, s := range ss {
		for i := range each {
			m := s.recv()
			if want := fmt.Sprint(d, "-", i); m.payload != want {
				t.Fatalf("device %d got %q, want %q", d, m.payload, want)
			}
			s.ackFor(m)
		}
	}
	e.want(t, "commands", "ready=0 leased=0 delayed=0 dead=0")
}

// TestPartOfAQueueIsResumed keeps the subscription and the leases of a durable
// session, and gives back what it refuses to itself.
func TestPartOfAQueueIsResumed(t *testing.T) {
	e := open(t)
	e.queue(t, "todo", "jobs/#")
	s, _ := keptIn(t, e, true, "s", false, 1000)
	s.subscribe(1, 1, "$q/todo/jobs/a")
	e.put(t, "jobs/b", "other")
	e.put(t, "jobs/a", "one")
	first := s.recv()
	_ = s.Close()
	e.put(t, "jobs/a", "two")
	s = resumed(t, e, true, "s")
	again := s.recv()
	if again.payload != "one" || !again.dup || again.id != first.id {
		t.Errorf("resumed with %+v after %+v", again, first)
	}
	two := s.recv()
	if two.payload != "two" || two.topic != "$q/todo/jobs/a" {
		t.Errorf("then got %+v", two)
	}
	s.ackFor(again)
	s.ackFor(two)
	s.quiet()
	e.want(t, "todo", "ready=1 leased=0 delayed=0 dead=0")
}
