package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// listenFailure says for people which of the listeners could not be opened, why,
// and what moves it.
func listenFailure(wanted []opened, err error) error {
	l := wanted[0]
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Addr != nil {
		_, port, _ := net.SplitHostPort(op.Addr.String())
		for _, w := range wanted {
			if strings.HasSuffix(w.addr, ":"+port) {
				l = w
			}
		}
	}
	move := fmt.Sprintf("Use --%s-listen or MILLRACE_%s_LISTEN.", l.name, strings.ToUpper(strings.ReplaceAll(l.name, "-", "_")))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &failure{code: exitBusy, err: fmt.Errorf("cannot listen on %s: in use%s. %s [E1003]", l.addr, inUseBy(l.addr), move)}
	case errors.Is(err, syscall.EACCES):
		return &failure{code: exitConfig, err: fmt.Errorf("cannot listen on %s: ports below 1024 are root's. %s [E1003]", l.addr, move)}
	}
	return &failure{code: exitConfig, err: fmt.Errorf("cannot listen on %s: %w. %s [E1003]", l.addr, err, move)}
}

// inUseBy names the process that listens on the port, where /proc tells.
func inUseBy(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return ""
	}
	sockets := listening(n)
	if len(sockets) == 0 {
		return ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // no /proc, no name
	for _, l := range links {
		target, err := os.Readlink(l)
		if err != nil || !sockets[target] {
			continue
		}
		dir := filepath.Dir(filepath.Dir(l))
		name, _ := os.ReadFile(filepath.Join(dir, "comm")) // the pid alone helps, too
		return strings.TrimSuffix(fmt.Sprintf(" (pid %s, %s", filepath.Base(dir), strings.TrimSpace(string(name))), ", ") + ")"
	}
	return ""
}

// listening returns the sockets that listen on a port, as /proc/PID/fd names
// them: lines of /proc/net/tcp hold the local address, the state (0A = listen)
// and the inode.
func listening(port int) map[string]bool {
	found := map[string]bool{}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(file) // no /proc, no name
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				found["socket:["+f[9]+"]"] = true
			}
		}
	}
	return found
}
