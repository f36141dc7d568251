package config

import (
	"reflect"
	"strings"
)

// keysOf lists the keys that dst, a pointer to a struct, has at any level.
func keysOf(dst any) []string {
	seen := map[string]bool{}
	var out []string
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return
		}
		for f := range t.Fields() {
			key, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if key == "" || key == "-" {
				continue
			}
			if !seen[key] {
				seen[key] = true
				out = append(out, key)
			}
			walk(f.Type)
		}
	}
	walk(reflect.TypeOf(dst))
	return out
}
