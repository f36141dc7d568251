package mqtt

import (
	"hash/maphash"
	"strings"
)

// form is how a PUBLISH names its topic, MQTT 5 section 3.3.2.3.4.
type form uint8

const (
	byTopic   form = iota // without an alias
	announced             // topic and alias: from now on the alias means it
	byAlias               // alias alone
	forms
)

// aliasCost is what an alias takes: a topic that is no longer gains nothing.
const aliasCost = 3

// aliases are those that one client lets us use towards it. Topics get them as
// they come. When all are taken, a topic that comes for the second time within
// a while takes one that was not used lately, so that topics that come once
// each do not drive out those that come often. A connection without aliases has
// none of this.
type aliases struct {
	most  int
	by    map[string]uint16
	names []string // by alias, less 1
	used  []bool   // since the hand came by last
	hand  int
	// seen are hashes of topics without an alias that came, each in the place that it falls on.
	seen []uint64
	seed maphash.Seed
}

// newAliases returns nil where the client or we want none.
func newAliases(most int) *aliases {
	if most == 0 {
		return nil
	}
	return &aliases{most: most, by: map[string]uint16{}, seen: make([]uint64, 2*most), seed: maphash.MakeSeed()}
}

// choose says how to name the topic of a message, and by which alias. An alias
// that is announced must be assigned once the packet is certain to go out. With
// QoS 2 the topic always comes along: MQTT.js has forgotten it when PUBREL comes.
func (a *aliases) choose(topic string, qos byte) (f form, alias uint16) {
	if a == nil || len(topic) <= aliasCost {
		return byTopic, 0
	}
	if n, ok := a.by[topic]; ok {
		a.used[n-1] = true
		if qos == 2 {
			return announced, n
		}
		return byAlias, n
	}
	if len(a.names) < a.most {
		return announced, uint16(len(a.names) + 1)
	}
	h := maphash.String(a.seed, topic)
	if at := &a.seen[h%uint64(len(a.seen))]; *at != h {
		*at = h
		return byTopic, 0
	}
	for a.used[a.hand] {
		a.used[a.hand] = false
		a.hand = (a.hand + 1) % a.most
	}
	return announced, uint16(a.hand + 1)
}

// assign gives the alias to a topic.
func (a *aliases) assign(alias uint16, topic string) {
	i := int(alias) - 1
	if i < len(a.names) && a.names[i] == topic {
		return
	}
	topic = strings.Clone(topic) // it may share its bytes with a whole read buffer
	if i == len(a.names) {
		a.names, a.used = append(a.names, topic), append(a.used, true)
	} else {
		delete(a.by, a.names[i])
		a.names[i], a.used[i] = topic, true
		a.hand = (i + 1) % a.most
	}
	a.by[topic] = alias
}
