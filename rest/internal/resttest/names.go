package resttest

import (
	"regexp"
	"strconv"
)

// Names stand for values that differ from run to run.
type Names struct {
	names map[string]string // of real values
	real  map[string]string // of names
}

func newNames() *Names { return &Names{names: map[string]string{}, real: map[string]string{}} }

// Of returns the name of a value, as in "receipt_1": a new one if the value was
// not seen before.
func (n *Names) Of(kind, value string) string {
	name, known := n.names[value]
	for i := 1; !known; i++ {
		name = kind + "_" + strconv.Itoa(i)
		if _, taken := n.real[name]; !taken {
			n.names[value], n.real[name] = name, value
			known = true
		}
	}
	return name
}

var name = regexp.MustCompile(`\b[a-z]+_\d+\b`)

// restore puts the values back where names of them stand.
func (n *Names) restore(text string) string {
	return name.ReplaceAllStringFunc(text, func(s string) string {
		if v, ok := n.real[s]; ok {
			return v
		}
		return s
	})
}
