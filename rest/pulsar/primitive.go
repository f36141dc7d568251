package pulsar

import (
	"encoding/binary"
	"math"
	"strconv"
	"time"

	"millrace/rest/internal/httpx"
)

// primitive keeps one value in the binary form of Pulsar's own clients. Values
// come as JSON, or as the text of it in a string.
type primitive struct {
	size   int
	what   string
	parse  func(text string) ([]byte, bool)
	append func(dst, kept []byte) []byte
	quoted bool // in JSON it is a string
}

func (p *primitive) encode(value []byte) ([]byte, error) {
	text, ok := unquote(value)
	if !ok {
		text = value
	}
	b, ok := p.parse(string(text))
	if !ok {
		return nil, httpx.Problem("must be %s", p.what)
	}
	return b, nil
}

func (p *primitive) appendJSON(dst, kept []byte) ([]byte, bool) {
	if len(kept) != p.size {
		return dst, false
	}
	if p.quoted {
		dst = append(dst, '"')
	}
	dst = p.append(dst, kept)
	if p.quoted {
		dst = append(dst, '"')
	}
	return dst, true
}

func (*primitive) contentType() string { return "application/octet-stream" }

// primitives are the types of Pulsar's schemas that hold one value.
var primitives = map[string]*primitive{
	"BOOLEAN":         {size: 1, what: "true or false", parse: parseBool, append: appendBool},
	"INT8":            whole(1),
	"INT16":           whole(2),
	"INT32":           whole(4),
	"INT64":           whole(8),
	"FLOAT":           float(4),
	"DOUBLE":          float(8),
	"DATE":            moment(time.DateOnly),
	"TIME":            moment("15:04:05"),
	"TIMESTAMP":       moment(time.RFC3339),
	"INSTANT":         {size: 12, what: "a time as RFC 3339", parse: parseInstant, append: appendInstant, quoted: true},
	"LOCAL_DATE":      {size: 8, what: "a date as 2006-01-02", parse: parseLocalDate, append: appendLocalDate, quoted: true},
	"LOCAL_TIME":      {size: 8, what: "a time as 15:04:05", parse: parseLocalTime, append: appendLocalTime, quoted: true},
	"LOCAL_DATE_TIME": {size: 16, what: "a time as 2006-01-02T15:04:05", parse: parseLocalDateTime, append: appendLocalDateTime, quoted: true},
}

// bigEndian returns the low bytes of n.
func bigEndian(n int64, size int) []byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(n))
	return append([]byte(nil), b[8-size:]...)
}

// signed reads bigEndian.
func signed(b []byte) (n int64) {
	for _, c := range b {
		n = n<<8 | int64(c)
	}
	shift := 64 - 8*len(b)
	return n << shift >> shift
}

func whole(size int) *primitive {
	bits := 8 * size
	return &primitive{
		size: size, what: "a whole number of " + strconv.Itoa(bits) + " bits",
		parse: func(text string) ([]byte, bool) {
			n, err := strconv.ParseInt(text, 10, bits)
			return bigEndian(n, size), err == nil
		},
		append: func(dst, kept []byte) []byte { return strconv.AppendInt(dst, signed(kept), 10) },
	}
}

func float(size int) *primitive {
	bits := 8 * size
	return &primitive{
		size: size, what: "a number of " + strconv.Itoa(bits) + " bits",
		parse: func(text string) ([]byte, bool) {
			f, err := strconv.ParseFloat(text, bits)
			if bits == 32 {
				return bigEndian(int64(math.Float32bits(float32(f))), size), err == nil
			}
			return bigEndian(int64(math.Float64bits(f)), size), err == nil
		},
		append: func(dst, kept []byte) []byte {
			f := math.Float64frombits(uint64(signed(kept)))
			if bits == 32 {
				f = float64(math.Float32frombits(uint32(signed(kept))))
			}
			if math.IsNaN(f) || math.IsInf(f, 0) { // JSON has no such number
				return strconv.AppendQuote(dst, strconv.FormatFloat(f, 'g', -1, bits))
			}
			return strconv.AppendFloat(dst, f, 'g', -1, bits)
		},
	}
}

// moment is one of Pulsar's types that are Unix milliseconds. Its text may have
// the layout instead.
func moment(layout string) *primitive {
	return &primitive{
		size: 8, what: "Unix milliseconds, or a text as " + layout,
		parse: func(text string) ([]byte, bool) {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil {
				return bigEndian(n, 8), true
			}
			t, err := time.Parse(layout, text)
			if layout == "15:04:05" && err == nil { // a time of the day
				t = t.AddDate(1970, 0, 0)
			}
			return bigEndian(t.UnixMilli(), 8), err == nil
		},
		append: func(dst, kept []byte) []byte { return strconv.AppendInt(dst, signed(kept), 10) },
	}
}

func parseBool(text string) ([]byte, bool) {
	switch text {
	case "true":
		return []byte{1}, true
	case "false":
		return []byte{0}, true
	}
	return nil, false
}

func appendBool(dst, kept []byte) []byte { return strconv.AppendBool(dst, kept[0] != 0) }

func parseInstant(text string) ([]byte, bool) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if ms, bad := strconv.ParseInt(text, 10, 64); bad == nil {
		t, err = time.UnixMilli(ms), nil
	}
	return append(bigEndian(t.Unix(), 8), bigEndian(int64(t.Nanosecond()), 4)...), err == nil
}

func appendInstant(dst, kept []byte) []byte {
	return time.Unix(signed(kept[:8]), signed(kept[8:])).UTC().AppendFormat(dst, time.RFC3339Nano)
}

const secondsPerDay = 24 * 60 * 60

// epochDay counts the days from 1970 to the date of t.
func epochDay(t time.Time) int64 {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / secondsPerDay
}

func parseLocalDate(text string) ([]byte, bool) {
	t, err := time.Parse(time.DateOnly, text)
	return bigEndian(epochDay(t), 8), err == nil
}

func appendLocalDate(dst, kept []byte) []byte {
	return day(signed(kept)).AppendFormat(dst, time.DateOnly)
}

// day is the date so many days after 1970; years beyond those of RFC 3339 come
// out as its last.
func day(n int64) time.Time {
	const first, last = -719162, 2932896 // the years 1 to 9999
	return time.Unix(min(max(n, first), last)*secondsPerDay, 0).UTC()
}

// The layouts of Java's local times, whose fraction of a second has as many
// digits as it needs.
const (
	localTime     = "15:04:05.999999999"
	localDateTime = "2006-01-02T" + localTime
)

func parseLocalTime(text string) ([]byte, bool) {
	t, err := time.Parse(localTime, text)
	return bigEndian(nanoOfDay(t), 8), err == nil
}

func nanoOfDay(t time.Time) int64 {
	h, m, s := t.Clock()
	return int64((h*60+m)*60+s)*int64(time.Second) + int64(t.Nanosecond())
}

func appendLocalTime(dst, kept []byte) []byte {
	return time.Unix(0, signed(kept)).UTC().AppendFormat(dst, localTime)
}

func parseLocalDateTime(text string) ([]byte, bool) {
	t, err := time.Parse(localDateTime, text)
	return append(bigEndian(epochDay(t), 8), bigEndian(nanoOfDay(t), 8)...), err == nil
}

func appendLocalDateTime(dst, kept []byte) []byte {
	t := day(signed(kept[:8])).Add(time.Duration(signed(kept[8:])) % (24 * time.Hour))
	return t.AppendFormat(dst, localDateTime)
}
