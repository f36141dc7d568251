package main_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

var (
	shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")
	apiKeyLine = regexp.MustCompile(`(?m)^ +API key +(\S+)$`)
	loginLine  = regexp.MustCompile(`(?m)^ +login +(\S+) / (\S+)$`)
)

// startDev runs "serve --dev" as the README says, on free ports.
func startDev(t *testing.T, args ...string) *server {
	t.Helper()
	return startServer(t, append([]string{"--dev", "--emqx-listen", "127.0.0.1:0", "--fastqueue-listen", "127.0.0.1:0", "--memfifo-listen", "127.0.0.1:0"}, args...)...)
}

// banner is what the start printed.
func (s *server) banner() string {
	s.t.Helper()
	var text string
	if !eventually(10*time.Second, func() bool {
		b, err := os.ReadFile(s.out)
		text = string(b)
		return err == nil && strings.Contains(text, "Stop with Ctrl+C")
	}) {
		s.t.Fatalf("the start printed no banner: %q", text)
	}
	return text
}

// shell runs commands as a person would paste them, with the ports that the
// server really has.
func (s *server) shell(text string) string {
	s.t.Helper()
	_, mqtt, _ := strings.Cut(s.ports["mqtt"], ":")
	text = strings.ReplaceAll(text, "127.0.0.1:8080", s.ports["http"])
	text = strings.ReplaceAll(text, "mosquitto_pub -t", "mosquitto_pub -p "+mqtt+" -t")
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eu", "-c", text)
	cmd.WaitDelay = time.Second // a subscriber in the background holds the pipes
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.ExitCode() != 0 {
		s.t.Fatalf("%v\n%s\nof the commands:\n%s", err, out, text)
	}
	return string(out)
}

func needTools(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"mosquitto_pub", "mosquitto_sub", "curl", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: make test installs it", tool)
		}
	}
}

func TestTheCommandsOfTheREADMEWork(t *testing.T) {
	needTools(t)
	text, err := os.ReadFile(root + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) < 4 || strings.TrimSpace(blocks[0]) != "go run ./cmd/millrace serve --dev" || strings.TrimSpace(blocks[len(blocks)-1]) != "make test" {
		t.Fatalf("the README begins with the start and ends with the test command; found %q", blocks)
	}
	s := startDev(t)
	key := apiKeyLine.FindStringSubmatch(s.banner())
	if key == nil {
		t.Fatalf("no API key in the banner:\n%s", s.banner())
	}
	script := strings.Join(blocks[1:len(blocks)-1], "\n")
	if !strings.Contains(script, "export KEY=id.secret") {
		t.Fatal("the README no longer says where the key goes")
	}
	out := s.shell(strings.ReplaceAll(script, "export KEY=id.secret", "export KEY="+key[1]))
	for _, want := range []string{`"payload":"hello"`, `"receipt_handle":"`, `"state":"removed"`, `"topic":"demo/hello"`} {
		if !strings.Contains(out, want) {
			t.Errorf("want %s in what the commands printed:\n%s", want, out)
		}
	}
}

func TestTheCommandsOfTheBannerWork(t *testing.T) {
	needTools(t)
	s := startDev(t)
	var commands []string
	for line := range strings.Lines(s.banner()) {
		if c, ok := strings.CutPrefix(line, "    "); ok {
			commands = append(commands, strings.TrimSpace(c))
		}
	}
	if len(commands) != 5 {
		t.Fatalf("the banner shows %d commands, want 5:\n%s", len(commands), s.banner())
	}
	// The subscriber ends after the message that the next command publishes;
	// the pause in between is the subscriber's own, not ours.
	commands[3] = strings.Replace(commands[3], "-v &", "-v -C 1 -W 20 &", 1)
	commands[4] = "until " + commands[4] + " | grep '\"subscribers\":1'; do :; done; wait"
	out := s.shell(strings.Join(commands, "\n"))
	for _, want := range []string{`"payload":"hello"`, `"state":"removed"`, "demo/hello hello"} {
		if !strings.Contains(out, want) {
			t.Errorf("want %s in what the commands printed:\n%s", want, out)
		}
	}
}

func TestDevKeepsDataAndForgetsItsOldKey(t *testing.T) {
	data := t.TempDir()
	s := startDev(t, "--data", data)
	old := apiKeyLine.FindStringSubmatch(s.banner())[1]
	s.stop()
	s = startDev(t, "--data", data)
	now := apiKeyLine.FindStringSubmatch(s.banner())[1]
	for key, want := range map[string]int{old: 4, now: 0} {
		if _, errs, code := command(t, "queue", "info", "demo", "--url", s.url(), "--key", key); code != want {
			t.Errorf("exit code %d with key %s, want %d: %s", code, key, want, errs)
		}
	}
	if !strings.Contains(s.banner(), "data is kept") {
		t.Errorf("the banner does not say that data is kept:\n%s", s.banner())
	}
}

func TestDevForContainersWantsCredentials(t *testing.T) {
	s := startServer(t, "--dev=any")
	b := s.banner()
	if !strings.Contains(b, "-u dev -P ") || strings.Contains(b, "memfifo") {
		t.Errorf("got:\n%s", b)
	}
	_, port, _ := strings.Cut(s.ports["mqtt"], ":")
	if _, errs, code := command(t, "pub", "-p", port, "-t", "a", "-m", "x"); code != 4 {
		t.Errorf("exit code %d without credentials, want 4: %s", code, errs)
	}
}

// TestSystemdStartsALeaderAgainThatWasGivenUp: that ends with code 75, and only 78 says
// that another try would end alike.
func TestSystemdStartsALeaderAgainThatWasGivenUp(t *testing.T) {
	unit, err := os.ReadFile("../../deploy/millrace.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"\nRestart=on-failure\n", "\nRestartPreventExitStatus=78\n"} {
		if !strings.Contains(string(unit), line) {
			t.Errorf("the unit has no line %q", strings.TrimSpace(line))
		}
	}
}
