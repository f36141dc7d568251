package httpx_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// value reads any JSON value into what encoding/json would make of it.
func value(d *httpx.Decoder) (v any, err error) {
	switch d.Peek() {
	case '{':
		m := map[string]any{}
		return m, d.Object(func(name []byte) error {
			key := string(name)
			v, err := value(d)
			m[key] = v
			return err
		})
	case '[':
		a := []any{}
		err = d.Array(func(int) error {
			v, err := value(d)
			a = append(a, v)
			return err
		})
		return a, err
	case '"':
		return d.String()
	case 't':
		return d.Bool()
	case '0':
		n, err := d.Number()
		return json.Number(n), err
	}
	if d.Null() {
		return nil, nil
	}
	return nil, d.Wrong("a value")
}

func decode(text string) (v any, err error) {
	err = httpx.Decode([]byte(text), httpx.RefuseUnknown, func(d *httpx.Decoder) error {
		v, err = value(d)
		return err
	})
	return v, err
}

func TestStrictTextsAreReadAsEncodingJSONReadsThem(t *testing.T) {
	for _, text := range []string{
		`{}`, `[]`, ` { "a" : [ 1 , -0, 2.50e+3 , true , false , null , "" ] } `,
		`"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 plain text longer than eight bytes"`,
		`{"a":{"b":{"c":[[],{}]}},"\u0064":1}`, `"ü€😀"`,
		"\"\\u0000\x7f\"", `1`, `-1.5E-7`,
		`{` + members(256) + `}`, strings.Repeat("[", 32) + strings.Repeat("]", 32),
	} {
		got, err := decode(text)
		if err != nil {
			t.Errorf("%.60s: %v", text, err)
			continue
		}
		if want := standard(t, text); !reflect.DeepEqual(got, want) {
			t.Errorf("%.60s: got %v, want %v", text, got, want)
		}
	}
}

func members(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`"m%d":%d`, i, i))
	}
	return strings.Join(all, ",")
}

func standard(tb testing.TB, text string) (v any) {
	tb.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		tb.Fatalf("%.60s: encoding/json refuses what was taken: %v", text, err)
	}
	return v
}

func TestLaxTextsAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		``:                               "empty",
		`{} {}`:                          "goes on after its end",
		`{"a":1,"a":2}`:                  "a is given twice",
		`{"a":1,"\u0061":2}`:             "a is given twice",
		`{` + members(20) + `,"m17":0}`:  "m17 is given twice",
		`{` + members(257) + `}`:         "more than 256 members",
		strings.Repeat("[", 33):          "deeper than 32",
		strings.Repeat(`{"a":`, 100_000): "deeper than 32",
		"\"\xff\"":                       "not UTF-8",
		"\"\\n\xff\"":                    "not UTF-8",
		"{\"\xc3\":1}":                   "not UTF-8",
		`"\ud800"`:                       "surrogate",
		`"\udc00\ud800"`:                 "surrogate",
		`"\ud800\u0041"`:                 "surrogate",
		`"\u12g4"`:                       "malformed",
		`"\x"`:                           "unknown escape",
		"\"a\nb\"":                       "control character",
		"\xef\xbb\xbf{}":                 "byte order mark",
		"\xff\xfe{\x00}\x00":             "no value",
		`{"a":1,}`:                       "no member name",
		`[1,]`:                           "no value",
		`[1 2]`:                          "no comma",
		`{"a" 1}`:                        "no colon",
		`{a:1}`:                          "no member name",
		`01`:                             "malformed number",
		`-`:                              "malformed number",
		`1.`:                             "malformed number",
		`1e`:                             "malformed number",
		`tru`:                            "unknown word",
		`nul`:                            "must be a value, not null",
		`{"a":`:                          "no value",
		`"abc`:                           "ends inside a string",
		`"abc\`:                          "ends inside a string",
		`{"a":1`:                         "ends too early",
	} {
		_, err := decode(text)
		e, ok := errors.AsType[*broker.Error](err)
		if !ok || e.Kind != broker.Invalid || !strings.Contains(e.Message, want) {
			t.Errorf("%.40q: got %v, want ...%s...", text, err, want)
		}
	}
}

func TestErrorsNameTheFieldByItsPath(t *testing.T) {
	read := func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) error {
			switch string(name) {
			case "list":
				return d.Array(func(int) error {
					return d.Object(func([]byte) error { _, err := d.Int(); return err })
				})
			case "Name":
				_, err := d.Bool()
				return err
			}
			return d.Unknown()
		})
	}
	for text, want := range map[string][2]string{
		`[]`:                                    {"", "the body must be an object, not an array"},
		`{"list":[{},{"n":"1"}]}`:               {"list[1].n", "list[1].n must be a whole number, not a string"},
		`{"list":[1]}`:                          {"list[0]", "list[0] must be an object, not a number"},
		`{"list":[{"n":1.5}]}`:                  {"list[0].n", "list[0].n must be a whole number"},
		`{"list":[{"n":99999999999999999999}]}`: {"list[0].n", "list[0].n is out of range"},
		`{"list":[{"n":9223372036854775808}]}`:  {"list[0].n", "list[0].n is out of range"},
		`{"name":true}`:                         {"name", "name is not known here"},
		`{"Name":null}`:                         {"Name", "Name must be true or false, not null"},
	} {
		err := httpx.Decode([]byte(text), httpx.RefuseUnknown, read)
		e, ok := errors.AsType[*broker.Error](err)
		if !ok || e.Field != want[0] || e.Message != want[1] {
			t.Errorf("%s: got %#v, want %q", text, err, want)
		}
	}
	if err := httpx.Decode([]byte(`{"other":{"a":[1,"x",null,true]},"Name":true}`), httpx.IgnoreUnknown, read); err != nil {
		t.Errorf("a lenient dialect refuses what it does not know: %v", err)
	}
	if err := httpx.Decode([]byte(`{"other":{"a":1,"a":2}}`), httpx.IgnoreUnknown, read); err == nil {
		t.Error("a lenient dialect takes a member given twice")
	}
}

func TestWholeNumbersReachTheLimitsOfInt64(t *testing.T) {
	for _, n := range []int64{0, -1, math.MaxInt64, -math.MaxInt64} {
		var got int64
		err := httpx.Decode(strconv.AppendInt(nil, n, 10), httpx.RefuseUnknown, func(d *httpx.Decoder) (err error) {
			got, err = d.Int()
			return err
		})
		if err != nil || got != n {
			t.Errorf("%d: got %d, %v", n, got, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"a":[1,"\u00e9\ud83d\ude00",{"b":null}]}`, "\"\xff\"", `"\ud800"`, `{"a":1,"a":2}`, `[1e5,true]`, `"12345678\"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := decode(text)
		if err == nil {
			if want := standard(t, text); !reflect.DeepEqual(got, want) {
				t.Fatalf("got %#v, encoding/json says %#v", got, want)
			}
			return
		}
		if _, ok := errors.AsType[*broker.Error](err); !ok {
			t.Fatalf("error of another type: %v", err)
		}
		// What encoding/json takes and we do not must be one of our stricter rules.
		if json.Valid([]byte(text)) && !stricter(err.Error()) {
			t.Fatalf("valid JSON refused: %v", err)
		}
	})
}

func stricter(reason string) bool {
	for _, r := range []string{"given twice", "not UTF-8", "surrogate", "deeper than", "more than 256"} {
		if strings.Contains(reason, r) {
			return true
		}
	}
	return false
}
