package emqx

import (
	_ "embed"
	"fmt"
	"net/http"

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
