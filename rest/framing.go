package rest

import (
	"bytes"
	"errors"
	"strconv"
)

// Faults of framing: requests that two readers could cut in different places,
// which is how one is smuggled past a proxy in another. RFC 9112 sections 2.2,
// 5.2, 6.1 and 6.3 let a server refuse all of them; net/http reads some.
var (
	errTwoLengths  = errors.New("a request with Content-Length and Transfer-Encoding")
	errOldCoding   = errors.New("Transfer-Encoding in a request that is not HTTP/1.1")
	errBareLF      = errors.New("a line that ends without CR")
	errFolded      = errors.New("a header over more than one line")
	errLength      = errors.New("a malformed Content-Length")
	errChunk       = errors.New("a malformed chunk")
	errFramingLine = errors.New("a line with the length of a body that is too long")
)

// maxFramingLine is how much is kept of a line that comes in pieces: enough for
// every line that says how long a body is.
const maxFramingLine = 64

// Where a framing is in its stream.
const (
	atStart = iota // of a request; also what is not HTTP ends here, at net/http
	inHead
	inChunks  // at the size of one
	inTrailer // after the last chunk
)

// framing follows the requests of an HTTP/1 connection, and finds those whose
// end could be seen in two places. It copies nothing but the beginnings of lines that come
// in pieces, and skips bodies.
type framing struct {
	at       int
	skip     int64 // bytes of a body or chunk that are still to come
	measured bool  // the head has a Content-Length, which is
	length   int64
	coded    bool // the head has a Transfer-Encoding
	old      bool // the request is not HTTP/1.1

	// The line that has begun in an earlier piece: how long it is so far, its
	// first bytes and its last ones.
	size int
	head [maxFramingLine]byte
	tail [len(version) + 1]byte
}

const version = "HTTP/1.1"

// take looks at the next bytes and returns how many of them may be read by
// net/http: all, or those before the end of a line that has a fault.
func (f *framing) take(b []byte) (int, error) {
	for i := 0; i < len(b); {
		if f.skip > 0 {
			n := min(f.skip, int64(len(b)-i))
			f.skip -= n
			i += int(n)
			continue
		}
		end := bytes.IndexByte(b[i:], '\n')
		if end < 0 {
			f.keep(b[i:])
			break
		}
		if err := f.endLine(b[i : i+end]); err != nil {
			return i + end, err
		}
		i += end + 1
	}
	return len(b), nil
}

// keep remembers what counts of a piece of a line.
func (f *framing) keep(piece []byte) {
	if f.size < len(f.head) {
		copy(f.head[f.size:], piece)
	}
	f.size += len(piece)
	if n := len(piece); n < len(f.tail) {
		copy(f.tail[:], f.tail[n:])
		copy(f.tail[len(f.tail)-n:], piece)
	} else {
		copy(f.tail[:], piece[n-len(f.tail):])
	}
}

// endLine reads a line of which this is the last piece, without its LF.
func (f *framing) endLine(piece []byte) error {
	head, tail, size := piece, piece, len(piece)
	if f.size > 0 {
		f.keep(piece)
		size = f.size
		head, tail = f.head[:min(size, len(f.head))], f.tail[max(0, len(f.tail)-size):]
		f.size = 0
	}
	if !bytes.HasSuffix(tail, []byte{'\r'}) {
		return errBareLF
	}
	tail = tail[:len(tail)-1]
	return f.line(head[:min(len(head), size-1)], tail, size-1)
}

// line reads a line: its beginning, its end, and how long it is.
func (f *framing) line(head, tail []byte, size int) error {
	switch f.at {
	case atStart:
		if size > 0 { // net/http passes over empty ones after a POST
			f.at, f.old = inHead, !bytes.HasSuffix(tail, []byte(version))
		}
		return nil
	case inHead:
		if size == 0 {
			f.endHead()
			return nil
		}
		return f.field(head, size)
	case inChunks:
		return f.chunk(head, size)
	default:
		if size == 0 {
			f.at = atStart
		}
		return nil
	}
}

// endHead goes on to the body, if there is one.
func (f *framing) endHead() {
	f.at = atStart
	if f.coded {
		f.at = inChunks
	} else if f.measured {
		f.skip = f.length
	}
	f.measured, f.coded, f.length = false, false, 0
}

// field reads a line of a head.
func (f *framing) field(line []byte, size int) error {
	const length, coding = "content-length", "transfer-encoding"
	switch line[0] {
	case ' ', '\t':
		return errFolded
	case 'c', 'C', 't', 'T':
	default:
		return nil
	}
	name, value, _ := bytes.Cut(line, []byte{':'})
	switch {
	case len(name) == len(length) && bytes.EqualFold(name, []byte(length)):
		if f.measured = true; f.coded {
			return errTwoLengths
		}
		if size > maxFramingLine {
			return errFramingLine
		}
		// Of two that differ net/http refuses the request.
		n, err := strconv.ParseUint(string(bytes.Trim(value, " \t")), 10, 63)
		if f.length = int64(n); err != nil {
			return errLength
		}
	case len(name) == len(coding) && bytes.EqualFold(name, []byte(coding)):
		if f.coded = true; f.measured {
			return errTwoLengths
		}
		if f.old { // net/http would take no notice of it
			return errOldCoding
		}
	}
	return nil
}

// chunk reads the size of a chunk; its extensions are nobody's.
func (f *framing) chunk(line []byte, size int) error {
	digits, _, extended := bytes.Cut(line[:min(len(line), maxFramingLine)], []byte{';'})
	if !extended && size > maxFramingLine {
		return errFramingLine
	}
	n, err := strconv.ParseUint(string(bytes.TrimRight(digits, " \t")), 16, 62)
	if err != nil {
		return errChunk
	}
	if n == 0 {
		f.at = inTrailer
		return nil
	}
	f.skip = int64(n) + 2 // CRLF follows
	return nil
}
