//go:build unix

package main_test

import (
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"millrace/cmd/millrace/wire"
)

// ownNames are all paths in a data directory: what we call things, and numbers.
var ownNames = regexp.MustCompile(`^(\.|FORMAT|LOCK|audit\.log|journal(/[0-9a-f]{8}\.(seg|hint)|/watermark|/reserve)?|checkpoint(/ckpt-[0-9a-f]{16})?|stream(/[0-9a-f]{16}(/[0-9a-f]{4}(/[0-9a-f]{16}\.log)?)?)?)$`)

// ownersAlone wants everything in dir to have a name of ours, and to be for the
// owner alone.
func ownersAlone(t *testing.T, dir string) (files int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		files++
		name, _ := filepath.Rel(dir, path)
		if !ownNames.MatchString(name) {
			t.Errorf("a file is called %q", name)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if want := map[bool]fs.FileMode{false: 0o600, true: 0o700}[d.IsDir()]; info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestNoNameOfAUserIsAFileNameAndTheDataIsItsOwnersAlone also where the process
// would let others in: with a umask of 0.
func TestNoNameOfAUserIsAFileNameAndTheDataIsItsOwnersAlone(t *testing.T) { // D30
	old := syscall.Umask(0)
	t.Cleanup(func() { syscall.Umask(old) })
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	d := &doors{t: t, s: startServer(t, "--data", data, "--bootstrap-file", bootstrapFile(t, testKeyYAML))}
	for n, name := range []string{"../../evil", "..", ".", "a/../../evil", "/etc/evil", `..\evil`, "CON", "evil\u202e", "evil.seg", "-rf", strings.Repeat("e", 200)} {
		text := fmt.Sprintf("%q", name)
		// What may not be called so is refused, and leaves nothing either.
		d.call("Bearer "+testKey, "POST", "/queues", `{"name":`+text+`,"topic_filter":"t/#"}`, false)
		d.call("Bearer "+testKey, "POST", "/streams", `{"name":`+text+`,"topic_filter":"t/#"}`, false)
		if n < 3 { // each costs a hash
			d.call("Bearer "+testKey, "POST", "/users", `{"username":`+text+`,"password":"a password of its own"}`, false)
		}
		d.call("Bearer "+testKey, "POST", "/topics/t/"+url.PathEscape(name)+"/messages", `{"payload":"x","retain":true}`, false)
		d.call("Bearer "+testKey, "POST", "/streams/"+url.PathEscape(name)+"/cursors/"+url.PathEscape(name), `{"offset":0}`, false)
		d.request(d.s.url(), "Bearer "+testKey, "POST", "/topics/persistent/public/default/"+url.PathEscape(name), `{"producerName":`+text+`,"messages":[{"payload":"x"}]}`, false)
		if c, code := d.s.enter(wire.Login{ClientID: name, User: testKeyID, Password: testSecret, Keep: true}); code == 0 {
			if err := c.Subscribe("t/#", 1); err != nil {
				t.Errorf("%d: %v", n, err)
			}
		}
	}
	if got := d.admin("GET", "/streams?limit=100", ""); !strings.Contains(string(got), `"../../evil"`) || !strings.Contains(string(got), `"public/default//etc/evil"`) {
		t.Errorf("few of the names were taken: %s", got)
	}
	file := filepath.Join(dir, "backup.tar")
	if out, errs, code := command(t, "backup", "create", file, "--url", d.s.url(), "--key", testKey); code != 0 {
		t.Fatalf("backup ends with %d: %s%s", code, out, errs)
	}
	d.s.stop()
	restored := filepath.Join(dir, "restored")
	if out, errs, code := command(t, "backup", "restore", file, "--data", restored); code != 0 {
		t.Fatalf("restore ends with %d: %s%s", code, out, errs)
	}
	for _, made := range []string{data, restored} {
		if files := ownersAlone(t, made); files < 6 {
			t.Errorf("only %d files in %s", files, made)
		}
	}
	if names, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(names) != 3 {
		t.Errorf("beside the data there is %v, %v", names, err)
	}
}
