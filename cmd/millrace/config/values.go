package config

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// Switch is a setting that is off, on, or on everywhere.
type Switch string

// The positions of a Switch.
const (
	Off Switch = "false"
	On  Switch = "true"
	Any Switch = "any"
)

// UnmarshalText reads a YAML boolean or the word any.
func (s *Switch) UnmarshalText(b []byte) error {
	*s = Switch(b)
	return nil
}

// Duration is a time.Duration that is written as 30s, 5m, 12h or 7d.
type Duration time.Duration

// String writes d in the form that UnmarshalText reads.
func (d Duration) String() string {
	const day = Duration(24 * time.Hour)
	if d != 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return time.Duration(d).String()
}

// UnmarshalText reads a number with its unit.
func (d *Duration) UnmarshalText(b []byte) error {
	s := string(b)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseInt(days, 10, 32); err == nil {
			*d = Duration(n) * Duration(24*time.Hour)
			return nil
		}
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration: write a number with its unit, for example 30s, 5m, 12h or 7d", s)
	}
	*d = Duration(v)
	return nil
}

// FileMode is what chmod takes, in octal digits.
type FileMode fs.FileMode

// String writes m in the form that UnmarshalText reads.
func (m FileMode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// UnmarshalText reads octal digits.
func (m *FileMode) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is not a file mode: write octal digits, for example 0660", b)
	}
	*m = FileMode(n)
	return nil
}

// Size is a number of bytes that may be written as 64KiB, 4MiB or 2GiB.
type Size int64

// units are those of String, the largest first, then the others that are read.
var units = []struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"GB", 1e9},
	{"MB", 1e6},
	{"KB", 1e3},
	{"kB", 1e3},
	{"B", 1},
}

// String writes s in the largest unit that it is a whole number of.
func (s Size) String() string {
	for _, u := range units[:3] {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalText reads bytes, or a number with a unit.
func (s *Size) UnmarshalText(b []byte) error {
	text, factor := strings.TrimSpace(string(b)), int64(1)
	for _, u := range units {
		if number, ok := strings.CutSuffix(text, u.name); ok {
			text, factor = strings.TrimSpace(number), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/factor {
		return fmt.Errorf("%q is not a size: write bytes, or a number with a unit, for example 65536, 64KiB or 4MiB", b)
	}
	*s = Size(n * factor)
	return nil
}
