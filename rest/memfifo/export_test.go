package memfifo

import "millrace/rest/internal/httpx"

// The error table, for tests.
var (
	RenderError = renderError
	Classify    = classify
	ByKind      = byKind
)

// Routes is the route table.
func Routes() []httpx.Route { return (&api{}).routes() }
