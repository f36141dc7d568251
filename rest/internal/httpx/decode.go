package httpx

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
)

// Limits of a JSON text.
const (
	maxDepth   = 32
	maxMembers = 256
)

// Unknown says what becomes of a member that the dialect does not know.
type Unknown bool

// The choices.
const (
	RefuseUnknown Unknown = false
	IgnoreUnknown Unknown = true
)

// A Decoder reads one JSON text, more strictly than encoding/json: it takes
// member names as they are spelled, and refuses a member given twice, a byte
// order mark, text that is not UTF-8, lone surrogates, depth over 32 and
// objects of more than 256 members. Dialects read their bodies with it by
// hand, without reflection. Its errors are *broker.Error of kind Invalid that
// name the field, as in "messages[3].payload must be a string, not a number".
type Decoder struct {
	data    []byte
	pos     int
	depth   int
	unknown Unknown
	names   [][]byte // members met so far, of all open objects
	scratch []byte   // the last string that had to be rewritten
}

var decoders = sync.Pool{New: func() any { return new(Decoder) }}

// Decode hands the one value in data to read.
func Decode(data []byte, unknown Unknown, read func(d *Decoder) error) error {
	d := decoders.Get().(*Decoder)
	defer d.free()
	d.data, d.unknown = data, unknown
	if err := read(d); err != nil {
		return atRoot(err)
	}
	if d.space(); d.pos < len(d.data) {
		return d.syntax("goes on after its end")
	}
	return nil
}

func (d *Decoder) free() {
	const maxScratch = 64 << 10
	clear(d.names[:cap(d.names)])
	if *d = (Decoder{names: d.names[:0], scratch: d.scratch}); cap(d.scratch) > maxScratch {
		d.scratch = nil
	}
	decoders.Put(d)
}

// Object reads an object; member must read the value of each of its members.
// The name is valid during the call only.
func (d *Decoder) Object(member func(name []byte) error) error {
	if err := d.open('{', "an object"); err != nil {
		return err
	}
	first := len(d.names)
	var set map[string]struct{}
	for n := 0; ; n++ {
		if more, err := d.more('}', n); err != nil || !more {
			d.names = d.names[:first]
			return err
		}
		if n == maxMembers {
			return problem("has more than %d members", maxMembers)
		}
		name, err := d.name()
		if err != nil {
			return err
		}
		if set, err = d.unique(name, first, set); err != nil {
			return err
		}
		if err := member(name); err != nil {
			return within(string(name), err)
		}
	}
}

// unique refuses a name that the object had before. It compares with each
// while they are few; then a set keeps the work linear.
func (d *Decoder) unique(name []byte, first int, set map[string]struct{}) (map[string]struct{}, error) {
	const few = 16
	for _, n := range d.names[first:min(len(d.names), first+few)] {
		if bytes.Equal(n, name) {
			return set, within(string(name), problem("is given twice"))
		}
	}
	if len(d.names)-first >= few {
		if _, ok := set[string(name)]; ok {
			return set, within(string(name), problem("is given twice"))
		}
		if set == nil {
			set = map[string]struct{}{}
		}
		set[string(name)] = struct{}{}
	}
	d.names = append(d.names, name)
	return set, nil
}

// Array reads an array; element must read each of its elements.
func (d *Decoder) Array(element func(i int) error) error {
	if err := d.open('[', "an array"); err != nil {
		return err
	}
	for i := 0; ; i++ {
		if more, err := d.more(']', i); err != nil || !more {
			return err
		}
		if err := element(i); err != nil {
			return within("["+strconv.Itoa(i)+"]", err)
		}
	}
}

// Unknown is what the caller of Object returns for a name it does not know.
func (d *Decoder) Unknown() error {
	if d.unknown == IgnoreUnknown {
		return d.Skip()
	}
	return problem("is not known here")
}

// Raw reads any value and returns it as it is written, valid while the body is.
func (d *Decoder) Raw() ([]byte, error) {
	d.space()
	start := d.pos
	if err := d.Skip(); err != nil {
		return nil, err
	}
	return d.data[start:d.pos], nil
}

// Skip reads any value.
func (d *Decoder) Skip() error {
	switch d.Peek() {
	case '{':
		return d.Object(func([]byte) error { return d.Skip() })
	case '[':
		return d.Array(func(int) error { return d.Skip() })
	case '"':
		_, err := d.Text()
		return err
	case 't':
		_, err := d.Bool()
		return err
	case 'n':
		d.Null()
		return nil
	default:
		_, err := d.Number()
		return err
	}
}

func (d *Decoder) open(c byte, want string) error {
	if d.Peek() != c {
		return d.Wrong(want)
	}
	d.pos++
	if d.depth++; d.depth > maxDepth {
		return d.syntax(fmt.Sprintf("is nested deeper than %d levels", maxDepth))
	}
	return nil
}

// more steps over what separates the nth entry from those before it, or over the end.
func (d *Decoder) more(end byte, n int) (bool, error) {
	d.space()
	switch {
	case d.pos == len(d.data):
		return false, d.syntax("ends too early")
	case d.data[d.pos] == end:
		d.pos++
		d.depth--
		return false, nil
	case n == 0:
		return true, nil
	case d.data[d.pos] != ',':
		return false, d.syntax("has no comma or end")
	}
	d.pos++
	return true, nil
}

func (d *Decoder) name() ([]byte, error) {
	if d.Peek() != '"' {
		return nil, d.syntax("has no member name")
	}
	name, rewritten, err := d.text()
	if err != nil {
		return nil, err
	}
	if rewritten {
		name = bytes.Clone(name)
	}
	if d.space(); d.pos == len(d.data) || d.data[d.pos] != ':' {
		return nil, d.syntax("has no colon after a member name")
	}
	d.pos++
	return name, nil
}

func (d *Decoder) space() {
	for ; d.pos < len(d.data); d.pos++ {
		switch d.data[d.pos] {
		case ' ', '\t', '\r', '\n':
		default:
			return
		}
	}
}
