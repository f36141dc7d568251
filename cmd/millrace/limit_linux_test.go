package main_test

import "golang.org/x/sys/unix"

// limitFiles makes every write of a process beyond n bytes of a file fail.
func limitFiles(pid int, n uint64) error {
	return unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n}, nil)
}
