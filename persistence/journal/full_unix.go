//go:build unix

package journal

import (
	"errors"

	"golang.org/x/sys/unix"
)

// isFull reports whether err means that the disk or a quota is full.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// diskSpace asks the file system that dir is on.
func diskSpace(dir string) (free, size int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	block := int64(st.Bsize) //nolint:unconvert // its type differs between systems
	return int64(st.Bavail) * block, int64(st.Blocks) * block, nil
}
