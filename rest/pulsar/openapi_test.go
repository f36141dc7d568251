package pulsar_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"millrace/rest/internal/resttest"
	"millrace/rest/pulsar"
)

// The page writes consumer in some paths and consumers in others, as the document.
var (
	plural   = regexp.MustCompile(`/consumers/([^/]+)/`)
	singular = regexp.MustCompile(`/consumer/([^/]+)$`)
)

var document = func() *resttest.Document {
	d := resttest.ReadDocument(pulsar.OpenAPI)
	d.Routes = resttest.RoutePaths(pulsar.Routes(), "")
	d.Trim = func(path string) string {
		path = strings.TrimPrefix(path, pulsar.Prefix)
		path = plural.ReplaceAllString(path, "/consumer/$1/")
		path = singular.ReplaceAllString(path, "/consumers/$1")
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
