package fastqueue_test

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

	"millrace/rest/fastqueue"
)

// object is a mapping of the document.
type object = map[string]any

var document = sync.OnceValue(func() object {
	var doc object
	if err := yaml.Unmarshal(fastqueue.OpenAPI, &doc); err != nil {
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
	served := fastqueue.RoutePaths()
	slices.Sort(documented)
	slices.Sort(served)
	if diff := cmp.Diff(documented, served); diff != "" {
		t.Errorf("documented against served:\n%s", diff)
	}
}

// checkAgainstDocument checks an answer against the schema of its operation.
func checkAgainstDocument(t *testing.T, method, target string, w *httptest.ResponseRecorder) {
	t.Helper()
	path, _, _ := strings.Cut(target, "?")
	var operation any
	for template, item := range at(document(), "paths").(object) {
		if op := at(item, strings.ToLower(method)); op != nil && matches(template, path) {
			operation = op
		}
	}
	answer := at(operation, "responses", strconv.Itoa(w.Code))
	if answer == nil {
		if w.Code < 400 && w.Body.Len() > 0 {
			t.Errorf("%s %s: status %d is not documented", method, path, w.Code)
			return
		}
		answer = at(document(), "components", "responses", "Error")
	}
	if w.Body.Len() == 0 {
		return
	}
	var body any
	must(t, json.Unmarshal(w.Body.Bytes(), &body))
	for _, wrong := range violations(at(answer, "content", "application/json", "schema"), body, "$") {
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
	if c, ok := s["const"]; ok && fmt.Sprint(c) != fmt.Sprint(value) {
		all = append(all, fmt.Sprintf("%s is %v, not %v", where, value, c))
	}
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
	for k, p := range properties {
		if v, ok := o[k]; ok {
			all = append(all, violations(p, v, where+"."+k)...)
		}
	}
	list, _ := value.([]any)
	for i, v := range list {
		all = append(all, violations(s["items"], v, fmt.Sprintf("%s[%d]", where, i))...)
	}
	if choices, ok := s["anyOf"].([]any); ok && !slices.ContainsFunc(choices, func(p any) bool { return len(violations(p, value, where)) == 0 }) {
		all = append(all, where+" is none of what it may be")
	}
	if extra, ok := s["additionalProperties"]; ok {
		for k, v := range o {
			if _, known := properties[k]; !known {
				all = append(all, violations(extra, v, where+"."+k)...)
			}
		}
	}
	parts, _ := s["allOf"].([]any)
	for _, p := range parts {
		all = append(all, violations(p, value, where)...)
	}
	return all
}

func typeOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "array"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
		return "number"
	}
	return "object"
}
