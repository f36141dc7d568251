package flowmq

import "millrace/rest/internal/httpx"

// The error table, for tests.
var (
	RenderError = renderError
	ByKind      = byKind
)

// Classify is what an error is answered with.
func Classify(err error) (status int, code, message string) {
	s, p := classify(err)
	return s, p.Code, p.Message
}

// Codes lists every code that an answer can have.
func Codes() map[string]bool {
	codes := map[string]bool{"STORAGE_FULL": true}
	for _, r := range byKind {
		codes[r.code] = true
	}
	for _, r := range bySubject {
		codes[r.code] = true
	}
	for _, c := range byStatus {
		codes[c] = true
	}
	return codes
}

// Routes is the route table.
func Routes() []httpx.Route { return (&api{}).routes() }
