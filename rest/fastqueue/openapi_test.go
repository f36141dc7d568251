package fastqueue_test

import (
	"testing"

	"millrace/rest/fastqueue"
	"millrace/rest/internal/resttest"
)

var document = func() *resttest.Document {
	d := resttest.ReadDocument(fastqueue.OpenAPI)
	d.Routes = resttest.RoutePaths(fastqueue.Routes(), "")
	return d
}()

func TestDocumentAndRoutesAgreeBothWays(t *testing.T) { document.CheckRoutes(t) }
