package pulsar

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/twmb/avro"

	"millrace/rest/internal/httpx"
)

// codec turns one value from JSON into the form that is kept, and back.
type codec interface {
	// encode returns what is kept of a value as it is written; its bytes are the
	// value's no more.
	encode(value []byte) ([]byte, error)
	// appendJSON appends what is kept as JSON; it returns false for bytes that
	// the schema has not.
	appendJSON(dst, kept []byte) ([]byte, bool)
	// contentType is the one of what is kept.
	contentType() string
}

// compiled is a schema that is ready for use.
type compiled struct {
	info  *schemaInfo
	key   codec // nil: keys are strings
	value codec
}

// compile makes a schema ready. The error is about key_schema or value_schema.
func compile(info *schemaInfo) (*compiled, error) {
	c := &compiled{info: info}
	value := info
	var err error
	if info.Type == typeKeyValue {
		value = info.Value
		if c.key, err = newCodec(info.Key); err != nil {
			return nil, httpx.FieldError("key_schema", "%s", err.Error())
		}
	}
	if c.value, err = newCodec(value); err != nil {
		return nil, httpx.FieldError("value_schema", "%s", err.Error())
	}
	return c, nil
}

// plain is for messages without a schema.
var plain = &compiled{info: &schemaInfo{Type: typeNone}, value: textCodec{}}

func newCodec(s *schemaInfo) (codec, error) {
	switch s.Type {
	case typeNone, typeString:
		return textCodec{strict: s.Type == typeString}, nil
	case typeBytes:
		return bytesCodec{}, nil
	case typeJSON:
		if s.Definition == "" {
			return jsonCodec{}, nil
		}
		schema, err := avro.Parse(s.Definition)
		if err != nil {
			return nil, httpx.Problem("is not an Avro schema, which defines JSON as well: %s", err.Error())
		}
		return jsonCodec{schema}, nil
	case typeAvro:
		schema, err := avro.Parse(s.Definition)
		if err != nil {
			return nil, httpx.Problem("is not an Avro schema: %s", err.Error())
		}
		return avroCodec{schema}, nil
	}
	p, ok := primitives[s.Type]
	if !ok {
		return nil, httpx.Problem("is of type %q, which is not a type of schema", httpx.Clip(s.Type))
	}
	return p, nil
}

// known reports whether there is a schema of that type, in capitals.
func known(typ string) bool {
	switch typ {
	case typeNone, typeBytes, typeString, typeJSON, typeAvro, typeKeyValue:
		return true
	}
	_, ok := primitives[typ]
	return ok || strings.HasPrefix(typ, "PROTOBUF")
}

// isNull is a value that says that there is none.
func isNull(value []byte) bool { return string(value) == "null" }

// unquote returns the text of a JSON string.
func unquote(value []byte) ([]byte, bool) {
	if len(value) == 0 || value[0] != '"' {
		return nil, false
	}
	if bytes.IndexByte(value, '\\') < 0 { // what was read as JSON needs no other look
		return bytes.Clone(value[1 : len(value)-1]), true
	}
	var text []byte
	err := httpx.Decode(value, httpx.IgnoreUnknown, func(d *httpx.Decoder) (err error) {
		text, err = d.Bytes()
		return err
	})
	return text, err == nil
}

// textCodec keeps strings as their bytes, and null as none. Without a schema it
// keeps other values as their JSON text.
type textCodec struct{ strict bool }

func (c textCodec) encode(value []byte) ([]byte, error) {
	if text, ok := unquote(value); ok {
		return text, nil
	}
	switch {
	case isNull(value):
		return nil, nil
	case c.strict:
		return nil, httpx.Problem("must be a string")
	}
	return bytes.Clone(value), nil
}

func (textCodec) appendJSON(dst, kept []byte) ([]byte, bool) {
	if !utf8.Valid(kept) {
		return dst, false
	}
	return httpx.AppendString(dst, kept), true
}

func (textCodec) contentType() string { return "text/plain; charset=utf-8" }

// bytesCodec is base64 outside.
type bytesCodec struct{}

func (bytesCodec) encode(value []byte) ([]byte, error) {
	text, ok := unquote(value)
	switch {
	case isNull(value):
		return nil, nil
	case !ok:
		return nil, httpx.Problem("must be a string in base64")
	}
	b, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return nil, httpx.Problem("must be a string in base64")
	}
	return b, nil
}

func (bytesCodec) appendJSON(dst, kept []byte) ([]byte, bool) {
	return httpx.AppendBase64(dst, kept), true
}

func (bytesCodec) contentType() string { return "application/octet-stream" }

// jsonCodec keeps a value as it was written, if the schema has it.
type jsonCodec struct{ schema *avro.Schema }

func (c jsonCodec) encode(value []byte) ([]byte, error) {
	if c.schema != nil {
		var v any
		if err := c.schema.DecodeJSON(value, &v); err != nil {
			return nil, httpx.Problem("is not what the schema says: %s", err.Error())
		}
	}
	return bytes.Clone(value), nil
}

func (jsonCodec) appendJSON(dst, kept []byte) ([]byte, bool) {
	if !json.Valid(kept) || !utf8.Valid(kept) {
		return dst, false
	}
	return append(dst, kept...), true
}

func (jsonCodec) contentType() string { return "application/json" }

// avroCodec keeps Avro's binary form.
type avroCodec struct{ schema *avro.Schema }

func (c avroCodec) encode(value []byte) ([]byte, error) {
	var v any
	if err := c.schema.DecodeJSON(value, &v); err != nil {
		return nil, httpx.Problem("is not what the schema says: %s", err.Error())
	}
	b, err := c.schema.Encode(v)
	if err != nil {
		return nil, httpx.Problem("is not what the schema says: %s", err.Error())
	}
	return b, nil
}

func (c avroCodec) appendJSON(dst, kept []byte) ([]byte, bool) {
	var v any
	if rest, err := c.schema.Decode(kept, &v); err != nil || len(rest) > 0 {
		return dst, false
	}
	out, err := c.schema.AppendEncodeJSON(dst, v)
	if err != nil {
		return dst, false
	}
	return out, true
}

func (avroCodec) contentType() string { return "avro/binary" }
