package pulsar_test

import (
	"fmt"
	"strings"
	"testing"

	"millrace/rest/internal/resttest"
	"millrace/rest/pulsar"
)

var document = func() *resttest.Document {
	d := resttest.ReadDocument(pulsar.OpenAPI)
	d.Routes = resttest.RoutePaths(pulsar.Routes(), "")
	d.Trim = func(path string) string {
		path = strings.TrimPrefix(path, pulsar.Prefix)
		for _, domain := range []string{"/persistent", "/non-persistent"} {
			if rest, ok := strings.CutPrefix(path, domain); ok && strings.Count(rest, "/") > 2 {
				return rest
			}
		}
		return path
	}
	return d
}()

func TestDocumentAndRoutesAgreeBothWays(t *testing.T) { document.CheckRoutes(t) }

func TestDocumentListsEveryErrorCode(t *testing.T) {
	codes := map[string]bool{}
	for code := range pulsar.Codes() {
		codes[fmt.Sprint(code)] = true
	}
	document.CheckCodes(t, codes, "components", "schemas", "Code", "enum")
}
