package mqtt

import (
	"runtime/debug"
	"strings"
)

// maxLogged bounds every text from a client that reaches the log.
const maxLogged = 256

// clip makes text from a client fit for the log; zerolog escapes it.
func clip(s string) string {
	if len(s) > maxLogged {
		return strings.ToValidUTF8(s[:maxLogged], "") + "..."
	}
	return s
}

// stack is the stack of a panic: function names and lines, no packet bytes.
func stack() string { return string(debug.Stack()) }
