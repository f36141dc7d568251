package auth_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"millrace/broker/auth"
)

// writeAudit writes lines from first on to an audit log of small files.
func writeAudit(t *testing.T, path string, first, count int) (head string) {
	t.Helper()
	f, err := auth.OpenAuditFile(path, 1000, 9)
	must(t, err)
	for n := range count {
		if _, err := fmt.Fprintf(f, "{\"who\":\"key:root\",\"n\":%d}\n", first+n); err != nil {
			t.Fatal(err)
		}
	}
	head = f.Head()
	must(t, f.Close())
	return head
}

func TestAnAuditLogIsChainedOverItsFilesAndStarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	middle := writeAudit(t, path, 0, 20)
	head := writeAudit(t, path, 20, 5)
	r, err := auth.VerifyAudit(path, middle)
	must(t, err)
	if !r.Expected || r.Files < 3 || r.Lines != 25 || !r.Whole || r.Torn != 0 || r.Older != 0 || r.Head != head {
		t.Errorf("got %+v, want the head %s", r, head)
	}
	must(t, os.Remove(path+fmt.Sprintf(".%d", r.Files-1)))
	if r, err := auth.VerifyAudit(path, ""); err != nil || r.Whole || r.Head != head {
		t.Errorf("without the oldest file: %+v, %v", r, err)
	}
	if _, err := auth.VerifyAudit(filepath.Join(t.TempDir(), "audit.log"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a log: %v", err)
	}
}

func TestEveryByteOfAnAuditLogCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	head := writeAudit(t, path, 0, 6)
	text, err := os.ReadFile(path)
	must(t, err)
	altered := func(what string, changed []byte) {
		t.Helper()
		must(t, os.WriteFile(path, changed, 0o600))
		r, err := auth.VerifyAudit(path, "")
		if _, ok := errors.AsType[*auth.AuditError](err); !ok && r.Head == head && r.Whole {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
	for at := range text {
		b := bytes.Clone(text)
		b[at] ^= 1
		altered(fmt.Sprintf("byte %d", at), b)
	}
	lines := strings.SplitAfter(string(text), "\n")
	lines = lines[:len(lines)-1]
	for at := range lines {
		altered(fmt.Sprintf("without line %d", at+1), []byte(strings.Join(slices.Delete(slices.Clone(lines), at, at+1), "")))
		altered(fmt.Sprintf("line %d twice", at+1), []byte(strings.Join(slices.Insert(slices.Clone(lines), at, lines[at]), "")))
		if at > 0 {
			swapped := slices.Clone(lines)
			swapped[at-1], swapped[at] = swapped[at], swapped[at-1]
			altered(fmt.Sprintf("lines %d and %d swapped", at, at+1), []byte(strings.Join(swapped, "")))
		}
	}
}

func TestAnAuditLogFromBeforeTheChainGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	must(t, os.WriteFile(path, []byte("{\"n\":0}\n{\"n\":1}\n"), 0o600))
	if _, err := auth.VerifyAudit(path, ""); err == nil {
		t.Error("a log without a chain was found to be in order")
	}
	writeAudit(t, path, 2, 2)
	if r, err := auth.VerifyAudit(path, ""); err != nil || r.Older != 2 || r.Lines != 4 || !r.Whole {
		t.Errorf("got %+v, %v", r, err)
	}
	text, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, bytes.Replace(text, []byte(`{"n":1}`), []byte(`{"n":7}`), 1), 0o600))
	if _, err := auth.VerifyAudit(path, ""); err == nil {
		t.Error("a changed line before the chain was not seen")
	}
}

func TestALineThatACrashToreIsVouchedForByTheNext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	writeAudit(t, path, 0, 3)
	text, err := os.ReadFile(path)
	must(t, err)
	torn := text[:len(text)-20]
	must(t, os.WriteFile(path, torn, 0o600))
	writeAudit(t, path, 3, 2)
	if r, err := auth.VerifyAudit(path, ""); err != nil || r.Torn != 1 || r.Lines != 5 {
		t.Errorf("got %+v, %v", r, err)
	}
	text, err = os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, append(bytes.Clone(torn[:len(torn)-1]), text[len(torn):]...), 0o600))
	if _, err := auth.VerifyAudit(path, ""); err == nil {
		t.Error("a torn line that was shortened was not seen")
	}
}
