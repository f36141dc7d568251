package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
)

// FS is all that the stores may do to the disk. Tests put power cuts, failing
// calls and full disks behind it. Names are paths with the system's separator.
type FS interface {
	Create(name string) (File, error) // for reading and writing; emptied if it exists
	Open(name string) (File, error)   // an existing file, for reading and writing
	Rename(oldName, newName string) error
	Remove(name string) error
	List(dir string) ([]string, error) // base names, sorted
	MkdirAll(dir string) error         // for the owner alone, like files
	// SyncDir makes creations, renames and removals in dir durable.
	SyncDir(dir string) error
	// Space is how many bytes may still be written to the disk that dir is on,
	// and how large the disk is.
	Space(dir string) (free, size int64, err error)
	// Lock creates name and locks it for this process until the result is
	// closed. While another process holds it, the error is a *LockedError.
	Lock(name string) (io.Closer, error)
}

// File is an open file of an FS.
type File interface {
	// ReadAt is io.ReaderAt: fewer bytes than asked for come with an error.
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt writes the buffers one after the other, in one call where the
	// system can, or fails. It does not keep or change them.
	WriteAt(off int64, bufs ...[]byte) error
	// SyncData makes the contents, and the size where it grew, durable.
	SyncData() error
	Truncate(size int64) error
	Size() (int64, error)
	Close() error
}

// LockedError says that another process holds a lock file.
type LockedError struct {
	Name string
	PID  int // as that process wrote it; 0 if it could not be read
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return e.Name + " is locked by another process"
	}
	return e.Name + " is locked by process " + strconv.Itoa(e.PID)
}

// OS is the file system of the machine.
func OS() FS { return osFS{} }

// osFS is the machine's; readOnly opens files for reading and locks for sharing.
type osFS struct{ readOnly bool }

func (osFS) Create(name string) (File, error) {
	return openFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

func (o osFS) Open(name string) (File, error) {
	if o.readOnly {
		return openFile(name, os.O_RDONLY)
	}
	return openFile(name, os.O_RDWR)
}

func (osFS) Rename(oldName, newName string) error { return os.Rename(oldName, newName) }

func (osFS) Remove(name string) error { return os.Remove(name) }

func (osFS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

func (osFS) SyncDir(dir string) error { return syncDir(dir) }

func (osFS) Space(dir string) (free, size int64, err error) { return diskSpace(dir) }

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (o osFS) Lock(name string) (io.Closer, error) {
	flags := os.O_RDWR | os.O_CREATE
	if o.readOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(name, flags, 0o600)
	if o.readOnly && errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(nil), nil // nobody ever had it
	}
	if err != nil {
		return nil, err
	}
	if err := lockFile(f, o.readOnly); err != nil {
		pid := readPID(f)
		_ = f.Close() // nothing was written
		if errors.Is(err, errLocked) {
			return nil, &LockedError{Name: name, PID: pid}
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if o.readOnly {
		return f, nil
	}
	if err := writePID(f); err != nil {
		_ = f.Close() // the write error says more
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return f, nil // closing the file releases the lock
}

var errLocked = errors.New("locked")

func readPID(f *os.File) int {
	var b [32]byte
	n, _ := f.ReadAt(b[:], 0) // a short read is the normal case
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b[:n])))
	if err != nil {
		return 0
	}
	return pid
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// osFile adds to os.File what the standard library lacks; WriteAt and SyncData
// are per platform.
type osFile struct{ f *os.File }

func openFile(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return &osFile{f: f}, nil
}

func (o *osFile) ReadAt(p []byte, off int64) (int, error) { return o.f.ReadAt(p, off) }

func (o *osFile) Truncate(size int64) error { return o.f.Truncate(size) }

func (o *osFile) Close() error { return o.f.Close() }

func (o *osFile) Size() (int64, error) {
	info, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
