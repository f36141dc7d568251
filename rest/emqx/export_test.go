package emqx

import "millrace/rest/internal/httpx"

// The error table, for tests.
var (
	RenderError = renderError
	ByKind      = byKind
	Sources     = sources
	Never       = never
)

// Classify is what an error is answered with.
func Classify(err error) (status int, name, text string) {
	p := classify(err)
	return p.status, string(p.code), p.text
}

// Codes lists the error codes that are answered.
func Codes() map[string]bool {
	all := map[string]bool{}
	for _, c := range codes {
		all[string(c.code)] = true
	}
	return all
}

// Routes is the route table.
func Routes() []httpx.Route { return (&api{}).routes() }
