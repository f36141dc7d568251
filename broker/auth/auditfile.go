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
// a second. Each line holds the hash of the line before, over the ends of files
// too: see VerifyAudit.
type AuditFile struct {
	path     string
	maxBytes int64
	keep     int

	mu     sync.Mutex
	file   *os.File
	size   int64
	head   string      // hash of the last line, "" before the first
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
	var err error
	if f.head, err = headOf(path, fullFile(path, 1)); err != nil {
		_ = f.file.Close() // the first error tells more
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	return f, nil
}

// Head is the hash of the last line, "" before the first: what VerifyAudit is
// to find. Kept elsewhere, it tells whether lines were cut off at the end.
func (f *AuditFile) Head() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.head
}

// fullFile is the nth full file of the log at path, the youngest is the first.
func fullFile(path string, n int) string { return fmt.Sprintf("%s.%d", path, n) }

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

// Write appends one line, a JSON object, whole or not at all as far as the
// system lets it, and adds the member prev to it.
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
	text, err := chained(line, f.head)
	if err != nil {
		return 0, err
	}
	if f.size > 0 && f.size+int64(len(text)) > f.maxBytes {
		if err := f.rotate(); err != nil {
			return 0, err
		}
	}
	n, err := f.file.Write(text)
	if n > 0 {
		f.size += int64(n)
		f.head = lineHash(text[:n])
	}
	if err != nil { // opened again for the next line, behind what is there of this one
		_ = f.file.Close()
		f.file = nil
		return 0, err
	}
	if f.timer == nil {
		f.timer = time.AfterFunc(auditSync, f.sync)
	}
	return len(line), nil
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
		from := fullFile(f.path, i-1)
		if i == 1 {
			from = f.path
		}
		if err := os.Rename(from, fullFile(f.path, i)); err != nil && !errors.Is(err, os.ErrNotExist) {
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
