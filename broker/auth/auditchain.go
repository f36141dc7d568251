package auth

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// AuditReport is what VerifyAudit found.
type AuditReport struct {
	Files    int
	Lines    int
	Torn     int    // lines that a crash left incomplete
	Older    int    // lines at the front from before lines were chained
	Whole    bool   // it begins with the first line ever, no older file went
	Head     string // hash of the last line
	Expected bool   // a line has the hash that was asked for
}

// AuditError names the line at which an audit log is not what was written.
type AuditError struct {
	File   string
	Line   int // from 1
	Reason string
}

func (e *AuditError) Error() string { return fmt.Sprintf("%s, line %d: %s", e.File, e.Line, e.Reason) }

var errNoAudit = errors.New("there is no audit log")

// VerifyAudit reads the audit log at path with its full files, and proves that
// no line was changed, put in, taken out or moved since it was written. What
// that cannot see is the end that somebody cut off, or a log that was written
// anew: expect is the hash of a line, an earlier Head that was kept elsewhere,
// "" for none. The error is an *AuditError where the log was tampered with.
func VerifyAudit(path, expect string) (AuditReport, error) {
	var r AuditReport
	files := []string{path}
	for n := 1; ; n++ {
		name := fullFile(path, n)
		if _, err := os.Stat(name); err != nil {
			break
		}
		files = append([]string{name}, files...)
	}
	for _, name := range files {
		if err := r.read(name, expect); errors.Is(err, os.ErrNotExist) && name == path && len(files) > 1 {
			break // the process ended between two files
		} else if err != nil {
			return r, err
		}
		r.Files++
	}
	if r.Lines == r.Older+r.Torn && r.Lines > 0 {
		return r, &AuditError{path, r.Lines, "no line is chained to the one before"}
	}
	return r, nil
}

// read goes on with the next file.
func (r *AuditReport) read(name, expect string) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w at %s: %w", errNoAudit, name, err)
	}
	if err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	in := bufio.NewReader(f)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return fmt.Errorf("read audit log: %w", err)
		}
		if len(line) > 0 {
			if reason := r.next(line); reason != "" {
				return &AuditError{name, n, reason}
			}
			r.Expected = r.Expected || r.Head == expect
		}
		if err == io.EOF {
			return nil
		}
	}
}

// next checks one line, and says what is wrong with it.
func (r *AuditReport) next(line []byte) (reason string) {
	before := r.Head
	r.Head = lineHash(line)
	r.Lines++
	var l struct {
		Prev *string `json:"prev"`
	}
	chainBegun := r.Lines-1 > r.Older+r.Torn
	switch err := json.Unmarshal(line, &l); {
	case err != nil:
		r.Torn++ // what follows vouches for it
	case l.Prev != nil && r.Lines == 1:
		r.Whole = *l.Prev == ""
	case l.Prev != nil && *l.Prev != before:
		return "the line before is not the one that was written there"
	case l.Prev == nil && chainBegun:
		return "it is not chained to the line before"
	case l.Prev == nil:
		r.Older++
		r.Whole = r.Whole || r.Lines == 1
	}
	return ""
}

// chained adds to a line the hash of the one before.
func chained(line []byte, head string) ([]byte, error) {
	body, ok := bytes.CutSuffix(line, []byte("}\n"))
	if !ok || len(body) < 2 {
		return nil, errors.New("a line of the audit log must be a JSON object")
	}
	text := append(make([]byte, 0, len(line)+80), body...)
	return append(append(append(text, `,"prev":"`...), head...), "\"}\n"...), nil
}

// lineHash is the SHA-256 of a line without its end.
func lineHash(line []byte) string {
	sum := sha256.Sum256(bytes.TrimSuffix(line, []byte{'\n'}))
	return hex.EncodeToString(sum[:])
}

// headOf returns the hash of the last line in the first of the files that has
// one.
func headOf(files ...string) (string, error) {
	for _, name := range files {
		line, err := lastLine(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil || len(line) > 0 {
			return lineHash(line), err
		}
	}
	return "", nil
}

// lastLine reads the end of a file, as much as the last line needs.
func lastLine(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	for size := int64(16 << 10); ; size *= 8 {
		from := max(0, info.Size()-size)
		text, err := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
		if err != nil {
			return nil, err
		}
		text = bytes.TrimSuffix(text, []byte{'\n'})
		at := bytes.LastIndexByte(text, '\n')
		if at >= 0 || from == 0 {
			return text[at+1:], nil
		}
	}
}
