package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml"
)

// files returns the configuration files to read, in order; later ones win. No
// file at all is fine, unless it was named.
func (s Source) files() ([]string, error) {
	if s.File != "" {
		return []string{s.File}, nil
	}
	var look []string
	if s.Here {
		look = append(look, "millrace.yaml")
	}
	if s.User && s.ConfigHome != "" {
		look = append(look, filepath.Join(s.ConfigHome, "millrace", "millrace.yaml"))
	}
	for _, f := range look {
		if _, err := os.Stat(f); err == nil {
			return []string{f}, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot read the configuration file: %w", err)
		}
	}
	if s.SystemDir == "" {
		return nil, nil
	}
	found, err := filepath.Glob(filepath.Join(s.SystemDir, "conf.d", "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("search %s: %w", s.SystemDir, err)
	}
	slices.Sort(found)
	system := filepath.Join(s.SystemDir, "millrace.yaml")
	if _, err := os.Stat(system); err == nil {
		found = append([]string{system}, found...)
	}
	return found, nil
}

// readFile reads one YAML file over what c has.
func (c *Config) readFile(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("cannot read the configuration file: %w", err)
	}
	if err := Strict(path, text, c, maySecret(text)); err != nil {
		return err
	}
	var raw map[string]any
	if err := yaml.Unmarshal(text, &raw); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for _, s := range settings {
		if given(raw, strings.Split(s.Key, ".")) {
			c.origins[s.Key] = Origin(path)
		}
	}
	return nil
}

// maySecret reports whether a file may have set something that is secret.
func maySecret(text []byte) bool {
	return slices.ContainsFunc(settings, func(s Setting) bool {
		return s.Secret && bytes.Contains(text, []byte(s.Key[strings.LastIndexByte(s.Key, '.')+1:]))
	})
}

// given reports whether a decoded file holds a value at the path.
func given(m map[string]any, path []string) bool {
	v, ok := m[path[0]]
	if !ok || len(path) == 1 {
		return ok
	}
	sub, ok := v.(map[string]any)
	return ok && given(sub, path[1:])
}

var quotedName = regexp.MustCompile(`unknown field "([^"]*)"`)

// Strict decodes YAML into dst. Unknown and repeated keys, wrong types and a
// second document are errors that name line and column, and show the line unless
// the text may hold secrets; a misspelt key gets a suggestion. The name is that
// of the file.
func Strict(name string, text []byte, dst any, secrets bool) error {
	d := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	err := d.Decode(dst)
	if errors.Is(err, io.EOF) {
		return nil // empty, or comments only
	}
	if err == nil {
		var more any
		if d.Decode(&more) == nil {
			return fmt.Errorf("%s: holds more than one YAML document: keep one, without a second ---", name)
		}
		return nil
	}
	hint := ""
	if unknown, ok := errors.AsType[*yaml.UnknownFieldError](err); ok {
		if m := quotedName.FindStringSubmatch(unknown.Message); m != nil {
			if near := Nearest(m[1], keysOf(dst)); near != "" {
				hint = "\ndid you mean " + near + "?"
			}
		}
	}
	return fmt.Errorf("%s: %s%s", name, strings.TrimRight(yaml.FormatError(err, false, !secrets), "\n"), hint)
}

// Nearest returns the candidate that is like name, or "".
func Nearest(name string, candidates []string) string {
	best, least := "", max(2, len(name)/3)+1
	for _, c := range candidates {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(c)); d < least {
			best, least = c, d
		}
	}
	return best
}
