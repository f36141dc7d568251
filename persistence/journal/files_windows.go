package journal

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lockFile locks f for this process, or for all that share it.
func lockFile(f *os.File, shared bool) error {
	flags := uint32(windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY)
	if shared {
		flags = windows.LOCKFILE_FAIL_IMMEDIATELY
	}
	// One byte far behind the contents, so that others can still read the pid.
	at := &windows.Overlapped{Offset: 1 << 20}
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return errLocked
	}
	return err
}

// syncDir has no counterpart here: NTFS journals its directories itself.
func syncDir(string) error { return nil }
