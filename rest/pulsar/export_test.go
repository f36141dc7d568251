package pulsar

import (
	"strings"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// The error table, for tests.
var (
	RenderError = renderError
	Classify    = classify
	ClassifyOne = classifyOne
	ByKind      = byKind
)

// Codes lists every code that an answer can have.
func Codes() map[int]bool {
	all := map[int]bool{storageFull: true, needsKeyValue: true, needsValue: true}
	for _, table := range []map[string]int{byField} {
		for _, code := range table {
			all[code] = true
		}
	}
	for _, code := range byKind {
		all[code] = true
	}
	for _, code := range bySubject {
		all[code] = true
	}
	for _, code := range byStatus {
		all[code] = true
	}
	return all
}

// Routes is the route table.
func Routes() []httpx.Route { return newAPI(nil, Options{}).routes() }

// ParsePath tells the stream, the topic and the partition of a path of an endpoint.
func ParsePath(rest, path string) (stream, topic string, partition int, err error) {
	at, err := shapeOf(path).place(strings.Split(strings.TrimPrefix(rest, "/"), "/"))
	if at == nil {
		return "", "", 0, err
	}
	return at.stream, at.topic, at.partition, err
}

// Shapes are the paths of all endpoints, behind the topic.
func Shapes() (all []string) {
	for _, e := range newAPI(nil, Options{}).endpoints {
		all = append(all, e.path)
	}
	return all
}

// RoundTripID reads a message id and writes it.
func RoundTripID(s string) (base64, text string, ok bool) {
	id, ok := parseID(s)
	return string(appendID(nil, id)), string(id.appendText(nil)), ok
}

// RoundTrip reads a schema and a value, and writes what is kept of it.
func RoundTrip(typ, schema, value string) (json string, kept []byte, err error) {
	q := &schemaRequest{typ: typ, version: noVersion}
	if schema != "" {
		if q.value, err = parseSchema(schema); err != nil {
			return "", nil, err
		}
	}
	c, err := q.compile()
	if err != nil {
		return "", nil, err
	}
	if kept, err = c.value.encode([]byte(value)); err != nil {
		return "", nil, err
	}
	out, ok := c.value.appendJSON(nil, kept)
	if !ok {
		err = &broker.Error{Message: "does not come back"}
	}
	return string(out), kept, err
}

// ReadBack is how bytes that anyone may have published come out under a schema.
func ReadBack(typ, schema string, kept []byte) (json string, ok bool) {
	q := &schemaRequest{typ: typ, version: noVersion}
	q.value, _ = parseSchema(schema)
	c, err := q.compile()
	if err != nil {
		return "", false
	}
	out, ok := c.value.appendJSON(nil, kept)
	return string(out), ok
}
