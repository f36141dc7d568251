package journaltest

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"millrace/persistence/journal"
)

// RawDisk returns a function that writes and syncs some pages of a zero-filled
// file n times: the most that this disk can do for a group that waits for it.
func RawDisk(tb testing.TB, pages int) func(n int) time.Duration {
	tb.Helper()
	const size = 64 << 20
	f, err := journal.OS().Create(filepath.Join(tb.TempDir(), "raw"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.Close() })
	if err := errors.Join(f.WriteAt(0, make([]byte, size)), f.SyncData()); err != nil {
		tb.Fatal(err)
	}
	group := bytes.Repeat([]byte{1}, pages*4096)
	next := 0
	return func(n int) time.Duration {
		begin := time.Now()
		for range n {
			if err := errors.Join(f.WriteAt(int64(next), group), f.SyncData()); err != nil {
				tb.Fatal(err)
			}
			if next += len(group); next+len(group) > size {
				next = 0
			}
		}
		return time.Since(begin)
	}
}
