package main_test

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// rooms are the only folders that hold Go code.
var rooms = []string{"broker", "mqtt", "rest", "router", "persistence", "cmd"}

// mayLog are the files that hand a foreign logger on to ours.
var mayLog = map[string]bool{"rest/log.go": true}

// mayPause are files whose pauses are steps of fake time, in bubbles that
// another folder opens.
var mayPause = map[string]bool{"broker/scenario/play.go": true}

var (
	openEnd  = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)
	maxLines = 500 // of code: comments and blank lines do not count
	maxFunc  = 70
)

// TestTheHouseRules walks the tree: what lint would say, without a linter.
func TestTheHouseRules(t *testing.T) {
	texts := map[string][]byte{}
	bubbles := map[string]bool{} // folders with tests in fake time
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && path != root {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		room, _, _ := strings.Cut(name, "/")
		if !slices.Contains(rooms, room) {
			t.Errorf("%s: Go code lives in %s", name, strings.Join(rooms, ", "))
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		texts[name] = text
		if bytes.Contains(text, []byte(`"testing/synctest"`)) {
			bubbles[filepath.Dir(name)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(texts) < 50 {
		t.Errorf("only %d files were looked at", len(texts))
	}
	for name, text := range texts {
		checkFile(t, name, text, bubbles[filepath.Dir(name)] || mayPause[name])
	}
}

// checkFile looks at one file. With fakeTime its tests run in bubbles, where a
// pause is a step of fake time.
func checkFile(t *testing.T, name string, text []byte, fakeTime bool) {
	t.Helper()
	if formatted, err := format.Source(text); err != nil || !bytes.Equal(formatted, text) {
		t.Errorf("%s: not formatted by gofmt (%v)", name, err)
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, text, parser.ParseComments)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if n := codeLines(text); n > maxLines {
		t.Errorf("%s: %d lines of code, at most %d: split it", name, n, maxLines)
	}
	for _, group := range f.Comments {
		if m := openEnd.FindString(group.Text()); m != "" {
			t.Errorf("%s: %s in a comment: do it, or write it down where work is planned", set.Position(group.Pos()), m)
		}
	}
	test := strings.HasSuffix(name, "_test.go")
	for _, imp := range f.Imports {
		switch path := strings.Trim(imp.Path.Value, `"`); {
		case (path == "log" || path == "log/slog") && !mayLog[name]:
			t.Errorf("%s: imports %s: log with zerolog", name, path)
		case path == "io/ioutil":
			t.Errorf("%s: imports %s", name, path)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && n.Sel.Name == "Sleep" && !fakeTime {
				t.Errorf("%s: time.Sleep: wait on a channel or a context", set.Position(n.Pos()))
			} else if ok && x.Name == "time" && (n.Sel.Name == "Now" || n.Sel.Name == "Until") && !asksTheMachine(name) {
				t.Errorf("%s: time.%s: ask the broker or the store for the time, it does not jump", set.Position(n.Pos()), n.Sel.Name)
			}
		case *ast.FuncDecl:
			if n.Name.Name == "init" && n.Recv == nil {
				t.Errorf("%s: func init", set.Position(n.Pos()))
			}
			lines := set.Position(n.End()).Line - set.Position(n.Pos()).Line - 1
			if !test && lines > maxFunc {
				t.Errorf("%s: %s has %d lines, at most %d", set.Position(n.Pos()), n.Name.Name, lines, maxFunc)
			}
		}
		return true
	})
}

// codeLines counts the lines that hold a token.
func codeLines(text []byte) int {
	set := token.NewFileSet()
	file := set.AddFile("", -1, len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, 0)
	lines := map[int]bool{}
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return len(lines)
		}
		if tok == token.SEMICOLON && lit == "\n" {
			continue
		}
		first := file.Line(pos)
		for i := range strings.Count(lit, "\n") + 1 {
			lines[first+i] = true
		}
	}
}

var (
	testNames = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w+)\(`)
	namedAs   = regexp.MustCompile(`\b(?:Test|Benchmark|Fuzz)[A-Z]\w+`)
	// wentRed is the last column of the table of planted bugs, which names parts of names.
	wentRed = regexp.MustCompile("(?m)^\\|.*\\|([^|`]*`[A-Z]\\w+`[^|]*)\\|$")
	quoted  = regexp.MustCompile("`([A-Z]\\w+)`")
)

// TestTheTestsThatADocumentNamesAreThere: a list of tests is worth nothing when
// nobody notices that one was renamed, or is gone.
func TestTheTestsThatADocumentNamesAreThere(t *testing.T) {
	there, all := map[string]bool{}, ""
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testNames.FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
			all += string(m[1]) + "\n"
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(documents) == 0 {
		t.Fatalf("%v, %v", documents, err)
	}
	named := 0
	for _, path := range append(documents, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md"), filepath.Join(root, "ARCHITECTURE.md")) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range namedAs.FindAll(text, -1) {
			if named++; !there[string(name)] {
				t.Errorf("%s names %s, which is not there", filepath.Base(path), name)
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "testing.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, planted, _ := bytes.Cut(text, []byte("| Planted bug |"))
	rows := wentRed.FindAllSubmatch(planted, -1)
	for _, row := range rows {
		for _, m := range quoted.FindAllSubmatch(row[1], -1) {
			if !strings.Contains(all, string(m[1])) {
				t.Errorf("a planted bug turned %s red, which is not there", m[1])
			}
		}
	}
	if len(rows) < 25 {
		t.Errorf("only %d planted bugs are named", len(rows))
	}
	if named < 100 {
		t.Errorf("only %d names were looked for", named)
	}
}
