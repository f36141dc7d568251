package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Setting is one leaf of Config.
type Setting struct {
	Key    string // in a file and for --set: mqtt.max_inflight
	Flag   string // without dashes; "" where people do not type it
	Doc    string
	One    []string // the permitted values; nil = any
	Live   bool     // SIGHUP applies a change
	Secret bool     // its environment variable also comes as _FILE
	Shown  bool     // it cannot hold a secret; free text is shown only if it was said to be harmless
	index  []int
}

// Env returns the name of its environment variable.
func (s Setting) Env() string {
	return "MILLRACE_" + strings.ToUpper(strings.ReplaceAll(s.Key, ".", "_"))
}

// flagEnv returns the environment name made from the flag, where that differs:
// --store is store.url.
func (s Setting) flagEnv() string {
	return "MILLRACE_" + strings.ToUpper(strings.ReplaceAll(s.Flag, "-", "_"))
}

// Bool reports whether its flag may stand without a value.
func (s Setting) Bool() bool { return len(s.One) > 0 && s.One[0] == string(Off) }

var settings = collect(reflect.TypeFor[Config](), "", nil)

// Settings lists every setting in the order of Config.
func Settings() []Setting { return settings }

func collect(t reflect.Type, prefix string, index []int) []Setting {
	var out []Setting
	for f := range t.Fields() {
		key := f.Tag.Get("yaml")
		if key == "" {
			continue
		}
		at := slices.Concat(index, f.Index)
		if f.Type.Kind() == reflect.Struct {
			out = append(out, collect(f.Type, prefix+key+".", at)...)
			continue
		}
		s := Setting{
			Key: prefix + key, Flag: f.Tag.Get("flag"), Doc: f.Tag.Get("doc"),
			Live: f.Tag.Get("live") != "", Secret: f.Tag.Get("secret") != "", Shown: closed(f) || f.Tag.Get("shown") != "", index: at,
		}
		if s.Live {
			s.Doc += "; SIGHUP applies a change"
		}
		if one := f.Tag.Get("one"); one != "" {
			s.One = strings.Split(one, "|")
		}
		out = append(out, s)
	}
	return out
}

// closed reports whether a field takes numbers, measures, or one of a few words.
func closed(f reflect.StructField) bool {
	kind := f.Type.Kind()
	return kind != reflect.String && kind != reflect.Slice || f.Tag.Get("one") != ""
}

// find returns the setting with the key.
func find(key string) (Setting, bool) {
	for _, s := range settings {
		if s.Key == key {
			return s, true
		}
	}
	return Setting{}, false
}

// Take takes over from other what s is there.
func (c *Config) Take(s Setting, other *Config) {
	reflect.ValueOf(c).Elem().FieldByIndex(s.index).Set(reflect.ValueOf(other).Elem().FieldByIndex(s.index))
}

// Get returns the value of s as it is written in a file.
func (c *Config) Get(s Setting) string {
	v := reflect.ValueOf(c).Elem().FieldByIndex(s.index)
	if list, ok := reflect.TypeAssert[[]string](v); ok {
		return strings.Join(list, ",")
	}
	return fmt.Sprint(v.Interface())
}

// Value returns the value of s as JSON has it: numbers, lists, and text for what
// has a unit. What may hold a secret is hidden.
func (c *Config) Value(s Setting) any {
	text := c.Get(s)
	if !s.Shown && text != "" {
		return "******"
	}
	switch v := reflect.ValueOf(c).Elem().FieldByIndex(s.index).Interface().(type) {
	case int, bool:
		return v
	case []string:
		return append([]string{}, v...)
	}
	return text
}

// set reads text into s and remembers where it came from.
func (c *Config) set(s Setting, text string, from Origin) error {
	if err := assign(reflect.ValueOf(c).Elem().FieldByIndex(s.index), text); err != nil {
		return fmt.Errorf("%s (from %s): %w", s.Key, from, err)
	}
	c.origins[s.Key] = from
	return nil
}

func assign(v reflect.Value, text string) error {
	if u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetInt(int64(n))
	case reflect.Slice:
		v.Set(reflect.ValueOf(splitList(text)))
	default:
		return fmt.Errorf("settings of type %s cannot be read", v.Type())
	}
	return nil
}

// splitList reads a list as it is written in the environment and in flags.
func splitList(text string) []string {
	var out []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
