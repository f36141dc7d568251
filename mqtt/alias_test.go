package mqtt_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// aliased reads PUBLISH packets as a client with aliases does.
type aliased struct {
	*raw
	known map[uint16]string
	most  uint16
}

// next returns the topic of the next PUBLISH, and the bytes that its name took:
// of topic and alias.
func (a *aliased) next() (topic, payload string, name int) {
	a.t.Helper()
	head, body := a.packet()
	if head != 0x30 {
		a.t.Fatalf("got %x, want a PUBLISH of QoS 0", head)
	}
	n := int(binary.BigEndian.Uint16(body))
	topic, name = string(body[2:2+n]), n
	block := int(body[2+n])
	props, payload := body[3+n:3+n+block], string(body[3+n+block:])
	if len(props) == 0 {
		return topic, payload, name
	}
	if len(props) != 3 || props[0] != 35 {
		a.t.Fatalf("properties are %x", props)
	}
	alias := binary.BigEndian.Uint16(props[1:])
	switch {
	case alias == 0 || alias > a.most:
		a.t.Fatalf("alias %d of %d", alias, a.most)
	case topic == "":
		if topic = a.known[alias]; topic == "" {
			a.t.Fatalf("alias %d is not known", alias)
		}
	default:
		a.known[alias] = topic
	}
	return topic, payload, name + 3
}

func openAliased(t *testing.T, most uint16) (*aliased, *raw) {
	t.Helper()
	e := open(t)
	r := dial(t, e)
	r.v5 = true
	r.send(connectPacket(true, "sub", binary.BigEndian.AppendUint16([]byte{34}, most)))
	if head, body := r.packet(); head != 0x20 || body[1] != 0 {
		t.Fatalf("CONNACK is %x %x", head, body)
	}
	r.subscribe(1, 0, "#")
	return &aliased{r, map[uint16]string{}, most}, login(t, e, true, "pub")
}

func TestTopicsGetAnAlias(t *testing.T) { // section 3.3.2.3.4
	sub, pub := openAliased(t, 2)
	for i, row := range []struct {
		topic string
		name  int
	}{
		{"site/7/pump", 14},
		{"site/7/pump", 3},
		{"abc", 3},
		{"abc", 3}, // an alias is no shorter
		{"site/7/door", 14},
		{"site/7/door", 3},
		{"site/7/pump", 3},
		{"site/7/lamp", 11}, // all are taken, and this one may come once only
		{"site/7/lamp", 14}, // in the place of one of the two
		{"site/7/lamp", 3},
	} {
		pub.publish(row.topic, fmt.Sprint(i), 0, 0)
		if topic, payload, name := sub.next(); topic != row.topic || payload != fmt.Sprint(i) || name != row.name {
			t.Errorf("message %d came as %s %s in %d bytes, want %s in %d", i, topic, payload, name, row.topic, row.name)
		}
	}
}

func TestAliasesNameTheRightTopic(t *testing.T) {
	for most, atLeast := range map[uint16]int{1: -500, 2: -500, 5: 500, 65535: 5000} {
		sub, pub := openAliased(t, most)
		sub.most = min(most, 32)
		topics, saved := rand.New(rand.NewPCG(1, 2)), 0
		for i := range 2000 {
			want := fmt.Sprintf("topic/%d", int(topics.ExpFloat64()*8))
			pub.publish(want, fmt.Sprint(i), 0, 0)
			topic, payload, name := sub.next()
			if topic != want || payload != fmt.Sprint(i) {
				t.Fatalf("message %d of %s came as %s %s", i, want, topic, payload)
			}
			saved += len(want) - name
		}
		if saved < atLeast {
			t.Errorf("with %d aliases %d bytes were saved", most, saved)
		}
	}
}

func TestNoAliasUnasked(t *testing.T) {
	sub, pub := openAliased(t, 0)
	for range 5 {
		pub.publish("site/7/pump", "", 0, 0)
		if _, _, name := sub.next(); name != 11 {
			t.Fatalf("the name took %d bytes", name)
		}
	}
}

// TestAliasesInAFanOut has subscribers with and without aliases, identifiers
// and versions get the same messages.
func TestAliasesInAFanOut(t *testing.T) {
	e := open(t)
	pub := login(t, e, true, "pub")
	var subs []*aliased
	for i, most := range []uint16{0, 1, 3, 3} {
		r := dial(t, e)
		r.v5 = true
		r.send(connectPacket(true, fmt.Sprint("s", i), binary.BigEndian.AppendUint16([]byte{34}, most)))
		r.packet()
		r.subscribe(1, 0, "#")
		subs = append(subs, &aliased{r, map[uint16]string{}, most})
	}
	old := login(t, e, false, "old")
	old.subscribe(1, 0, "#")
	for i := range 200 {
		want := fmt.Sprintf("topic/%d", i*i%5)
		pub.publish(want, fmt.Sprint(i), 0, 0)
		for _, s := range subs {
			if topic, payload, _ := s.next(); topic != want || payload != fmt.Sprint(i) {
				t.Fatalf("message %d of %s came as %s %s", i, want, topic, payload)
			}
		}
		if m := old.recv(); m.topic != want {
			t.Fatalf("message %d came as %+v", i, m)
		}
	}
}

func TestQoS2AlwaysNamesItsTopic(t *testing.T) {
	sub, pub := openAliased(t, 2)
	sub.subscribe(2, 2, "site/#")
	for i, name := range []string{"site/7/pump", "site/7/pump", "site/7/pump"} {
		pub.publish(name, "x", 2, uint16(i+1))
		if m := sub.recv(); m.topic != name || len(m.props) != 3 || m.props[2] != 1 {
			t.Errorf("message %d is %+v", i, m)
		}
	}
}
