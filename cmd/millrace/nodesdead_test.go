package main_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"millrace/cmd/millrace/wire"
)

// groupMember is a device with a durable session in a shared subscription.
type groupMember struct {
	id   string
	lazy bool // acknowledges nothing

	mu    sync.Mutex
	got   map[string]int
	acked int // acknowledgements that were sent
}

func joinGroup(t *testing.T, s *server, id string, lazy bool) *groupMember {
	t.Helper()
	m := &groupMember{id: id, lazy: lazy, got: map[string]int{}}
	c := m.connect(t, s)
	if err := c.Subscribe("$share/g/shared/#", 1); err != nil {
		t.Fatal(err)
	}
	m.listen(t, c)
	return m
}

// connect is answered when all is recorded that was acknowledged before.
func (m *groupMember) connect(t *testing.T, s *server) *wire.Conn {
	t.Helper()
	c, err := wire.Dial(t.Context(), s.ports["mqtt"], wire.Login{ClientID: m.id, User: testKeyID, Password: testSecret, Keep: true})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (m *groupMember) listen(t *testing.T, c *wire.Conn) {
	t.Helper()
	var reader sync.WaitGroup
	reader.Go(func() { m.read(c) })
	t.Cleanup(func() { _ = c.Close(); reader.Wait() })
}

func (m *groupMember) read(c *wire.Conn) {
	for {
		p, err := c.Read1()
		if err != nil {
			return
		}
		if p.Type != wire.Publish {
			continue
		}
		_, id, payload, _ := p.Message()
		m.mu.Lock()
		m.got[string(payload)]++
		m.mu.Unlock()
		if m.lazy {
			continue
		}
		if _, err := c.Write(wire.AppendAck(nil, wire.Puback, id)); err == nil { // the next read tells
			m.mu.Lock()
			m.acked++
			m.mu.Unlock()
		}
	}
}

// sent reports whether it has acknowledged all that it got.
func (m *groupMember) sent() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acked == len(m.got)
}

func (m *groupMember) has() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.got)
}

// TestTheDevicesOfDeadNodes has two of three nodes killed at once, the one that leads
// and one that follows. The will of every device of theirs is published once; a shared
// subscription gives each message to one member, and goes on with those that are left.
func TestTheDevicesOfDeadNodes(t *testing.T) {
	t.Parallel() // it waits more than it works
	f := startNodes(t, "a", "b", "c")
	leader := f.leader()
	names := slices.DeleteFunc(slices.Clone(f.names), func(n string) bool { return n == leader })
	dead, alive := []string{leader, names[0]}, f.at(names[1])

	heard := make(chan string, 100)
	listener, err := dial(alive, "listener", true)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Disconnect(0)
	if token := listener.Subscribe("e/will/#", 1, func(_ paho.Client, m paho.Message) { heard <- m.Topic() }); !token.WaitTimeout(20*time.Second) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	want := map[string]int{}
	for _, name := range f.names {
		for _, keep := range []bool{false, true} {
			id := fmt.Sprintf("%s-%v", name, keep)
			c, err := wire.Dial(t.Context(), f.at(name).ports["mqtt"], wire.Login{
				ClientID: id, User: testKeyID, Password: testSecret, Keep: keep, WillTopic: "e/will/" + id, WillPayload: id,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if slices.Contains(dead, name) {
				want["e/will/"+id] = 1
			}
		}
	}
	members := map[string]*groupMember{}
	for _, name := range f.names {
		members[name] = joinGroup(t, f.at(name), "member-"+name, slices.Contains(dead, name))
	}
	api := newService(alive)
	share := func(n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf("%d-%d", n, i))
			if err := api.publish(t.Context(), "shared/x", all[i]); err != nil {
				t.Fatal(err)
			}
		}
		return all
	}
	before := share(60)
	whole := func() map[string]int {
		sum := map[string]int{}
		for _, m := range members {
			for text, n := range m.has() {
				sum[text] += n
			}
		}
		return sum
	}
	if !eventually(time.Minute, func() bool { return len(whole()) == len(before) }) {
		t.Errorf("of %d messages %d came", len(before), len(whole()))
	}
	for text, n := range whole() {
		if n != 1 {
			t.Errorf("%s came to %d members", text, n)
		}
	}
	held := map[string]bool{}
	for name, m := range members {
		if len(m.has()) == 0 {
			t.Errorf("the member at %s got nothing", name)
		}
		for text := range m.has() {
			held[text] = m.lazy
		}
	}
	left := members[names[1]]
	if !eventually(time.Minute, left.sent) {
		t.Error("the member that is left does not acknowledge what it has")
	}
	left.listen(t, left.connect(t, alive))
	had := len(left.has())
	if !eventually(time.Minute, func() bool { // its group has it again
		if err := api.publish(t.Context(), "shared/x", "between"); err != nil {
			t.Error(err)
		}
		return len(left.has()) > had
	}) {
		t.Error("the member that came again gets nothing")
	}

	for _, name := range dead {
		f.down(name).kill()
	}
	begun := time.Now()
	got := map[string]int{}
	for len(got) < len(want) {
		select {
		case topic := <-heard:
			got[topic]++
		case <-time.After(time.Minute):
			t.Fatalf("of the wills %v only %v came", want, got)
		}
	}
	t.Logf("all wills came %s after the death", time.Since(begun).Round(time.Millisecond))
	after := share(30)
	if !eventually(time.Minute, func() bool {
		has := left.has()
		return !slices.ContainsFunc(after, func(text string) bool { return has[text] == 0 })
	}) {
		t.Error("messages of after the death did not all come to who is left")
	}
	if fromEnv(t, "MILLRACE_NODES_ROUNDS", 0) > 0 { // the lease of what the dead had is a minute
		if !eventually(2*time.Minute, func() bool {
			has := left.has()
			for text, lazy := range held {
				if lazy && has[text] == 0 {
					return false
				}
			}
			return true
		}) {
			t.Error("what the dead members had did not come to who is left")
		}
	}
	for text, lazy := range held {
		if n := left.has()[text]; !lazy && n != 1 {
			t.Errorf("%s came %d times to the member that acknowledged it", text, n)
		}
	}
	// In the queue, which is durable, each will stands once as well.
	stored := map[string]int{}
	if !eventually(time.Minute, func() bool {
		hs, err := api.consume(t.Context(), "e", 100, 1, 60)
		if err != nil {
			return false
		}
		for _, h := range hs {
			stored["e/will/"+string(h.bytes())]++
			_ = api.ack(t.Context(), "e", h) // else it comes again, and is counted twice
		}
		return len(stored) >= len(want)
	}) || !maps.Equal(stored, want) {
		t.Errorf("the queue has the wills %v, want %v", stored, want)
	}
	for {
		select {
		case topic := <-heard:
			got[topic]++
			continue
		default:
		}
		break
	}
	if !maps.Equal(got, want) {
		t.Errorf("the wills %v came, want %v", got, want)
	}
	for topic := range got {
		if strings.Contains(topic, names[1]) {
			t.Errorf("the will %s of a device that is connected came", topic)
		}
	}
}
