// Package scenario plays the rules of queues as short texts that anybody can
// read. Each rule stands once, in testdata/scenarios; a runner plays it through
// every door of the product: the core, HTTP, MQTT. It serves tests only.
//
// A text has one step in a line, and what must be seen behind an arrow:
//
//	# A message that nobody acknowledges comes back, with its attempts counted.
//	queue work filter=orders/#
//	publish orders/1 hello        -> ok
//	receive work                  -> hello (attempt 1)
//	wait 31s
//	receive work                  -> hello (attempt 2)
//	ack work hello                -> removed
//
// Lines that begin with # say what the rule is. The verbs are those of Door,
// and "wait" and "restart". Settings are named as in /api/v1.
package scenario

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxLines keeps a scenario readable at a glance.
const maxLines = 25

// Script is one scenario.
type Script struct {
	Name  string // the file's name without .txt
	Rule  string // the comment at its head
	Steps []Step
}

// Step is one line of a scenario.
type Step struct {
	Line    int
	Text    string
	Verb    string
	Args    []string          // words without "="
	Options map[string]string // words with it
	Want    string            // behind the arrow; "" = anything but a refusal
}

// Option returns an option, or def when it is not given.
func (s *Step) Option(name, def string) string {
	if v, ok := s.Options[name]; ok {
		return v
	}
	return def
}

// Load reads every scenario of a folder, in order of name.
func Load(dir string) ([]*Script, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, fmt.Errorf("scenarios in %s: %w", dir, err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no scenarios in %s", dir)
	}
	var all []*Script
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		s, err := Parse(strings.TrimSuffix(filepath.Base(file), ".txt"), string(text))
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// Shorten cuts every wait of s to at most so long, for a world in which time that
// passes costs something.
func (s *Script) Shorten(most time.Duration) {
	for i := range s.Steps {
		if x := &s.Steps[i]; x.Verb == "wait" {
			if d, err := time.ParseDuration(x.Args[0]); err == nil && d > most {
				x.Args[0] = most.String()
			}
		}
	}
}

// Parse reads one scenario.
func Parse(name, text string) (*Script, error) {
	s := &Script{Name: name}
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if n > maxLines {
			return nil, fmt.Errorf("%s: over %d lines; a rule is short", name, maxLines)
		}
		if rule, ok := strings.CutPrefix(line, "#"); ok {
			s.Rule = strings.TrimSpace(s.Rule + " " + strings.TrimSpace(rule))
			continue
		}
		if line == "" {
			continue
		}
		s.Steps = append(s.Steps, parseStep(n, line))
	}
	if s.Rule == "" || len(s.Steps) == 0 {
		return nil, fmt.Errorf("%s: needs a comment that says the rule, and steps", name)
	}
	return s, nil
}

func parseStep(n int, line string) Step {
	do, want, _ := strings.Cut(line, "->")
	words := strings.Fields(do)
	s := Step{Line: n, Text: line, Verb: words[0], Options: map[string]string{}, Want: strings.TrimSpace(want)}
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			s.Options[k] = v
		} else {
			s.Args = append(s.Args, w)
		}
	}
	return s
}
