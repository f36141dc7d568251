package flowmq_test

import (
	"encoding/json"
	"strings"
	"testing"

	"millrace/rest/flowmq"
	"millrace/rest/internal/resttest"
)

var document = func() *resttest.Document {
	d := resttest.ReadDocument(flowmq.OpenAPI)
	d.Routes = resttest.RoutePaths(flowmq.Routes(), flowmq.Prefix)
	d.Trim = func(path string) string { return strings.TrimPrefix(path, flowmq.Prefix) }
	d.Spans = "{topic}"
	return d
}()

func TestDocumentAndRoutesAgreeBothWays(t *testing.T) { document.CheckRoutes(t) }

func TestEveryOperationHasItsTag(t *testing.T) { document.CheckTags(t) }

func TestDocumentListsEveryErrorCode(t *testing.T) {
	document.CheckCodes(t, flowmq.Codes(), "components", "schemas", "Problem", "properties", "code", "enum")
}

func TestDocumentedQueueSettingsAreTaken(t *testing.T) {
	d := open(t)
	d.queue(t, `{"name":"q","topic_filter":"a"}`)
	shown := ok[resttest.Object](t, d, 200, "GET", "/api/v1/queues/q", "")
	for name, schema := range document.At("components", "schemas", "QueueFields", "properties").(resttest.Object) {
		value, there := shown[name]
		if !there {
			t.Errorf("%s is documented and not shown", name)
		}
		text, _ := json.Marshal(resttest.Object{name: value})
		if want, _ := json.Marshal(resttest.Object{name: document.Below(schema, "default")}); document.Below(schema, "default") != nil && string(want) != string(text) {
			t.Errorf("the default is %s, the document says %s", text, want)
		}
		if string(text) == `{"driver":"disk"}` || value == nil {
			continue
		}
		if w := d.Do(t, "PATCH", "/api/v1/queues/q", string(text)); w.Code != 200 {
			t.Errorf("%s: %d %s", text, w.Code, w.Body)
		}
	}
}
