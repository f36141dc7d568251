package main_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// logs waits until the log of the broker has a text.
func (s *server) logs(text string) bool {
	return eventually(20*time.Second, func() bool {
		b, err := os.ReadFile(s.log)
		return err == nil && strings.Contains(string(b), text)
	})
}

func TestAHangUpAppliesWhatIsNewAndRefusesMistakes(t *testing.T) {
	file := bootstrapFile(t, testKeyYAML)
	conf := filepath.Join(t.TempDir(), "millrace.yaml")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(conf, "log: {level: info}\n")
	s := startServer(t, "--data", t.TempDir(), "--bootstrap-file", file, "--config", conf)
	api := newService(s)

	write(file, testKeyYAML+"queues:\n- {name: added, topic_filter: \"added/#\"}\n")
	write(conf, "log: {level: debug}\nlimits: {payload: 1MiB, key_rate: 1, waiting: 5}\nmqtt: {max_subscriptions: 7}\n")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !s.logs(`"changed":"log.level mqtt.max_subscriptions limits.waiting limits.key_rate","needs_restart":"limits.payload"`) {
		t.Errorf("the log does not say what changed:\n%s", tail(s.log))
	}
	if _, err := api.counts(t.Context(), "added"); err != nil {
		t.Errorf("the new queue: %v", err)
	}
	var err error
	if !eventually(20*time.Second, func() bool { // on a busy machine a second may pass between two
		_, err = api.counts(t.Context(), "added")
		return err != nil && strings.Contains(err.Error(), "429")
	}) {
		t.Errorf("requests over the new rate: %v", err)
	}

	write(conf, "log: {level: debug}\n")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !s.logs(`"changed":"mqtt.max_subscriptions limits.waiting limits.key_rate","time"`) {
		t.Errorf("the log does not say what changed back:\n%s", tail(s.log))
	}
	for range 3 {
		if _, err := api.counts(t.Context(), "added"); err != nil {
			t.Errorf("without a rate: %v", err)
		}
	}

	write(file, testKeyYAML+"queues:\n- {name: added, topic_filtr: \"x/#\"}\n")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !s.logs("reload refused, nothing changed") {
		t.Errorf("a mistake was not refused:\n%s", tail(s.log))
	}
	s.stop()
}

func TestABusyPortThatNobodyNamedIsAWarning(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:7532")
	if err == nil { // else it is busy already
		defer l.Close()
	}
	s := startServer(t, "--dev", "--emqx-listen", "127.0.0.1:0", "--fastqueue-listen", "127.0.0.1:0")
	if s.ports["memfifo"] != "" || s.ports["emqx"] == "" || !s.logs("--memfifo-listen moves it") {
		t.Errorf("ports %v, log:\n%s", s.ports, tail(s.log))
	}
	s.stop()
}

// TestAFailedWriteEndsTheServerWith74 takes away the right to write beyond the
// first bytes of any file.
func TestAFailedWriteEndsTheServerWith74(t *testing.T) {
	s := startServer(t, "--data", t.TempDir(), "--bootstrap-file", bootstrapFile(t, testKeyYAML+"queues:\n- {name: e, topic_filter: \"e/#\"}\n"))
	if err := limitFiles(s.cmd.Process.Pid, 64); err != nil {
		t.Skipf("cannot limit the files of another process here: %v", err)
	}
	if err := newService(s).publish(t.Context(), "e/1", "x"); err == nil {
		t.Error("a publish was acknowledged although nothing can be written")
	}
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		t.Fatalf("the server goes on; its log:\n%s", tail(s.log))
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 74 {
		t.Errorf("exit code %d, want 74; log:\n%s", code, tail(s.log))
	}
}
