package httpx

import (
	"net/http"
	"strings"

	"millrace/broker"
)

// Headers of W3C Trace Context in the form of net/http.
const (
	headerTraceParent = "Traceparent"
	headerTraceState  = "Tracestate"
)

// maxTraceState is what the standard wants to be passed on at least.
const maxTraceState = 512

// traceOf reads the trace of a request; what is malformed counts as not sent,
// as the standard has it (section 4.3).
func traceOf(h http.Header) (t broker.Trace, ok bool) {
	if v := h[headerTraceParent]; len(v) != 1 || !goodParent(v[0]) {
		return t, false
	}
	t.Parent = h[headerTraceParent][0]
	if state := strings.Join(h[headerTraceState], ","); len(state) <= maxTraceState && printable(state) {
		t.State = state
	}
	return t, true
}

// SetTrace tells in an answer that hands one message over the trace it carries.
func SetTrace(w http.ResponseWriter, m *broker.Message) {
	t := broker.TraceOf(m)
	if !goodParent(t.Parent) {
		return
	}
	w.Header()[headerTraceParent] = []string{t.Parent}
	if t.State != "" && len(t.State) <= maxTraceState && printable(t.State) {
		w.Header()[headerTraceState] = []string{t.State}
	}
}

// goodParent checks version-traceid-parentid-flags (section 3.2.2). Versions to
// come may have more behind.
func goodParent(s string) bool {
	const length = 55
	if len(s) < length || s[2] != '-' || s[35] != '-' || s[52] != '-' || len(s) > 256 || !printable(s) {
		return false
	}
	version, id, parent, flags := s[:2], s[3:35], s[36:52], s[53:length]
	switch {
	case version == "ff", strings.Trim(id, "0") == "", strings.Trim(parent, "0") == "":
		return false
	case len(s) > length && (version == "00" || s[length] != '-'):
		return false
	}
	return strings.Trim(version+id+parent+flags, "0123456789abcdef") == ""
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
