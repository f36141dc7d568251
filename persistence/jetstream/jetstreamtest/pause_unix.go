//go:build unix

package jetstreamtest

import (
	"os"
	"syscall"
)

// Pause stops a process where it is, until Resume.
func Pause(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// Resume lets a process go on.
func Resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
