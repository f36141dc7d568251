package pulsar_test

import (
	"encoding/hex"
	"encoding/json"
	"testing"

	"millrace/rest/pulsar"
)

const user = `{"type":"record","name":"User","fields":[{"name":"name","type":"string"},{"name":"age","type":["null","int"],"default":null}]}`

// The binary forms are those of Pulsar's clients.
func TestValuesComeBackAsTheirSchemaSays(t *testing.T) {
	for _, c := range []struct{ typ, schema, value, kept, back string }{
		{"", "", `"h\u00e9"`, "68c3a9", `"hé"`},
		{"", "", `{"a": 1}`, "7b2261223a20317d", `"{\"a\": 1}"`},
		{"none", "", `5`, "35", `"5"`},
		{"", "", `null`, "", `""`},
		{"STRING", "", `""`, "", `""`},
		{"BYTES", "", `"/wA="`, "ff00", `"/wA="`},
		{"JSON", "{}", `[1, "x"]`, "5b312c202278225d", `[1, "x"]`},
		{"json", user, `{"name":"a","age":1}`, hex.EncodeToString([]byte(`{"name":"a","age":1}`)), `{"name":"a","age":1}`},
		{"AVRO", user, `{"name":"a","age":1}`, "02610202", `{"name":"a","age":1}`},
		{"AVRO", user, `{"name":"a","age":{"int":1}}`, "02610202", `{"name":"a","age":1}`},
		{"AVRO", user, `{"name":"a"}`, "026100", `{"name":"a","age":null}`},
		{"AVRO", `"bytes"`, `"\u00ff"`, "02ff", `"\u00ff"`},
		{"BOOLEAN", "", `true`, "01", `true`},
		{"BOOLEAN", "", `"false"`, "00", `false`},
		{"INT8", "", `-128`, "80", `-128`},
		{"INT16", "", `258`, "0102", `258`},
		{"INT32", "", `-1`, "ffffffff", `-1`},
		{"INT64", "", `"9223372036854775807"`, "7fffffffffffffff", `9223372036854775807`},
		{"FLOAT", "", `1.5`, "3fc00000", `1.5`},
		{"FLOAT", "", `0.1`, "3dcccccd", `0.1`},
		{"DOUBLE", "", `-2`, "c000000000000000", `-2`},
		{"DOUBLE", "", `"NaN"`, "7ff8000000000001", `"NaN"`},
		{"DOUBLE", "", `1e300`, "7e37e43c8800759c", `1e+300`},
		{"DATE", "", `"1970-01-02"`, "0000000005265c00", `86400000`},
		{"TIME", "", `"00:00:01"`, "00000000000003e8", `1000`},
		{"TIMESTAMP", "", `"1970-01-01T00:00:01Z"`, "00000000000003e8", `1000`},
		{"TIMESTAMP", "", `-1`, "ffffffffffffffff", `-1`},
		{"INSTANT", "", `"1970-01-01T01:00:01.5+01:00"`, "00000000000000011dcd6500", `"1970-01-01T00:00:01.5Z"`},
		{"INSTANT", "", `1001`, "0000000000000001000f4240", `"1970-01-01T00:00:01.001Z"`},
		{"LOCAL_DATE", "", `"1969-12-31"`, "ffffffffffffffff", `"1969-12-31"`},
		{"LOCAL_TIME", "", `"00:00:00.000000001"`, "0000000000000001", `"00:00:00.000000001"`},
		{"LOCAL_DATE_TIME", "", `"1969-12-31T23:59:59"`, "ffffffffffffffff00004e9455b43600", `"1969-12-31T23:59:59"`},
	} {
		back, kept, err := pulsar.RoundTrip(c.typ, c.schema, c.value)
		if err != nil || hex.EncodeToString(kept) != c.kept || back != c.back {
			t.Errorf("%s %s of %s: kept %x, back %s, %v", c.value, c.typ, c.schema, kept, back, err)
		}
	}
}

func TestValuesThatTheirSchemaHasNotAreRefused(t *testing.T) {
	for _, c := range [][3]string{
		{"STRING", "", `5`},
		{"BYTES", "", `5`},
		{"BYTES", "", `"?"`},
		{"JSON", user, `{"name":5}`},
		{"JSON", user, `{}`},
		{"AVRO", user, `{"name":"a","age":1.5}`},
		{"BOOLEAN", "", `1`},
		{"INT8", "", `128`},
		{"INT16", "", `1.0`},
		{"INT32", "", `null`},
		{"INT64", "", `9223372036854775808`},
		{"FLOAT", "", `"x"`},
		{"FLOAT", "", `1e39`},
		{"DOUBLE", "", `{}`},
		{"DATE", "", `"1970-13-01"`},
		{"TIME", "", `"25:00:00"`},
		{"TIMESTAMP", "", `"yesterday"`},
		{"INSTANT", "", `"1970-01-01"`},
		{"LOCAL_DATE", "", `5`},
		{"LOCAL_TIME", "", `""`},
		{"LOCAL_DATE_TIME", "", `"1970-01-01"`},
	} {
		if back, kept, err := pulsar.RoundTrip(c[0], c[1], c[2]); err == nil {
			t.Errorf("%s %s of %s: kept %x, back %s", c[2], c[0], c[1], kept, back)
		}
	}
}

// FuzzReadBack reads bytes that somebody else published under a schema: they
// come out as JSON, or not at all.
func FuzzReadBack(f *testing.F) {
	types := []string{
		"STRING", "JSON", "AVRO", "BOOLEAN", "INT8", "INT64", "FLOAT", "DOUBLE", "DATE", "INSTANT", "LOCAL_DATE",
		"LOCAL_TIME", "LOCAL_DATE_TIME", "TIMESTAMP",
	}
	schemas := []string{user, `{"type":"map","values":["null","bytes",{"type":"array","items":"double"}]}`, `{"type":"record","name":"x","fields":[{"name":"x","type":["null","x"]}]}`}
	for i := range types {
		f.Add(uint8(i), uint8(0), []byte("\x02a\x02\x02\xff\xff\xff\xff"))
	}
	f.Fuzz(func(t *testing.T, typ, schema uint8, kept []byte) {
		name, definition := types[int(typ)%len(types)], schemas[int(schema)%len(schemas)]
		if out, ok := pulsar.ReadBack(name, definition, kept); ok && !json.Valid([]byte(out)) {
			t.Fatalf("%x as %s is %s", kept, name, out)
		}
	})
}

// FuzzSchemas reads any text as a schema and a value.
func FuzzSchemas(f *testing.F) {
	f.Add("JSON", user, `{"name":"a"}`)
	f.Add("", `{"type":"AVRO","schema":"InN0cmluZyI=","properties":{"a":"b"}}`, `"x"`)
	f.Add("INT32", `int32`, `5`)
	f.Add("AVRO", `["null","string"]`, `null`)
	f.Fuzz(func(t *testing.T, typ, schema, value string) {
		if !json.Valid([]byte(value)) {
			return
		}
		out, kept, err := pulsar.RoundTrip(typ, schema, value)
		if err == nil && !json.Valid([]byte(out)) {
			t.Fatalf("%s of %s %s is kept as %x, and comes back as %s", value, typ, schema, kept, out)
		}
	})
}
