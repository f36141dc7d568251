package config

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

const prefix = "MILLRACE_"

// Others are the variables with our prefix that are not settings of the server:
// the file, and those of the client commands.
var others = map[string]bool{
	"MILLRACE_CONFIG": true, "MILLRACE_URL": true, "MILLRACE_KEY": true, "MILLRACE_KEY_FILE": true,
}

// kubernetes matches what Kubernetes and old Docker links set in every pod
// beside a service named millrace. Nobody wrote them, so they are no mistakes.
var kubernetes = regexp.MustCompile(`^MILLRACE_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)$`)

// readEnv applies MILLRACE_A_B for the setting a.b, and for secrets
// MILLRACE_A_B_FILE, which names a file that holds the value.
func (c *Config) readEnv(environ []string) error {
	byName := map[string]Setting{}
	var names []string
	for _, s := range settings {
		byName[s.Env()] = s
		names = append(names, s.Env())
	}
	for _, s := range settings {
		if _, taken := byName[s.flagEnv()]; s.Flag != "" && !taken {
			byName[s.flagEnv()] = s
		}
	}
	var errs []error
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, prefix) || others[name] || kubernetes.MatchString(name) {
			continue
		}
		s, ok := byName[name]
		if !ok {
			if s, ok = byName[strings.TrimSuffix(name, "_FILE")]; ok && s.Secret {
				text, err := os.ReadFile(value)
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", name, err))
					continue
				}
				value = strings.TrimRight(string(text), "\r\n")
			} else {
				errs = append(errs, unknownVariable(name, names))
				continue
			}
		}
		if err := c.set(s, value, Origin(name)); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func unknownVariable(name string, names []string) error {
	if near := Nearest(name, names); near != "" {
		return fmt.Errorf("environment variable %s is not a setting; did you mean %s?", name, near)
	}
	return fmt.Errorf("environment variable %s is not a setting; docs/operations.md lists them, and names with %s are ours", name, prefix)
}
