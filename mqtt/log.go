package mqtt

import (
	"runtime/debug"
	"strings"
	"sync"
	"time"
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

// maxRefusals is how many addresses are told of in a second.
const maxRefusals = 100

// refusals bounds what refused logins write to the log: one line a second for
// each address. A line tells of how many others there were since the last one.
type refusals struct {
	mu     sync.Mutex
	second int64
	told   map[string]struct{} // in this second
	others int
}

// tell reports whether a refusal of host is told of, and with how many others.
func (r *refusals) tell(host string, now time.Time) (others int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if second := now.Unix(); second != r.second || r.told == nil {
		r.second, r.told = second, map[string]struct{}{}
	}
	if _, again := r.told[host]; again || len(r.told) == maxRefusals {
		r.others++
		return 0, false
	}
	r.told[host] = struct{}{}
	others, r.others = r.others, 0
	return others, true
}
