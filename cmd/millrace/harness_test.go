package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"millrace/persistence/jetstream/jetstreamtest"
)

// program builds the program once for all tests of the package.
func program(t *testing.T) string {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "millrace-test-")
	if err != nil {
		return "", err
	}
	buildDir = dir
	path := filepath.Join(dir, "millrace")
	cmd := exec.Command("go", "build", "-o", path, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// buildDir is where the program was built, if it was.
var buildDir string

// cleanEnv is our environment without what would configure the server, and with
// a home folder of its own.
func cleanEnv(home string) []string {
	env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home, "XDG_DATA_HOME=" + home}
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "MILLRACE_") && !strings.HasPrefix(name, "XDG_") && name != "HOME" {
			env = append(env, pair)
		}
	}
	return env
}

// server is a running broker.
type server struct {
	t     *testing.T
	cmd   *exec.Cmd
	ports map[string]string
	out   string // file with its standard output
	log   string // file with its log
	ended chan struct{}
	err   error // of Wait, once ended is closed
}

// startServer runs "millrace serve" with free ports and waits until it listens.
func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	s := launchServer(t, args...)
	s.listens()
	return s
}

// launchServer runs it and does not wait.
func launchServer(t *testing.T, args ...string) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, out: filepath.Join(dir, "out"), log: filepath.Join(dir, "log"), ended: make(chan struct{})}
	args = append([]string{"serve", "--ports-file", filepath.Join(dir, "ports.json"), "--mqtt-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"}, args...)
	s.cmd = exec.Command(program(t), args...)
	s.cmd.Env = cleanEnv(dir)
	out, err := os.Create(s.out)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = out, log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process, which cleanup kills
		s.err = s.cmd.Wait()
		_, _ = out.Close(), log.Close()
		close(s.ended)
	}()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("log of the broker (%s):\n%s", strings.Join(args, " "), tail(s.log))
		}
	})
	return s
}

// listens waits until it does.
func (s *server) listens() {
	s.t.Helper()
	if !eventually(40*time.Second, func() bool {
		select {
		case <-s.ended:
			return true
		default:
		}
		text, err := os.ReadFile(filepath.Join(filepath.Dir(s.log), "ports.json"))
		return err == nil && json.Unmarshal(text, &s.ports) == nil
	}) || s.ports == nil {
		s.t.Fatalf("the broker did not start; its log:\n%s", tail(s.log))
	}
}

func tail(path string) string {
	b, _ := os.ReadFile(path)
	return string(b[max(0, len(b)-8000):])
}

func (s *server) url() string { return "http://" + s.ports["http"] }

// kill is kill -9.
func (s *server) kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.ended
}

// stop is SIGTERM, and wants a clean end.
func (s *server) stop() {
	s.t.Helper()
	if code := s.end(syscall.SIGTERM); code != 0 {
		s.t.Errorf("the broker ended with code %d after SIGTERM; its log:\n%s", code, tail(s.log))
	}
}

// end sends a signal and returns the exit code.
func (s *server) end(sig os.Signal) int {
	s.t.Helper()
	_ = s.cmd.Process.Signal(sig) // it may have ended
	select {
	case <-s.ended:
	case <-time.After(40 * time.Second):
		s.t.Errorf("the broker ignored %s for 40 s", sig)
		s.kill()
	}
	return s.cmd.ProcessState.ExitCode()
}

// eventually asks until ok says yes, or the time is over.
func eventually(limit time.Duration, ok func() bool) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); time.Now().Before(end); <-tick.C {
		if ok() {
			return true
		}
	}
	return ok()
}

// bootstrapFile writes a bootstrap file and returns its path.
func bootstrapFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	testKeyID  = "tester"
	testSecret = "secret-of-the-tester"
	testKey    = testKeyID + "." + testSecret
	// testKeyYAML makes the key in a bootstrap file.
	testKeyYAML = "api_keys:\n- {id: " + testKeyID + ", secret: " + testSecret + ", role: administrator}\n"
)

// command runs the program to its end and returns what it printed and its code.
func command(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t), args...)
	cmd.Env = cleanEnv(t.TempDir())
	var o, e strings.Builder
	cmd.Stdout, cmd.Stderr = &o, &e
	_ = cmd.Run() // the code tells
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// TestMain removes what tests share after the last of them. A NATS server that a
// test starts as a process is this program.
func TestMain(m *testing.M) {
	jetstreamtest.Serve()
	code := m.Run()
	if buildDir != "" {
		_ = os.RemoveAll(buildDir) // the system cleans its temporary folder, too
	}
	os.Exit(code)
}
