package main_test

import (
	"os/exec"
	"strings"
	"testing"
)

// forbidden lists, for the packages below a prefix, what they must not reach,
// directly or not. The arrows are cmd -> rest, mqtt, persistence -> broker -> router.
var forbidden = []struct {
	from string
	to   []string
	why  string
}{
	{"millrace/router", []string{"millrace/broker", "millrace/mqtt", "millrace/rest", "millrace/persistence", "millrace/cmd", "github.com", "golang.org/x"}, "the router is grammar and the standard library"},
	{"millrace/broker", []string{"millrace/mqtt", "millrace/rest", "millrace/persistence", "millrace/cmd", "github.com/mochi-mqtt", "net/http"}, "the core knows no protocol and no store"},
	{"millrace/broker/auth", []string{"millrace/broker"}, "auth is asked by all and asks nobody but the router"},
	{"millrace/persistence", []string{"millrace/mqtt", "millrace/rest", "millrace/cmd", "github.com/mochi-mqtt"}, "storage knows no protocol"},
	{"millrace/persistence/journal", []string{"millrace/broker", "millrace/persistence/local", "net/http"}, "the journal knows bytes"},
	{"millrace/persistence/local", []string{"net/http", "github.com/nats-io"}, "the embedded store needs no network"},
	{"millrace/mqtt", []string{"millrace/rest", "millrace/persistence", "millrace/cmd"}, "protocols meet only in the core"},
	{"millrace/cmd/millrace", []string{"millrace/persistence/journal/journaltest", "millrace/persistence/storetest", "millrace/rest/internal/resttest", "github.com/cockroachdb", "github.com/nats-io/nats-server", "testing"}, "the program carries no tests"},
	{"millrace/rest", []string{"millrace/mqtt", "millrace/persistence", "millrace/cmd", "github.com/mochi-mqtt"}, "protocols meet only in the core"},
}

// testOnly are packages of tests; no program holds them.
var testOnly = map[string]bool{
	"millrace/persistence/journal/journaltest":     true, // Pebble's crashable file system
	"millrace/persistence/storetest":               true,
	"millrace/cmd/millrace/certs/certstest":        true, // certificates for tests
	"millrace/persistence/jetstream/jetstreamtest": true, // NATS servers in process
	"millrace/rest/internal/resttest":              true, // a broker over the memory driver
}

func TestImportsFollowTheArrows(t *testing.T) {
	for _, rule := range forbidden {
		for pkg, deps := range dependencies(t) {
			if !below(pkg, rule.from) || testOnly[pkg] {
				continue
			}
			for _, dep := range deps {
				for _, to := range rule.to {
					// What lies below from is not meant by a prefix of it.
					if below(dep, to) && !below(dep, rule.from) {
						t.Errorf("%s reaches %s: %s", pkg, dep, rule.why)
					}
				}
			}
		}
	}
}

func TestADialectImportsNoOther(t *testing.T) {
	const rest = "millrace/rest/"
	for pkg, deps := range dependencies(t) {
		own, ok := strings.CutPrefix(pkg, rest)
		if !ok || strings.HasPrefix(own, "internal") {
			continue
		}
		for _, dep := range deps {
			other, ok := strings.CutPrefix(dep, rest)
			if ok && !strings.HasPrefix(other, "internal") && !below(dep, pkg) {
				t.Errorf("%s imports %s: a dialect never imports a dialect", pkg, dep)
			}
		}
	}
}

func below(pkg, prefix string) bool {
	return pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
}

// dependencies lists all our packages with everything they reach.
func dependencies(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Deps \" \"}}", "millrace/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	m := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		pkg, deps, _ := strings.Cut(strings.TrimSpace(line), " ")
		m[pkg] = strings.Fields(deps)
	}
	if len(m) < 5 {
		t.Fatalf("go list found %d packages", len(m))
	}
	return m
}
