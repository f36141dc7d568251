package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Origin says where a value came from: a file, a variable, a flag.
type Origin string

// Source says where settings come from. Defaults < file < environment < flags.
type Source struct {
	File       string            // named by --config or MILLRACE_CONFIG
	Here       bool              // ./millrace.yaml counts
	Environ    []string          // as os.Environ
	Flags      map[string]string // by key
	Sets       []string          // key=value, of --set
	User       bool              // an ordinary user: settings and data below the home folder
	ConfigHome string            // $XDG_CONFIG_HOME
	DataHome   string            // $XDG_DATA_HOME
	SystemDir  string            // /etc/millrace
}

// System returns the Source of this process, without flags.
func System() Source {
	s := Source{
		File: os.Getenv("MILLRACE_CONFIG"), Environ: os.Environ(), User: os.Getuid() != 0,
		ConfigHome: os.Getenv("XDG_CONFIG_HOME"), DataHome: os.Getenv("XDG_DATA_HOME"), SystemDir: "/etc/millrace",
	}
	if home, err := os.UserHomeDir(); err == nil {
		if s.ConfigHome == "" {
			s.ConfigHome = filepath.Join(home, ".config")
		}
		if s.DataHome == "" {
			s.DataHome = filepath.Join(home, ".local", "share")
		}
	}
	return s
}

// Load reads all sources and validates the result. Its error names every
// mistake, not only the first.
func Load(s Source) (*Config, error) {
	c := Default()
	files, err := s.files()
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if err := c.readFile(f); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(c.readEnv(s.Environ), c.readFlags(s)); err != nil {
		return nil, err
	}
	if err := c.applyMode(s); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) readFlags(s Source) error {
	var errs []error
	for _, pair := range s.Sets {
		key, value, ok := strings.Cut(pair, "=")
		setting, known := find(key)
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("--set %s: write --set key=value, for example --set mqtt.max_inflight=512", pair))
		case !known:
			errs = append(errs, unknownKey(key))
		default:
			errs = append(errs, c.set(setting, value, "--set"))
		}
	}
	for _, setting := range settings {
		if value, ok := s.Flags[setting.Key]; ok {
			errs = append(errs, c.set(setting, value, Origin("--"+setting.Flag)))
		}
	}
	return errors.Join(errs...)
}

func unknownKey(key string) error {
	var keys []string
	for _, s := range settings {
		keys = append(keys, s.Key)
	}
	if near := Nearest(key, keys); near != "" {
		return fmt.Errorf("--set %s: there is no such setting; did you mean %s?", key, near)
	}
	return fmt.Errorf("--set %s: there is no such setting; docs/operations.md lists them", key)
}

// applyMode puts in the defaults that depend on --dev and on who runs us.
func (c *Config) applyMode(s Source) error {
	var mode map[string]string
	switch c.Dev {
	case On:
		mode = development
	case Any:
		mode = container
	case Off:
		if c.Data == "" && s.User {
			c.Data = filepath.Join(s.DataHome, "millrace")
		} else if c.Data == "" {
			c.Data = "/var/lib/millrace"
		}
	}
	for key, value := range mode {
		setting, _ := find(key)
		if c.Given(key) {
			continue
		}
		if err := c.set(setting, value, ""); err != nil {
			return err
		}
		delete(c.origins, key)
	}
	return nil
}

// Given reports whether a file, a variable or a flag has set the key.
func (c *Config) Given(key string) bool { return c.origins[key] != "" }

// Origin says where the value of a setting came from, for people.
func (c *Config) Origin(key string) string {
	if o := c.origins[key]; o != "" {
		return string(o)
	}
	return "default"
}
