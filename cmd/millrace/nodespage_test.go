package main_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// freePort is one that nobody listened on just now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// TestTheCommandsOfTheClusterPageWork runs them as they stand in docs/cluster.md, but
// for ports, the folder, and where the programs are.
func TestTheCommandsOfTheClusterPageWork(t *testing.T) {
	needTools(t)
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "nats-server"), "github.com/nats-io/nats-server/v2")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build a NATS server: %v: %s", err, out)
	}
	if err := os.Symlink(program(t), filepath.Join(dir, "millrace")); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "## Three nodes and three NATS servers on one machine")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := strings.Split(section, "```\n")
	if len(blocks) != 7 {
		t.Fatalf("the page has %d parts, want 7", len(blocks))
	}
	text := "trap 'kill $(jobs -p); wait' EXIT\n" + blocks[1] + blocks[3] + blocks[5]
	for _, port := range []string{"422", "622", "188", "808"} {
		for i := 1; i <= 3; i++ {
			one := freePort(t)
			text = strings.ReplaceAll(text, fmt.Sprint(port, i), one)
			text = strings.ReplaceAll(text, port+"$i", "${p"+port+"[$i]}")
			text = fmt.Sprintf("p%s[%d]=%s\n", port, i, one) + text
		}
	}
	text = strings.ReplaceAll(text, "/tmp/mr", filepath.Join(dir, "mr"))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-c", text)
	shell.Env = append(cleanEnv(dir), "PATH="+dir+":"+os.Getenv("PATH"))
	shell.WaitDelay = 30 * time.Second
	out, err := shell.CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"payload":"hello"`) {
		t.Errorf("%v: %s", err, out)
		logs, _ := filepath.Glob(filepath.Join(dir, "mr", "*.log"))
		for _, name := range logs {
			t.Logf("%s:\n%s", filepath.Base(name), tail(name))
		}
	}
}
