package main

import (
	"fmt"
	"os"
	"syscall"
)

// machine reads the load of the last 1, 5 and 15 minutes, and the memory in
// bytes; what cannot be read is 0.
func machine() (load [3]float64, memory uint64) {
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(text), &load[0], &load[1], &load[2]) // zero where it is of another form
	}
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil {
		memory = info.Totalram * uint64(info.Unit)
	}
	return load, memory
}
