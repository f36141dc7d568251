package flowmq

import (
	"strings"

	"millrace/rest/internal/httpx"
)

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

// RoutePaths lists the routes in the form of the document: "post /queues/{queue}".
func RoutePaths() []string {
	var all []string
	for _, rt := range (&api{}).routes() {
		all = append(all, routePaths(rt)...)
	}
	return all
}

func routePaths(rt httpx.Route) (all []string) {
	paths := rt.Covers
	if len(paths) == 0 {
		paths = []string{template(rt.Path)}
	}
	for _, p := range paths {
		all = append(all, strings.ToLower(rt.Method)+" "+p)
	}
	return all
}

// template turns httprouter's parameters into those of OpenAPI.
func template(path string) string {
	parts := strings.Split(strings.TrimPrefix(path, Prefix), "/")
	for i, p := range parts {
		if name, ok := strings.CutPrefix(p, ":"); ok {
			parts[i] = "{" + name + "}"
		}
	}
	return strings.Join(parts, "/")
}
