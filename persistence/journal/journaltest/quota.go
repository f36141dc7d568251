package journaltest

import (
	"path/filepath"
	"sync"
	"syscall"

	"millrace/persistence/journal"
)

// QuotaFS is a disk of a given size over another file system: what does not fit
// fails with ENOSPC, and Space tells the rest. A file takes what it is long.
type QuotaFS struct {
	journal.FS
	mu    sync.Mutex
	size  int64
	used  int64 // by others
	files map[string]*quotaFile
}

// NewQuotaFS wraps fs, which is empty.
func NewQuotaFS(fs journal.FS, size int64) *QuotaFS {
	return &QuotaFS{FS: fs, size: size, files: map[string]*quotaFile{}}
}

// Occupy sets how much of the disk others use.
func (q *QuotaFS) Occupy(bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used = bytes
}

// Fill has others use all that is left.
func (q *QuotaFS) Fill() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used += q.free()
}

// Free is the room that is left.
func (q *QuotaFS) Free() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.free()
}

func (q *QuotaFS) free() int64 {
	left := q.size - q.used
	for _, f := range q.files {
		left -= f.length
	}
	return left
}

// Space implements journal.FS.
func (q *QuotaFS) Space(string) (free, size int64, err error) {
	return max(q.Free(), 0), q.size, nil
}

// Create implements journal.FS.
func (q *QuotaFS) Create(name string) (journal.File, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.free() < 0 {
		return nil, syscall.ENOSPC
	}
	f, err := q.FS.Create(name)
	if err != nil {
		return nil, err
	}
	n := &quotaFile{File: f, q: q}
	q.files[filepath.Clean(name)] = n
	return n, nil
}

// Open implements journal.FS.
func (q *QuotaFS) Open(name string) (journal.File, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f, err := q.FS.Open(name)
	if err != nil {
		return nil, err
	}
	if n := q.files[filepath.Clean(name)]; n != nil {
		return &quotaHandle{f, n}, nil
	}
	return f, nil
}

// Rename implements journal.FS.
func (q *QuotaFS) Rename(oldName, newName string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	err := q.FS.Rename(oldName, newName)
	if err == nil {
		q.files[filepath.Clean(newName)] = q.files[filepath.Clean(oldName)]
		delete(q.files, filepath.Clean(oldName))
	}
	return err
}

// Remove implements journal.FS.
func (q *QuotaFS) Remove(name string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	err := q.FS.Remove(name)
	if err == nil {
		delete(q.files, filepath.Clean(name))
	}
	return err
}

// quotaFile counts how long a file is.
type quotaFile struct {
	journal.File
	q      *QuotaFS
	length int64
}

// WriteAt implements journal.File.
func (f *quotaFile) WriteAt(off int64, bufs ...[]byte) error { return f.write(f.File, off, bufs) }

// grow takes room for a file of that length.
func (f *quotaFile) grow(to int64) error {
	f.q.mu.Lock()
	defer f.q.mu.Unlock()
	if more := to - f.length; more > 0 {
		if more > f.q.free() {
			return syscall.ENOSPC
		}
		f.length = to
	}
	return nil
}

func (f *quotaFile) write(to journal.File, off int64, bufs [][]byte) error {
	end := off
	for _, b := range bufs {
		end += int64(len(b))
	}
	if err := f.grow(end); err != nil {
		return err
	}
	return to.WriteAt(off, bufs...)
}

// Truncate implements journal.File.
func (f *quotaFile) Truncate(size int64) error {
	if err := f.grow(size); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// quotaHandle is another handle of a file.
type quotaHandle struct {
	journal.File
	of *quotaFile
}

// WriteAt implements journal.File.
func (h *quotaHandle) WriteAt(off int64, bufs ...[]byte) error { return h.of.write(h.File, off, bufs) }
