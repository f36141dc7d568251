//go:build unix

package main_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestAHangUpDuringTheStartIsAppliedAfterIt holds the start at its bootstrap
// file, which is a pipe, and changes both files meanwhile.
func TestAHangUpDuringTheStartIsAppliedAfterIt(t *testing.T) {
	dir := t.TempDir()
	pipe, conf := filepath.Join(dir, "bootstrap.yaml"), filepath.Join(dir, "millrace.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Skipf("no pipe can be made here: %v", err)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(conf, "log: {level: info}\n")
	s := launchServer(t, "--data", t.TempDir(), "--bootstrap-file", pipe, "--config", conf)
	f, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for the start to read it
	if err != nil {
		t.Fatal(err)
	}
	write(conf, "log: {level: debug}\n")
	write(pipe+".new", testKeyYAML+"queues:\n- {name: added, topic_filter: \"added/#\"}\n")
	if err := os.Rename(pipe+".new", pipe); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.WriteString(testKeyYAML); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s.listens()
	if !s.logs(`"changed":"log.level","time"`) {
		t.Errorf("the log does not say what changed:\n%s", tail(s.log))
	}
	if _, err := newService(s).counts(t.Context(), "added"); err != nil {
		t.Errorf("the new queue: %v", err)
	}
	s.stop()
}
