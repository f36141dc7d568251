package pulsar

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"strings"

	"millrace/rest/internal/httpx"
)

// schemaInfo is a schema as it is registered, Pulsar's SchemaInfo.
type schemaInfo struct {
	Type       string            `json:"type"`                 // in capitals
	Definition string            `json:"definition,omitempty"` // of JSON and AVRO: an Avro schema
	Properties map[string]string `json:"properties,omitempty"`
	Key        *schemaInfo       `json:"key,omitempty"` // of KEY_VALUE, as Value
	Value      *schemaInfo       `json:"value,omitempty"`
}

// The types of schema that are more than a form of one value.
const (
	typeNone     = "NONE"
	typeBytes    = "BYTES"
	typeString   = "STRING"
	typeJSON     = "JSON"
	typeAvro     = "AVRO"
	typeKeyValue = "KEY_VALUE"
)

// versioned reports whether messages of the schema tell its version: bytes and
// none have none.
func (s *schemaInfo) versioned() bool { return s.Type != typeNone && s.Type != typeBytes }

// data is the definition as Pulsar hands it out.
func (s *schemaInfo) data() []byte {
	if s.Type != typeKeyValue {
		return []byte(s.Definition)
	}
	var b []byte
	for _, part := range [...]*schemaInfo{s.Key, s.Value} {
		text := part.data()
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...)
	}
	return b
}

// properties are those of Pulsar's SchemaInfo.
func (s *schemaInfo) properties() map[string]string {
	if s.Type != typeKeyValue {
		return s.Properties
	}
	all := map[string]string{"kv.encoding.type": "SEPARATED"}
	for name, part := range map[string]*schemaInfo{"key": s.Key, "value": s.Value} {
		text, _ := json.Marshal(part.Properties) // of strings: cannot fail
		if part.Properties == nil {
			text = []byte("{}")
		}
		all[name+".schema.name"], all[name+".schema.type"], all[name+".schema.properties"] = "", part.Type, string(text)
	}
	return all
}

// schemaRequest is what a request says about the schema of its messages, in the
// proposal's spelling or in the server's.
type schemaRequest struct {
	typ        string
	version    int // or noVersion
	key, value *schemaInfo
}

const noVersion = -1

// read reads the member of a body, if it is about the schema.
func (q *schemaRequest) read(d *httpx.Decoder, name []byte) (known bool, err error) {
	switch string(name) {
	case "schema_type", "schemaType":
		return true, readOptional(d, &q.typ)
	case "schema_version", "schemaVersion":
		n := int64(noVersion)
		err = readWhole(d, &n, noVersion, 1<<31-1)
		q.version = int(n)
		return true, err
	case "key_schema", "keySchema":
		q.key, err = readSchema(d)
		return true, err
	case "value_schema", "valueSchema":
		q.value, err = readSchema(d)
		return true, err
	}
	return false, nil
}

// readSchema reads a definition, a SchemaInfo, or the text of either. A
// definition has no type: "".
func readSchema(d *httpx.Decoder) (*schemaInfo, error) {
	switch d.Peek() {
	case 'n':
		d.Null()
		return nil, nil
	case '"':
		text, err := d.String()
		if err != nil {
			return nil, err
		}
		return parseSchema(text)
	default:
		raw, err := d.Raw()
		if err != nil {
			return nil, err
		}
		return parseSchema(string(raw))
	}
}

// parseSchema understands the text of a schema.
func parseSchema(text string) (*schemaInfo, error) {
	text = strings.TrimSpace(text)
	if text == "" || text[0] == '[' || text[0] == '"' {
		return &schemaInfo{Definition: text}, nil
	}
	if text[0] != '{' {
		if known(strings.ToUpper(text)) {
			return &schemaInfo{Type: strings.ToUpper(text)}, nil
		}
		return &schemaInfo{Definition: text}, nil // it may be of a type that has none
	}
	var s schemaInfo
	isInfo := false
	err := httpx.Decode([]byte(text), httpx.IgnoreUnknown, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) (err error) {
			switch {
			case string(name) == "type" && d.Peek() == '"':
				s.Type, err = d.String()
				isInfo = isInfo || s.Type == strings.ToUpper(s.Type)
				return err
			case string(name) == "schema":
				isInfo = true
				s.Definition, err = readDefinition(d)
				return err
			case string(name) == "properties" && d.Peek() == '{':
				// Of a definition it may be anything: it is looked at again below.
				raw, err := d.Raw()
				if json.Unmarshal(raw, &s.Properties) != nil {
					s.Properties = nil
				}
				return err
			}
			return d.Skip()
		})
	})
	switch {
	case err != nil:
		return nil, httpx.Problem("is not a schema: %s", err.Error())
	case !isInfo && text == "{}":
		return &schemaInfo{}, nil
	case !isInfo:
		return &schemaInfo{Definition: text}, nil
	}
	s.Type = strings.ToUpper(s.Type)
	return &s, nil
}

