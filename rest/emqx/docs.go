package emqx

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"millrace/rest/internal/httpx"
)

// OpenAPI is the document of the dialect, version 3.0.3 as EMQX's page has it.
//
//go:embed openapi.yaml
var OpenAPI []byte

// document answers it as JSON, which is what EMQX serves.
func (a *api) document(w http.ResponseWriter, r *httpx.Request) error {
	text, err := yaml.YAMLToJSON(OpenAPI)
	if err != nil {
		return fmt.Errorf("convert the document: %w", err)
	}
	return httpx.WriteText(w, r, "application/json", text)
}

// overview answers a page for people that lists the calls of the document.
func (a *api) overview(w http.ResponseWriter, r *httpx.Request) error {
	text, err := yaml.YAMLToJSON(OpenAPI)
	if err != nil {
		return fmt.Errorf("convert the document: %w", err)
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("read the document: %w", err)
	}
	page := strings.Builder{}
	page.WriteString("<!doctype html>\n<meta charset=utf-8>\n<title>EMQX management API</title>\n<h1>EMQX management API</h1>\n" +
		"<p>The document for programs is <a href=\"swagger.json\">/api-docs/swagger.json</a> (OpenAPI 3.0.3).</p>\n<table>\n")
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			var operation struct{ Summary string }
			if json.Unmarshal(doc.Paths[path][method], &operation) != nil || operation.Summary == "" {
				continue // parameters of the path
			}
			fmt.Fprintf(&page, "<tr><td>%s<td><code>%s</code><td>%s\n", strings.ToUpper(method), html.EscapeString(path), html.EscapeString(operation.Summary))
		}
	}
	page.WriteString("</table>\n")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	return httpx.WriteText(w, r, "text/html; charset=utf-8", []byte(page.String()))
}

// toOverview leads from the folder to its page.
func (a *api) toOverview(w http.ResponseWriter, r *httpx.Request) error {
	http.Redirect(w, r.Request, "/api-docs/index.html", http.StatusPermanentRedirect)
	return nil
}
