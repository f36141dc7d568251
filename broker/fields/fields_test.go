package fields_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"

	"millrace/broker/fields"
)

func TestWhatWasAppendedIsTaken(t *testing.T) {
	b := fields.AppendUints(nil, 0, 127, 128, math.MaxUint64)
	b = binary.AppendVarint(b, math.MinInt64)
	b = binary.LittleEndian.AppendUint64(append(b, 7), 1<<63)
	b = fields.AppendText(fields.AppendText(fields.AppendBytes(b, []byte{1, 2}), "text"), "")
	b = append(fields.AppendText(b, "shared"), 2, 'x', 'y')
	r := fields.Reader{Rest: b}
	for _, want := range []uint64{0, 127, 128, math.MaxUint64} {
		if got := r.Uint(); got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
	if i, c, f := r.Int(), r.Byte(), r.Fixed64(); i != math.MinInt64 || c != 7 || f != 1<<63 {
		t.Errorf("%d, %d, %d", i, c, f)
	}
	if v, s, none, shared := r.Bytes(), r.Text(), r.Text(), r.Shared(); !bytes.Equal(v, []byte{1, 2}) || cap(v) != 2 || s != "text" || none != "" || shared != "shared" {
		t.Errorf("%v, %q, %q, %q", v, s, none, shared)
	}
	if n, rest := r.Count(1), r.Take(2); n != 2 || string(rest) != "xy" || r.Bad || len(r.Rest) != 0 {
		t.Errorf("%d, %q, %+v", n, rest, r)
	}
}

func TestWhatDoesNotFitIsBadAndSoIsEverythingAfterIt(t *testing.T) {
	long := fields.AppendUints(nil, math.MaxUint64)
	for name, c := range map[string]struct {
		b    []byte
		take func(*fields.Reader) any
	}{
		"no number":       {nil, func(r *fields.Reader) any { return r.Uint() == 0 }},
		"half a number":   {[]byte{0x80}, func(r *fields.Reader) any { return r.Uint() == 0 }},
		"a long number":   {bytes.Repeat([]byte{0xff}, 11), func(r *fields.Reader) any { return r.Uint() == 0 }},
		"half an integer": {[]byte{0x80}, func(r *fields.Reader) any { return r.Int() == 0 }},
		"seven bytes":     {make([]byte, 7), func(r *fields.Reader) any { return r.Fixed64() == 0 }},
		"no byte":         {nil, func(r *fields.Reader) any { return r.Byte() == 0 }},
		"too few bytes":   {[]byte{2, 1}, func(r *fields.Reader) any { return r.Bytes() == nil }},
		"a huge text":     {append(long, 1, 2, 3), func(r *fields.Reader) any { return r.Text() == "" }},
		"a huge share":    {append(long, 1, 2, 3), func(r *fields.Reader) any { return r.Shared() == "" }},
		"a long list":     {[]byte{3, 1, 2, 3, 4, 5}, func(r *fields.Reader) any { return r.Count(2) == 0 }},
		"to take":         {[]byte{1}, func(r *fields.Reader) any { return r.Take(2) == nil }},
	} {
		r := fields.Reader{Rest: c.b}
		if zero := c.take(&r); zero != true || !r.Bad || r.Uint() != 0 || r.Byte() != 0 || r.Bytes() != nil || !r.Bad {
			t.Errorf("%s: %v, %+v", name, zero, r)
		}
	}
}
