package main

import (
	"io"
	"unicode"
	"unicode/utf8"
)

// maxField bounds the text of one field of the log, in bytes as it is written.
const maxField = 256

// ownFields are longer: their text is ours, but for what is quoted in it.
var ownFields = map[string]int{"err": 4096, "msg": 4096, "changed": 4096, "needs_restart": 4096, "dir": 4096, "file": 4096, "stack": 64 << 10}

// logLines takes the lines of a zerolog.Logger and makes the texts in them
// plain: what does not print is escaped, so that no name of a user turns the
// text around, moves a cursor or looks like another; what is too long is cut.
// Control characters of ASCII, quotes and bad UTF-8 are zerolog's work.
type logLines struct{ to io.Writer }

// Write implements io.Writer for one whole line.
func (l logLines) Write(line []byte) (int, error) {
	out, key := make([]byte, 0, len(line)+64), []byte(nil)
	for i := 0; i < len(line); {
		if line[i] != '"' {
			out = append(out, line[i])
			i++
			continue
		}
		end := textEnd(line, i+1)
		text := line[i+1 : end]
		i = min(end+1, len(line))
		most := maxField
		if isKey := i < len(line) && line[i] == ':'; isKey {
			key = text
		} else if own, ok := ownFields[string(key)]; ok {
			most = own
		}
		out = append(appendPlain(append(out, '"'), text, most), '"')
	}
	_, err := l.to.Write(out)
	return len(line), err
}

// textEnd returns where the quote is that ends the text of a JSON string.
func textEnd(line []byte, i int) int {
	for i < len(line) && line[i] != '"' {
		if line[i] == '\\' {
			i++
		}
		i++
	}
	return min(i, len(line))
}

// appendPlain appends the text of a JSON string, of at most so many bytes.
func appendPlain(out, text []byte, most int) []byte {
	begin, fits := len(out), len(out) // up to there an ellipsis has room
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case r == '\\':
			n = min(escapeLen(text[i:]), len(text)-i)
			out = append(out, text[i:i+n]...)
		case unicode.IsPrint(r):
			out = append(out, text[i:i+n]...)
		default:
			out = appendEscaped(out, r)
		}
		i += n
		if len(out)-begin > most {
			return append(out[:fits], "…"...)
		}
		if len(out)-begin <= most-len("…") {
			fits = len(out)
		}
	}
	return out
}

// escapeLen is how long an escape of JSON is.
func escapeLen(text []byte) int {
	if len(text) > 1 && text[1] == 'u' {
		return 6
	}
	return 2
}

// appendEscaped appends a rune as JSON escapes it, in two halves beyond U+FFFF.
func appendEscaped(out []byte, r rune) []byte {
	if r > 0xffff {
		r -= 0x10000
		return appendEscaped(appendEscaped(out, 0xd800+r>>10), 0xdc00+r&0x3ff)
	}
	const hex = "0123456789abcdef"
	return append(out, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}
