package fastqueue

import (
	"strings"
)

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

// RoutePaths lists the routes in the form of the document: "post /v1/queue/{queue}".
func RoutePaths() []string {
	var all []string
	for _, rt := range (&api{}).routes() {
		all = append(all, strings.ToLower(rt.Method)+" "+template(rt.Path))
	}
	return all
}

// template turns httprouter's parameters into those of OpenAPI.
func template(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if name, ok := strings.CutPrefix(p, ":"); ok {
			parts[i] = "{" + name + "}"
		}
	}
	return strings.Join(parts, "/")
}
