package httpx

import (
	"bytes"
	"math"
	"unicode/utf16"
	"unicode/utf8"
)

// Peek tells what the next value is by its first byte: { [ " or, for a number,
// 0; for true and false t; for null n; and 0x00 where no value begins.
func (d *Decoder) Peek() byte {
	d.space()
	if d.pos == len(d.data) {
		return 0
	}
	switch c := d.data[d.pos]; c {
	case '{', '[', '"', 't', 'n':
		return c
	case 'f':
		return 't'
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return '0'
	}
	return 0
}

// Null steps over null, if that is what comes.
func (d *Decoder) Null() bool {
	if d.Peek() != 'n' || !bytes.HasPrefix(d.data[d.pos:], []byte("null")) {
		return false
	}
	d.pos += len("null")
	return true
}

// Bool reads true or false.
func (d *Decoder) Bool() (bool, error) {
	if d.Peek() != 't' {
		return false, d.Wrong("true or false")
	}
	switch rest := d.data[d.pos:]; {
	case bytes.HasPrefix(rest, []byte("true")):
		d.pos += len("true")
		return true, nil
	case bytes.HasPrefix(rest, []byte("false")):
		d.pos += len("false")
		return false, nil
	}
	return false, d.syntax("has an unknown word")
}

// Number reads a number and returns it as it is written, valid while the body is.
func (d *Decoder) Number() ([]byte, error) {
	if d.Peek() != '0' {
		return nil, d.Wrong("a number")
	}
	start := d.pos
	if d.data[d.pos] == '-' {
		d.pos++
	}
	zero := d.pos < len(d.data) && d.data[d.pos] == '0'
	if n := d.digits(); n == 0 || zero && n > 1 {
		return nil, d.syntax("has a malformed number")
	}
	if d.pos < len(d.data) && d.data[d.pos] == '.' {
		if d.pos++; d.digits() == 0 {
			return nil, d.syntax("has a malformed number")
		}
	}
	if d.pos < len(d.data) && d.data[d.pos]|0x20 == 'e' {
		d.pos++
		if d.pos < len(d.data) && (d.data[d.pos] == '+' || d.data[d.pos] == '-') {
			d.pos++
		}
		if d.digits() == 0 {
			return nil, d.syntax("has a malformed number")
		}
	}
	return d.data[start:d.pos], nil
}

func (d *Decoder) digits() (n int) {
	for ; d.pos < len(d.data) && d.data[d.pos] >= '0' && d.data[d.pos] <= '9'; d.pos++ {
		n++
	}
	return n
}

// Int reads a whole number, written without fraction or exponent.
func (d *Decoder) Int() (int64, error) {
	if d.Peek() != '0' {
		return 0, d.Wrong("a whole number")
	}
	lit, err := d.Number()
	if err != nil {
		return 0, err
	}
	negative := lit[0] == '-'
	if negative {
		lit = lit[1:]
	}
	var n int64
	for _, c := range lit {
		switch {
		case c < '0' || c > '9':
			return 0, problem("must be a whole number")
		case n > (math.MaxInt64-int64(c-'0'))/10:
			return 0, problem("is out of range")
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return n, nil
}

// String reads a string.
func (d *Decoder) String() (string, error) {
	s, err := d.Text()
	return string(s), err
}

// Bytes reads a string into memory of its own.
func (d *Decoder) Bytes() ([]byte, error) {
	s, err := d.Text()
	return bytes.Clone(s), err
}

// Text reads a string and returns its bytes, valid until the next call of any
// method of d.
func (d *Decoder) Text() ([]byte, error) {
	if d.Peek() != '"' {
		return nil, d.Wrong("a string")
	}
	s, _, err := d.text()
	return s, err
}

// text reads the string that begins here. What holds no escapes is returned as
// a part of the body, the rest is rewritten in scratch.
func (d *Decoder) text() (s []byte, rewritten bool, err error) {
	d.pos++
	start := d.pos
	for {
		d.pos += plain(d.data[d.pos:])
		if d.pos == len(d.data) {
			return nil, false, d.syntax("ends inside a string")
		}
		switch c := d.data[d.pos]; {
		case c == '"':
			s, d.pos = d.data[start:d.pos], d.pos+1
			return s, false, nil
		case c == '\\':
			s, err = d.rewrite(start)
			return s, true, err
		case c < ' ':
			return nil, false, d.syntax("has a control character in a string")
		default:
			r, n := utf8.DecodeRune(d.data[d.pos:])
			if r == utf8.RuneError && n == 1 {
				return nil, false, d.syntax("has bytes in a string that are not UTF-8")
			}
			d.pos += n
		}
	}
}

// rewrite reads the rest of the string that began at start, from its first escape on.
func (d *Decoder) rewrite(start int) ([]byte, error) {
	s := d.scratch[:0]
	s = append(s, d.data[start:d.pos]...)
	for {
		n := plain(d.data[d.pos:])
		s = append(s, d.data[d.pos:d.pos+n]...)
		d.pos += n
		if d.pos == len(d.data) {
			return nil, d.syntax("ends inside a string")
		}
		switch c := d.data[d.pos]; {
		case c == '"':
			d.pos++
			d.scratch = s
			return s, nil
		case c == '\\':
			var err error
			if s, err = d.escape(s); err != nil {
				return nil, err
			}
		case c < ' ':
			return nil, d.syntax("has a control character in a string")
		default:
			r, n := utf8.DecodeRune(d.data[d.pos:])
			if r == utf8.RuneError && n == 1 {
				return nil, d.syntax("has bytes in a string that are not UTF-8")
			}
			s = append(s, d.data[d.pos:d.pos+n]...)
			d.pos += n
		}
	}
}

// escape appends what the escape sequence here stands for.
func (d *Decoder) escape(s []byte) ([]byte, error) {
	if d.pos+1 >= len(d.data) {
		return nil, d.syntax("ends inside a string")
	}
	c := d.data[d.pos+1]
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		r, ok := d.hex(d.pos)
		n := 6
		if ok && utf16.IsSurrogate(r) {
			low, _ := d.hex(d.pos + n)
			r = utf16.DecodeRune(r, low)
			n, ok = 12, r != utf8.RuneError
		}
		if !ok {
			return nil, d.syntax(`has a malformed \u escape or half a surrogate pair`)
		}
		d.pos += n
		return utf8.AppendRune(s, r), nil
	default:
		return nil, d.syntax("has an unknown escape in a string")
	}
	d.pos += 2
	return append(s, c), nil
}

// hex reads the code unit of the \uXXXX at i.
func (d *Decoder) hex(i int) (rune, bool) {
	if i+6 > len(d.data) || d.data[i] != '\\' || d.data[i+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range d.data[i+2 : i+6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
