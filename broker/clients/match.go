package clients

import (
	"slices"
	"strings"

	"github.com/tidwall/btree"
)

// matching lists the filters that match a topic, MQTT 5 section 4.7. Filters in
// order are a tree already: it is walked by looking up what begins like the
// levels so far, so that the cost goes by the levels and by what matches, not by
// how many filters there are.
func matching[V any](filters *btree.Map[string, V], topic string) []string {
	m := matcher[V]{filters: filters, levels: strings.Split(topic, "/")}
	// Section 4.7.2: wildcards in the first place do not match what begins with $.
	m.walk("", 0, !strings.HasPrefix(topic, "$"))
	slices.Sort(m.found)
	return slices.Compact(m.found)
}

type matcher[V any] struct {
	filters *btree.Map[string, V]
	levels  []string
	found   []string
}

// walk looks below prefix, which is empty or ends with a slash, for the levels
// from i on.
func (m *matcher[V]) walk(prefix string, i int, wild bool) {
	if wild {
		m.take(prefix + "#")
		m.step(prefix+"+", i)
	}
	if level := m.levels[i]; !wild || level != "+" {
		m.step(prefix+level, i)
	}
}

// step goes on behind a level.
func (m *matcher[V]) step(filter string, i int) {
	if i+1 < len(m.levels) {
		if m.begins(filter + "/") {
			m.walk(filter+"/", i+1, true)
		}
		return
	}
	m.take(filter)
	m.take(filter + "/#") // it matches its parent too
}

func (m *matcher[V]) take(filter string) {
	if _, there := m.filters.Get(filter); there {
		m.found = append(m.found, filter)
	}
}

// begins reports whether any filter begins with prefix.
func (m *matcher[V]) begins(prefix string) (yes bool) {
	m.filters.Ascend(prefix, func(filter string, _ V) bool {
		yes = strings.HasPrefix(filter, prefix)
		return false
	})
	return yes
}
