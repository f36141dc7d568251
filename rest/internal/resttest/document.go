package resttest

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"millrace/rest/internal/httpx"
)

// Object is a mapping of a document.
type Object = map[string]any

// Document is the OpenAPI document of a dialect.
type Document struct {
	// Routes are those that the dialect serves, as in "post /queues/{queue}".
	Routes []string
	// Trim turns the path of a request into one of the document; nil = it is one.
	Trim func(path string) string
	// Spans is a parameter, as in "{topic}", that may hold slashes; "" = none.
	Spans string

	root Object
}

// ReadDocument reads a document; the caller sets the exported fields.
func ReadDocument(text []byte) *Document {
	d := &Document{}
	if err := yaml.Unmarshal(text, &d.root); err != nil {
		panic(err)
	}
	return d
}

// At follows keys into the document, and references on the way.
func (d *Document) At(keys ...string) any { return d.Below(d.root, keys...) }

// Below is At from a part of the document on.
func (d *Document) Below(v any, keys ...string) any {
	for _, k := range keys {
		o, _ := d.resolve(v).(Object)
		v = o[k]
	}
	return d.resolve(v)
}

func (d *Document) resolve(v any) any {
	o, ok := v.(Object)
	if !ok {
		return v
	}
	ref, ok := o["$ref"].(string)
	if !ok {
		return v
	}
	return d.At(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
}

// RoutePaths lists routes in the form of a document: "post /queues/{queue}".
// The prefix of their paths is what the document leaves out.
func RoutePaths(routes []httpx.Route, prefix string) (all []string) {
	for _, rt := range routes {
		paths := rt.Covers
		if len(paths) == 0 {
			paths = []string{parameter.ReplaceAllString(strings.TrimPrefix(rt.Path, prefix), "{$1}")}
		}
		for _, p := range paths {
			all = append(all, strings.ToLower(rt.Method)+" "+p)
		}
	}
	return all
}

var parameter = regexp.MustCompile(`:(\w+)`)

// CheckRoutes compares the document with what is served, both ways.
func (d *Document) CheckRoutes(t *testing.T) {
	t.Helper()
	var documented []string
	for path, item := range d.At("paths").(Object) {
		for method := range item.(Object) {
			if method != "parameters" && method != "servers" {
				documented = append(documented, method+" "+path)
			}
		}
	}
	served := slices.Sorted(slices.Values(d.Routes))
	slices.Sort(documented)
	if diff := cmp.Diff(documented, served); diff != "" {
		t.Errorf("documented against served:\n%s", diff)
	}
}

// CheckTags wants each operation under one of the document's tags, so that a
// reader finds it, and something under each of them.
func (d *Document) CheckTags(t *testing.T) {
	t.Helper()
	used := map[string]int{}
	for _, tag := range d.At("tags").([]any) {
		used[fmt.Sprint(tag.(Object)["name"])] = 0
	}
	for path, item := range d.At("paths").(Object) {
		for method, operation := range item.(Object) {
			if method == "parameters" || method == "servers" {
				continue
			}
			tags, _ := operation.(Object)["tags"].([]any)
			if len(tags) != 1 {
				t.Errorf("%s %s has the tags %v, want one", method, path, tags)
				continue
			}
			tag := fmt.Sprint(tags[0])
			if _, known := used[tag]; !known {
				t.Errorf("%s %s has the tag %s, which the document does not list", method, path, tag)
			}
			used[tag]++
		}
	}
	for tag, n := range used {
		if n == 0 {
			t.Errorf("nothing has the tag %s", tag)
		}
	}
}

// CheckCodes compares a list of error codes in the document with those that
// are answered, both ways.
func (d *Document) CheckCodes(t *testing.T, codes map[string]bool, keys ...string) {
	t.Helper()
	left := map[string]bool{}
	for c := range codes {
		left[c] = true
	}
	for _, c := range d.At(keys...).([]any) {
		if !codes[fmt.Sprint(c)] {
			t.Errorf("%v is documented and never answered", c)
		}
		delete(left, fmt.Sprint(c))
	}
	if len(left) > 0 {
		t.Errorf("not documented: %v", left)
	}
}

// RoutesOf returns the routes that a request may mean.
func (d *Document) RoutesOf(method, path string) (all []string) {
	for _, route := range d.Routes {
		m, template, _ := strings.Cut(route, " ")
		if strings.EqualFold(m, method) && d.matches(template, d.trim(path)) {
			all = append(all, route)
		}
	}
	return all
}

func (d *Document) trim(path string) string {
	path, _, _ = strings.Cut(path, "?")
	if d.Trim != nil {
		return d.Trim(path)
	}
	return path
}

// matches compares a path with a template.
func (d *Document) matches(template, path string) bool {
	if d.Spans != "" {
		if head, tail, ok := strings.Cut(template, d.Spans); ok {
			return strings.HasPrefix(path, head) && strings.HasSuffix(path, tail)
		}
	}
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

// Check compares an answer with the schema of its operation.
func (d *Document) Check(t *testing.T, method, path string, w *httptest.ResponseRecorder) {
	t.Helper()
	var operation any
	for template, item := range d.At("paths").(Object) {
		if op := d.Below(item, strings.ToLower(method)); op != nil && d.matches(template, d.trim(path)) {
			operation = op
		}
	}
	answer := d.Below(operation, "responses", strconv.Itoa(w.Code))
	if answer == nil {
		if w.Code < 400 && (operation != nil || w.Body.Len() > 0) {
			t.Errorf("%s %s: status %d is not documented", method, path, w.Code)
			return
		}
		answer = d.At("components", "responses", "Error")
	}
	headers, _ := d.Below(answer, "headers").(Object)
	for name := range headers {
		if w.Header().Get(name) == "" {
			t.Errorf("%s %s: the answer has no %s", method, path, name)
		}
	}
	schema := d.Below(answer, "content", "application/json", "schema")
	if w.Body.Len() == 0 || schema == nil || w.Header().Get("Content-Type") != "application/json" {
		return
	}
	var body any
	Must(t, json.Unmarshal(w.Body.Bytes(), &body))
	for _, wrong := range d.violations(schema, body, "$") {
		t.Errorf("%s %s: %s", method, path, wrong)
	}
}

// violations lists what of a value breaks a schema, as far as the documents use schemas.
func (d *Document) violations(schema, value any, where string) (all []string) {
	s, _ := d.resolve(schema).(Object)
	if c, ok := s["const"]; ok && fmt.Sprint(c) != fmt.Sprint(value) {
		all = append(all, fmt.Sprintf("%s is %v, not %v", where, value, c))
	}
	if enum, ok := s["enum"].([]any); ok && !slices.ContainsFunc(enum, func(e any) bool { return fmt.Sprint(e) == fmt.Sprint(value) }) {
		all = append(all, fmt.Sprintf("%s is %v, which is not listed", where, value))
	}
	if types, ok := s["type"]; ok && !isOf(types, value) {
		all = append(all, fmt.Sprintf("%s is a %s, not %v", where, typeOf(value), types))
	}
	all = append(all, d.memberViolations(s, value, where)...)
	list, _ := value.([]any)
	for i, v := range list {
		all = append(all, d.violations(s["items"], v, fmt.Sprintf("%s[%d]", where, i))...)
	}
	parts, _ := s["allOf"].([]any)
	for _, p := range parts {
		all = append(all, d.violations(p, value, where)...)
	}
	if choices, ok := s["anyOf"].([]any); ok && !slices.ContainsFunc(choices, func(p any) bool { return len(d.violations(p, value, where)) == 0 }) {
		all = append(all, where+" is none of what it may be")
	}
	return all
}

func (d *Document) memberViolations(s Object, value any, where string) (all []string) {
	o, _ := value.(Object)
	if o == nil {
		return nil
	}
	required, _ := s["required"].([]any)
	for _, r := range required {
		if _, ok := o[r.(string)]; !ok {
			all = append(all, fmt.Sprintf("%s has no %v", where, r))
		}
	}
	properties, _ := s["properties"].(Object)
	extra, closed := s["additionalProperties"]
	for k, v := range o {
		switch p, known := properties[k]; {
		case known:
			all = append(all, d.violations(p, v, where+"."+k)...)
		case closed && extra == false:
			all = append(all, fmt.Sprintf("%s.%s is not documented", where, k))
		case closed:
			all = append(all, d.violations(extra, v, where+"."+k)...)
		}
	}
	return all
}

// isOf reports whether a value is of one of the types; an integer is a number.
func isOf(types, v any) bool {
	of, named := typeOf(v), fmt.Sprint(types)
	return strings.Contains(named, of) || of == "integer" && strings.Contains(named, "number")
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
