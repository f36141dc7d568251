package pulsar

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// view writes the messages of one answer.
type view struct {
	api     *api
	r       *httpx.Request
	stream  string
	schemas map[int]*compiled // met so far
	absent  *compiled         // of messages that name none
}

func (a *api) newView(r *httpx.Request, stream string) *view {
	return &view{api: a, r: r, stream: stream, schemas: map[int]*compiled{}, absent: plain}
}

// registered is the form in which the broker keeps a schema.
func (s *schemaInfo) registered() []byte {
	text, _ := json.Marshal(s) // of strings: cannot fail
	return text
}

// readRegistered is the way back.
func readRegistered(text []byte) (*compiled, error) {
	var s schemaInfo
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, err
	}
	return compile(&s)
}

// bytesSchema is for messages of BYTES, which has no version.
var bytesSchema = &compiled{info: &schemaInfo{Type: typeBytes}, value: bytesCodec{}}

// schemaOf finds the schema of a message. Whoever publishes over MQTT can say
// what he likes: what is no version of a schema is none.
func (v *view) schemaOf(m *broker.Message) (*compiled, int, error) {
	text, ok := property(m, schemaProperty)
	switch {
	case !ok:
		return v.absent, noVersion, nil
	case text == unversionedBytes:
		return bytesSchema, noVersion, nil
	}
	version, known := readVersion(text)
	if !known {
		return plain, noVersion, nil
	}
	if c, met := v.schemas[version]; met {
		return c, version, nil
	}
	definition, err := v.api.broker.Schema(v.r.Context(), v.stream, version)
	if broker.KindOf(err) == broker.NotFound {
		return plain, noVersion, nil
	}
	if err != nil {
		return nil, 0, err
	}
	c, err := readRegistered(definition)
	if err == nil {
		v.schemas[version] = c
	}
	return c, version, err
}

// readVersion reads a version as entry.message writes it.
func readVersion(text string) (version int, ok bool) {
	version, err := strconv.Atoi(text)
	return version, err == nil && version >= 0 && strconv.Itoa(version) == text
}

// append writes a message in the words of the page, and behind them ours.
func (v *view) append(dst []byte, m *broker.Delivery, id messageID) ([]byte, error) {
	c, version, err := v.schemaOf(&m.Message)
	if err != nil {
		return dst, err
	}
	dst = appendID(append(dst, `{"messageId":`...), id)
	dst = c.appendKey(append(dst, `,"key":`...), m.Key)
	dst = append(dst, `,"value":`...)
	value, ok := c.value.appendJSON(dst, m.Payload)
	if !ok {
		value = append(httpx.AppendBase64(dst, m.Payload), `,"value_encoding":"base64"`...)
	}
	dst = strconv.AppendUint(append(value, `,"partition":`...), uint64(m.Partition), 10)
	dst = appendProperties(append(dst, `,"properties":`...), m.Properties)
	dst = appendNonZero(append(dst, `,"eventTime":`...), m.EventTime)
	dst = append(dst, `,"sequenceId":`...)
	if m.Producer != "" {
		dst = strconv.AppendUint(dst, m.Sequence, 10)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"replicationClusters":`...)
	if text, ok := property(&m.Message, replicateProperty); ok && isNames(text) {
		dst = append(dst, text...)
	} else {
		dst = append(dst, "null"...)
	}
	dst = strconv.AppendInt(append(dst, `,"publishTime":`...), m.Published, 10)
	if m.Producer != "" {
		dst = httpx.AppendString(append(dst, `,"producerName":`...), m.Producer)
	}
	dst = appendVersion(append(dst, `,"schema_version":`...), version)
	if m.Attempt > 0 {
		dst = strconv.AppendUint(append(dst, `,"redeliveryCount":`...), uint64(m.Attempt-1), 10)
	}
	return append(dst, '}'), nil
}

func appendNonZero(dst []byte, n int64) []byte {
	if n == 0 {
		return append(dst, "null"...)
	}
	return strconv.AppendInt(dst, n, 10)
}

// isNames reports whether a text is a JSON array of strings: anyone can write
// the property.
func isNames(text string) bool {
	var names []string
	return json.Unmarshal([]byte(text), &names) == nil && names != nil
}

// property returns the last value of a name.
func property(m *broker.Message, name string) (string, bool) {
	for _, p := range slices.Backward(m.Properties) {
		if p.Name == name {
			return p.Value, true
		}
	}
	return "", false
}

// appendProperties leaves ours out. MQTT lets a name occur more than once, JSON
// does not: the last one counts.
func appendProperties(dst []byte, ps []broker.Property) []byte {
	dst = append(dst, '{')
	first := true
	for i := range ps {
		later := func(p broker.Property) bool { return p.Name == ps[i].Name }
		if strings.HasPrefix(ps[i].Name, ourPrefix) || slices.ContainsFunc(ps[i+1:], later) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(httpx.AppendString(dst, ps[i].Name), ':')
		dst = httpx.AppendString(dst, ps[i].Value)
	}
	return append(dst, '}')
}

// appendSchemas writes the schemas of the messages so far.
func (v *view) appendSchemas(dst []byte) []byte {
	type schemaView struct {
		Type       string            `json:"type"`
		Version    int               `json:"version"`
		Data       string            `json:"data"`
		Properties map[string]string `json:"properties"`
	}
	views := []schemaView{}
	for _, version := range slices.Sorted(maps.Keys(v.schemas)) {
		s := v.schemas[version].info
		shown := schemaView{s.Type, version, base64.StdEncoding.EncodeToString(s.data()), s.properties()}
		if shown.Properties == nil {
			shown.Properties = map[string]string{}
		}
		views = append(views, shown)
	}
	text, _ := json.Marshal(views) // of strings: cannot fail
	return append(dst, text...)
}
