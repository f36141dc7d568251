package auth

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

const auditSync = time.Second

// AuditFile is a file for Options.Audit that only grows, until it is full: then
// it becomes PATH.1, PATH.1 becomes PATH.2, and the oldest goes. What was
// written survives the end of the process at once, and the loss of power after
// a second.
type AuditFile struct {
	path     string
	maxBytes int64
	keep     int

	mu     sync.Mutex
	file   *os.File
	size   int64
	timer  *time.Timer // runs while something is not synced
	failed error       // of a sync nobody waited for
	closed bool
}

// OpenAuditFile opens or makes the file at path, for its owner only. maxBytes
// is the size of one file, default 16 MiB; keep is how many full ones stay,
// default 8.
func OpenAuditFile(path string, maxBytes int64, keep int) (*AuditFile, error) {
	if maxBytes <= 0 {
		maxBytes = 16 << 20
	}
	if keep <= 0 {
		keep = 8
	}
	f := &AuditFile{path: path, maxBytes: maxBytes, keep: keep}
	if err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

// open goes on where a process before ended, perhaps in the middle of a line.
func (f *AuditFile) open() error {
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open audit log: %w", err)
	}
	info, err := file.Stat()
	if err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err = file.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			_, err = file.WriteString("\n")
		}
	}
	if err != nil {
		_ = file.Close() // the first error tells more
		return fmt.Errorf("open audit log: %w", err)
	}
	f.file, f.size = file, info.Size()
	return nil
}

// Write appends one line, whole or not at all as far as the system lets it.
func (f *AuditFile) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failed; err != nil {
		f.failed = nil
		return 0, err
	}
	if f.closed {
		return 0, os.ErrClosed
	}
	if f.file == nil { // it could not be opened after a rotation
		if err := f.open(); err != nil {
			return 0, err
		}
	}
	if f.size > 0 && f.size+int64(len(line)) > f.maxBytes {
		if err := f.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := f.file.Write(line)
	f.size += int64(n)
	if f.timer == nil {
		f.timer = time.AfterFunc(auditSync, f.sync)
	}
	return n, err
}

// sync is the timer's errand.
func (f *AuditFile) sync() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.timer = nil
	if f.file != nil {
		f.failed = f.file.Sync()
	}
}

// rotate begins a new file. Where it cannot, no line is written until it can:
// the log stays bounded, and the writer is told.
func (f *AuditFile) rotate() error {
	if err := f.file.Sync(); err != nil {
		return fmt.Errorf("rotate audit log: %w", err)
	}
	_ = f.file.Close() // it is synced
	f.file = nil
	for i := f.keep; i > 0; i-- {
		from := fmt.Sprintf("%s.%d", f.path, i-1)
		if i == 1 {
			from = f.path
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", f.path, i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return errors.Join(fmt.Errorf("rotate audit log: %w", err), f.open())
		}
	}
	return f.open()
}

// Close syncs and closes the file.
func (f *AuditFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	if f.timer != nil {
		f.timer.Stop()
	}
	err := f.failed
	if f.file != nil {
		err = errors.Join(err, f.file.Sync(), f.file.Close())
		f.file = nil
	}
	return err
}
