package apidocs

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
	"net/http"
	"strings"

	"millrace/rest/internal/httpx"
)

// SwaggerVersion is the release of npm's swagger-ui-dist that is embedded: two of
// its files, each compressed by gzip -9 -n, and its licences as they are.
const SwaggerVersion = "5.35.0"

//go:embed swagger-ui
var swagger embed.FS

// swaggerRoutes serve Swagger UI, unchanged.
func swaggerRoutes() []httpx.Route {
	return []httpx.Route{
		{Method: http.MethodGet, Path: Folder + "/swagger-ui-bundle.js", Handler: packed("swagger-ui-bundle.js", "text/javascript; charset=utf-8")},
		{Method: http.MethodGet, Path: Folder + "/swagger-ui.css", Handler: packed("swagger-ui.css", "text/css; charset=utf-8")},
		{Method: http.MethodGet, Path: Folder + "/LICENSE", Handler: text("text/plain; charset=utf-8", swaggerFile("LICENSE"))},
		{Method: http.MethodGet, Path: Folder + "/NOTICE", Handler: text("text/plain; charset=utf-8", swaggerFile("NOTICE"))},
		{Method: http.MethodGet, Path: Folder + "/swagger-ui-bundle.js.LICENSE.txt", Handler: text("text/plain; charset=utf-8", swaggerFile("swagger-ui-bundle.js.LICENSE.txt"))},
	}
}

func swaggerFile(name string) []byte {
	body, err := swagger.ReadFile("swagger-ui/" + name)
	if err != nil {
		panic(err) // it is embedded
	}
	return body
}

// packed answers a file as it is kept, compressed, to whoever takes that; every
// browser does. It changes with the release only, which the page has in its
// addresses.
func packed(name, contentType string) httpx.Handler {
	body := swaggerFile(name + ".gz")
	return func(w http.ResponseWriter, r *httpx.Request) error {
		h := w.Header()
		h.Set("Vary", "Accept-Encoding")
		h.Set("Cache-Control", "public, max-age=86400")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			h.Set("Content-Encoding", "gzip")
			return httpx.WriteText(w, r, contentType, body)
		}
		plain, err := unpack(body)
		if err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
		return httpx.WriteText(w, r, contentType, plain)
	}
}

func unpack(body []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}
