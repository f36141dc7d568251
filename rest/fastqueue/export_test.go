package fastqueue

import "millrace/rest/internal/httpx"

// The error table, for tests.
var (
	RenderError = renderError
	ByKind      = byKind
)

// Classify is what an error is answered with.
func Classify(err error) (status int, detail string) {
	r := classify(err)
	return r.status, r.detail
}

// Statuses lists every status of an error that comes from the tables.
func Statuses() map[int]bool {
	all := map[int]bool{}
	for _, r := range byKind {
		all[r.status] = true
	}
	for _, r := range bySubject {
		all[r.status] = true
	}
	return all
}

// Routes is the route table.
func Routes() []httpx.Route { return (&api{}).routes() }
