package memfifo

import "strings"

// The error table, for tests.
var (
	RenderError = renderError
	Classify    = classify
	ByKind      = byKind
)

// RoutePaths lists the routes in the form of the document: "post /queues/{queue}".
func RoutePaths() []string {
	var all []string
	for _, rt := range (&api{}).routes() {
		parts := strings.Split(rt.Path, "/")
		for i, p := range parts {
			if name, ok := strings.CutPrefix(p, ":"); ok {
				parts[i] = "{" + name + "}"
			}
		}
		all = append(all, strings.ToLower(rt.Method)+" "+strings.Join(parts, "/"))
	}
	return all
}