// readDefinition reads the member schema of a SchemaInfo: JSON as it stands, or
// its text, or its text in base64.
func readDefinition(d *httpx.Decoder) (string, error) {
	if d.Null() {
		return "", nil
	}
	if d.Peek() != '"' {
		raw, err := d.Raw()
		return string(raw), err
	}
	text, err := d.String()
	text = strings.TrimSpace(text)
	if err != nil || text == "" || strings.IndexByte(`{["`, text[0]) >= 0 {
		return text, err
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", httpx.Problem("is neither JSON nor base64")
	}
	return strings.TrimSpace(string(b)), nil
}

// given reports whether the request has a schema besides a version.
func (q *schemaRequest) given() bool { return q.typ != "" || q.key != nil || q.value != nil }

// resolve makes one schema of what the request says. It is not called for a
// version alone.
func (q *schemaRequest) resolve() (*schemaInfo, error) {
	typ := strings.ToUpper(strings.ReplaceAll(q.typ, "-", "_"))
	switch {
	case typ == "KEYVALUE" || typ == "" && q.key != nil && q.value != nil:
		typ = typeKeyValue
	case typ == "" && q.value != nil:
		typ = q.value.Type
		if typ == "" {
			typ = typeJSON
		}
	}
	switch {
	case strings.HasPrefix(typ, "PROTOBUF"):
		return nil, &codeError{badValueSchema, "schema type " + typ + " is not supported: use AVRO, JSON or BYTES"}
	case typ == typeKeyValue && (q.key == nil || q.value == nil):
		return nil, &codeError{needsKeyValue, "schema type KEY_VALUE needs key_schema and value_schema"}
	case q.key != nil && q.value == nil:
		return nil, &codeError{needsValue, "key_schema is given without value_schema"}
	case typ == typeKeyValue:
		return keyValueInfo("", q.key, q.value)
	case !known(typ):
		return nil, httpx.FieldError("schema_type", "is %q, which is not a type of schema", httpx.Clip(q.typ))
	case (typ == typeJSON || typ == typeAvro) && q.value == nil:
		return nil, &codeError{needsValue, "schema type " + typ + " needs value_schema"}
	case q.key != nil:
		return keyValueInfo(typ, q.key, q.value)
	case q.value == nil:
		return &schemaInfo{Type: typ}, nil
	}
	return partInfo(typ, q.value, "value_schema")
}

func keyValueInfo(valueType string, key, value *schemaInfo) (*schemaInfo, error) {
	k, err := partInfo("", key, "key_schema")
	if err != nil {
		return nil, err
	}
	v, err := partInfo(valueType, value, "value_schema")
	return &schemaInfo{Type: typeKeyValue, Key: k, Value: v}, err
}

// partInfo is a schema of one value. What a definition is of, when nothing
// says, is JSON.
func partInfo(typ string, part *schemaInfo, field string) (*schemaInfo, error) {
	own := part.Type
	if typ == "" {
		if typ = own; typ == "" {
			typ = typeJSON
		}
	}
	switch {
	case own != "" && own != typ:
		return nil, httpx.FieldError(field, "is of type %s, and schema_type is %s", httpx.Clip(own), typ)
	case strings.HasPrefix(typ, "PROTOBUF"):
		return nil, httpx.FieldError(field, "is of type %s, which is not supported: use AVRO, JSON or BYTES", httpx.Clip(typ))
	case !known(typ):
		return nil, httpx.FieldError(field, "is of type %q, which is not a type of schema", httpx.Clip(typ))
	}
	s := &schemaInfo{Type: typ, Properties: part.Properties}
	if typ == typeJSON || typ == typeAvro {
		if s.Definition = part.Definition; s.Definition == "{}" {
			s.Definition = ""
		}
	}
	return s, nil
}
