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

// aliases are those that one client lets us use towards it. A topic gets one
// when it comes for the second time within a while, so that a client of a
// thousand topics that each come once keeps none of them busy; when all are
// taken, one that was not used lately goes. A connection without aliases has
// none of this.
type aliases struct {
	most  int
	by    map[string]uint16
	names []string // by alias, less 1
	used  []bool   // since the hand came by last
	hand  int
	// seen are hashes of topics that came once, each in the place that it falls on.
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

// choose says how to name a topic, and by which alias. An alias that is
// announced must be assigned once the packet is certain to go out.
func (a *aliases) choose(topic string) (f form, alias uint16) {
	if a == nil || len(topic) <= aliasCost {
		return byTopic, 0
	}
	if n, ok := a.by[topic]; ok {
		a.used[n-1] = true
		return byAlias, n
	}
	h := maphash.String(a.seed, topic)
	if at := &a.seen[h%uint64(len(a.seen))]; *at != h {
		*at = h
		return byTopic, 0
	}
	if len(a.names) < a.most {
		return announced, uint16(len(a.names) + 1)
	}
	for a.used[a.hand] {
		a.used[a.hand] = false
		a.hand = (a.hand + 1) % a.most
	}
	return announced, uint16(a.hand + 1)
}

// assign gives the alias to a topic.
func (a *aliases) assign(alias uint16, topic string) {
	topic = strings.Clone(topic) // it may share its bytes with a whole read buffer
	i := int(alias) - 1
	if i == len(a.names) {
		a.names, a.used = append(a.names, topic), append(a.used, true)
	} else {
		delete(a.by, a.names[i])
		a.names[i], a.used[i] = topic, true
		a.hand = (i + 1) % a.most
	}
	a.by[topic] = alias
}
