package memfifo_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"millrace/rest/internal/resttest"
	"millrace/rest/memfifo"
)

var document = func() *resttest.Document {
	d := resttest.ReadDocument(memfifo.OpenAPI)
	d.Routes = resttest.RoutePaths(memfifo.Routes(), "")
	return d
}()

func TestDocumentAndRoutesAgreeBothWays(t *testing.T) { document.CheckRoutes(t) }

func TestDocumentedAttributesAreTaken(t *testing.T) {
	d := open(t)
	d.queue(t, "q", "memfifo", "")
	for name, schema := range document.At("components", "schemas", "Attributes", "properties").(resttest.Object) {
		for _, bound := range []string{"minimum", "maximum", "default"} {
			v := document.Below(schema, bound)
			if v == nil {
				if strings.Contains(fmt.Sprint(document.Below(schema, "type")), "string") {
					v = "a/#"
				} else {
					continue
				}
			}
			text, err := json.Marshal(resttest.Object{"attributes": resttest.Object{name: v}})
			must(t, err)
			d.wants(t, 200, "PATCH", "/queues/q", string(text))
			if n, ok := v.(uint64); ok && bound != "default" {
				over := n + 1
				if bound == "minimum" {
					over = n - 1
				}
				d.wants(t, 400, "PATCH", "/queues/q", fmt.Sprintf(`{"attributes":{%q:%d}}`, name, int64(over)))
			}
		}
	}
	shown := d.wants(t, 200, "PUT", "/queues/q", `{}`)
	if want := fmt.Sprint(`"read-write":{"max-bytes":`, document.At("components", "schemas", "Attributes", "properties", "max-bytes", "default"), "}"); !strings.Contains(shown, want) {
		t.Errorf("defaults are %s, want %s", shown, want)
	}
}
