package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// The exit codes. Scripts and service managers rely on them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitNotAllowed  = 4
	exitNothing     = 6  // nothing arrived in time
	exitUnreachable = 7  // cannot connect
	exitDisk        = 74 // the server: a write or fsync failed
	exitBusy        = 75 // the server: port or data directory in use
	exitConfig      = 78 // the server: bad configuration
)

// failure is an error that knows its exit code and, where one helps, a hint.
type failure struct {
	code int
	err  error
	hint string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func asFailure(err error) (*failure, bool) { return errors.AsType[*failure](err) }

// report writes err for people and returns its exit code. An error without one
// comes from the command line parser.
func report(w io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	f, ok := asFailure(err)
	if !ok {
		f = &failure{code: exitUsage, err: err, hint: "see millrace --help"}
	}
	text := strings.TrimRight(f.Error(), "\n")
	switch {
	case f.code == exitNothing && text == "":
	case f.hint == "":
		_, _ = fmt.Fprintf(w, "error: %s\n", text) // there is nowhere else to tell it
	case strings.Contains(text, "\n"):
		_, _ = fmt.Fprintf(w, "error: %s\nhint: %s\n", text, f.hint)
	default:
		_, _ = fmt.Fprintf(w, "error: %s; hint: %s\n", text, f.hint)
	}
	return f.code
}
