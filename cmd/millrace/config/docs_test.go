package config_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"millrace/cmd/millrace/config"
)

var update = flag.Bool("update", false, "rewrite docs/operations.md")

const (
	document = "../../../docs/operations.md"
	begin    = "<!-- settings: begin, written by go test ./cmd/millrace/config -update -->\n"
	end      = "<!-- settings: end -->\n"
)

// reference is the table of all settings.
func reference() string {
	var b strings.Builder
	b.WriteString("\n| Key, and flag | Variable | Default | Meaning |\n|---|---|---|---|\n")
	for _, s := range config.Settings() {
		name := "`" + s.Key + "`"
		if s.Flag != "" {
			name += " `--" + s.Flag + "`"
		}
		value := config.Default().Get(s)
		if value != "" {
			value = "`" + value + "`"
		}
		doc := s.Doc
		if s.One != nil {
			doc += " (" + strings.Join(s.One, ", ") + ")"
		}
		if s.Secret {
			doc += "; `" + s.Env() + "_FILE` names a file that holds it"
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", name, s.Env(), value, strings.ReplaceAll(doc, "|", `\|`))
	}
	b.WriteString("\n")
	return b.String()
}

func TestTheDocumentListsEverySetting(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has lost its marks", document)
	}
	want := before + begin + reference() + end + after
	if want == string(text) {
		return
	}
	if !*update {
		t.Fatalf("%s is stale: go test ./cmd/millrace/config -update", document)
	}
	if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
