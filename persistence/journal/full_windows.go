package journal

import (
	"errors"

	"golang.org/x/sys/windows"
)

// isFull reports whether err means that the disk or a quota is full.
func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// diskSpace asks the volume that dir is on.
func diskSpace(dir string) (free, size int64, err error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, 0, err
	}
	var mine, total, all uint64
	err = windows.GetDiskFreeSpaceEx(name, &mine, &total, &all)
	return int64(mine), int64(total), err
}
