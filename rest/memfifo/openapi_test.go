package memfifo_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"millrace/rest/memfifo"
)

// object is a mapping of the document.
type object = map[string]any

var document = sync.OnceValue(func() object {
	var doc object
	if err := yaml.Unmarshal(memfifo.OpenAPI, &doc); err != nil {
		panic(err)
	}
	return doc
})

// at follows keys into the document, and references on the way.
func at(v any, keys ...string) any {
	for _, k := range keys {
		o, _ := resolve(v).(object)
		v = o[k]
	}
	return resolve(v)
}

func resolve(v any) any {
	o, ok := v.(object)
	if !ok {
		return v
	}
	ref, ok := o["$ref"].(string)
	if !ok {
		return v
	}
	return at(document(), strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
}

func TestDocumentAndRoutesAgreeBothWays(t *testing.T) {
	var documented []string
	for path, item := range at(document(), "paths").(object) {
		for method := range item.(object) {
			if method != "parameters" {
				documented = append(documented, method+" "+path)
			}
		}
	}
	served := memfifo.RoutePaths()
	slices.Sort(documented)
	slices.Sort(served)
	if diff := cmp.Diff(documented, served); diff != "" {
		t.Errorf("documented against served:\n%s", diff)
	}
}

func TestDocumentedAttributesAreTaken(t *testing.T) {
	d := open(t)
	d.queue(t, "q", "memfifo", "")
	for name, schema := range at(document(), "components", "schemas", "Attributes", "properties").(object) {
		for _, bound := range []string{"minimum", "maximum", "default"} {
			v := at(schema, bound)
			if v == nil {
				if strings.Contains(fmt.Sprint(at(schema, "type")), "string") {
					v = "a/#"
				} else {
					continue
				}
			}
			text, err := json.Marshal(object{"attributes": object{name: v}})
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
	if want := fmt.Sprint(`"read-write":{"max-bytes":`, at(document(), "components", "schemas", "Attributes", "properties", "max-bytes", "default"), "}"); !strings.Contains(shown, want) {
		t.Errorf("defaults are %s, want %s", shown, want)
	}
}

// checkAgainstDocument checks an answer against the schema of its operation.
func checkAgainstDocument(t *testing.T, method, path string, w *httptest.ResponseRecorder) {
	t.Helper()
	var operation any
	for template, item := range at(document(), "paths").(object) {
		if op := at(item, strings.ToLower(method)); op != nil && matches(template, path) {
			operation = op
		}
	}
	answer := at(operation, "responses", strconv.Itoa(w.Code))
	if answer == nil {
		if operation != nil && w.Code < 400 {
			t.Errorf("%s %s: status %d is not documented", method, path, w.Code)
			return
		}
		answer = at(document(), "components", "responses", "Error")
	}
	headers, _ := at(answer, "headers").(object)
	for name := range headers {
		if w.Header().Get(name) == "" {
			t.Errorf("%s %s: the answer has no %s", method, path, name)
		}
	}
	schema := at(answer, "content", "application/json", "schema")
	if w.Body.Len() == 0 || schema == nil {
		return
	}
	var body any
	must(t, json.Unmarshal(w.Body.Bytes(), &body))
	for _, wrong := range violations(schema, body, "$") {
		t.Errorf("%s %s: %s", method, path, wrong)
	}
}

// matches compares a path with a template.
func matches(template, path string) bool {
	ts, ps := strings.Split(template, "/"), strings.Split(path, "/")
	if len(ts) != len(ps) {
		return false
	}
	for i := range ts {
		if ts[i] != ps[i] && !strings.HasPrefix(ts[i], "{") {
			return false
		}
	}
	return true
}

// violations lists what of a value breaks a schema, as far as the document uses schemas.
func violations(schema, value any, where string) (all []string) {
	s, _ := resolve(schema).(object)
	if enum, ok := s["enum"].([]any); ok && !slices.ContainsFunc(enum, func(e any) bool { return fmt.Sprint(e) == fmt.Sprint(value) }) {
		all = append(all, fmt.Sprintf("%s is %v, which is not listed", where, value))
	}
	if types, ok := s["type"]; ok && !strings.Contains(fmt.Sprint(types), typeOf(value)) {
		all = append(all, fmt.Sprintf("%s is a %s, not %v", where, typeOf(value), types))
	}
	o, _ := value.(object)
	required, _ := s["required"].([]any)
	for _, r := range required {
		if _, ok := o[r.(string)]; !ok {
			all = append(all, fmt.Sprintf("%s has no %v", where, r))
		}
	}
	properties, _ := s["properties"].(object)
	for k, v := range o {
		if p, ok := properties[k]; ok {
			all = append(all, violations(p, v, where+"."+k)...)
		} else if s["additionalProperties"] == false {
			all = append(all, fmt.Sprintf("%s.%s is not documented", where, k))
		}
	}
	list, _ := value.([]any)
	for i, v := range list {
		all = append(all, violations(s["items"], v, fmt.Sprintf("%s[%d]", where, i))...)
	}
	parts, _ := s["allOf"].([]any)
	for _, p := range parts {
		all = append(all, violations(p, value, where)...)
	}
	return all
}

func typeOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "array"
	case float64:
		return "integer"
	}
	return "object"
}
