package main_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestScripts runs testdata/*.txtar: the program from outside. A script is the
// text before the first "-- FILE --"; the files are made in a folder of its
// own. One line is one command, words are split at blanks and '…' keeps them
// together. ! in front wants the opposite.
//
//	exec COMMAND... [&]  run, which must succeed; & leaves it in the background
//	code N COMMAND...    run, which must end with exit code N
//	stdout, stderr RE    match what the last command printed
//	wait                 wait for the one in the background, which must succeed
//	signal HUP|TERM|INT  send it a signal
//	waitfile FILE        wait until FILE is there
//	exists FILE          look for a file
//	grep RE FILE         match a file
//	busy NAME            listen somewhere; $NAME is the address
//	cd DIR
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			newScript(t, string(text)).run()
		})
	}
}

type script struct {
	t              *testing.T
	home, dir      string
	lines          []string
	vars           map[string]string
	stdout, stderr string
	back           *exec.Cmd // in the background
	backOut        bytes.Buffer
	backErr        bytes.Buffer
}

var fileMark = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

func newScript(t *testing.T, text string) *script {
	t.Helper()
	s := &script{t: t, home: t.TempDir(), vars: map[string]string{}}
	s.dir = s.home
	marks := fileMark.FindAllStringSubmatchIndex(text, -1)
	end := len(text)
	for _, m := range slices.Backward(marks) {
		path := filepath.Join(s.dir, text[m[2]:m[3]])
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text[m[1]:end]), 0o600); err != nil {
			t.Fatal(err)
		}
		end = m[0]
	}
	s.lines = strings.Split(text[:end], "\n")
	return s
}

var word = regexp.MustCompile(`'[^']*'|\S+`)

func (s *script) run() {
	s.t.Helper()
	for n, line := range s.lines {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		words := word.FindAllString(line, -1)
		for i, w := range words {
			if w[0] == '\'' {
				words[i] = w[1 : len(w)-1]
				continue
			}
			words[i] = os.Expand(w, func(name string) string { return s.vars[name] })
		}
		want := words[0] != "!"
		if !want {
			words = words[1:]
		}
		if got := s.do(words[0], words[1:]); got != want {
			s.t.Fatalf("line %d: %s\nstdout: %s\nstderr: %s", n+1, line, s.stdout, s.stderr)
		}
	}
}

// do runs one command and reports whether it was so.
func (s *script) do(name string, args []string) bool {
	s.t.Helper()
	switch name {
	case "exec":
		if args[len(args)-1] == "&" {
			return s.start(args[:len(args)-1])
		}
		return s.exec(args) == 0
	case "code":
		return strconv.Itoa(s.exec(args[1:])) == args[0]
	case "stdout":
		return regexp.MustCompile("(?m)" + args[0]).MatchString(s.stdout)
	case "stderr":
		return regexp.MustCompile("(?m)" + args[0]).MatchString(s.stderr)
	case "grep":
		text, err := os.ReadFile(s.path(args[1]))
		return err == nil && regexp.MustCompile("(?m)"+args[0]).Match(text)
	case "exists":
		_, err := os.Stat(s.path(args[0]))
		return err == nil
	case "waitfile":
		return eventually(20*time.Second, func() bool { return s.do("exists", args) })
	case "wait":
		err := s.back.Wait()
		s.stdout, s.stderr, s.back = s.backOut.String(), s.backErr.String(), nil
		return err == nil
	case "signal":
		return s.back.Process.Signal(map[string]os.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT}[args[0]]) == nil
	case "busy":
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { _ = l.Close() })
		s.vars[args[0]] = l.Addr().String()
		return true
	case "cd":
		s.dir = s.path(args[0])
		return true
	}
	s.t.Fatalf("unknown command %s", name)
	return false
}

func (s *script) path(name string) string { return filepath.Join(s.dir, name) }

func (s *script) command(args []string) *exec.Cmd {
	name := args[0]
	if name == "millrace" {
		name = program(s.t)
	}
	cmd := exec.Command(name, args[1:]...)
	cmd.Dir = s.dir
	cmd.Env = append(cleanEnv(s.home), "PATH="+filepath.Dir(program(s.t))+string(os.PathListSeparator)+os.Getenv("PATH"))
	return cmd
}

func (s *script) exec(args []string) int {
	cmd := s.command(args)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }) // the exit code tells
	defer timer.Stop()
	_ = cmd.Run() // as above
	s.stdout, s.stderr = out.String(), errs.String()
	return cmd.ProcessState.ExitCode()
}

func (s *script) start(args []string) bool {
	s.back = s.command(args)
	s.backOut.Reset()
	s.backErr.Reset()
	s.back.Stdout, s.back.Stderr = &s.backOut, &s.backErr
	if err := s.back.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd := s.back
	s.t.Cleanup(func() {
		if s.back == cmd { // nobody waited for it
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			s.t.Logf("in the background:\n%s%s", s.backOut.String(), s.backErr.String())
		}
	})
	return true
}
