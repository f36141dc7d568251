package main_test

import "golang.org/x/sys/unix"

// limitFiles makes every write of a process beyond n bytes of a file fail.
func limitFiles(pid int, n uint64) error {
	return unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n}, nil)
}

// openFiles is how many files this process may have open.
func openFiles() uint64 {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	return l.Cur
}
