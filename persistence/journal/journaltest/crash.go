package journaltest

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"millrace/persistence/journal"
)

// Crashable is a file system in memory that can lose power.
type Crashable interface {
	journal.FS
	// Crash returns the file system as it might be after a power cut now: what
	// was synced, and each other block with a probability of keep percent.
	Crash(keep int, rng *rand.Rand) Crashable
}

// CrashFS is Pebble's crashable file system behind the journal's interface.
type CrashFS struct{ mem *vfs.MemFS }

// NewCrashFS returns an empty one.
func NewCrashFS() *CrashFS { return &CrashFS{mem: vfs.NewCrashableMem()} }

// Crash implements Crashable; blocks have 4 KiB.
func (c *CrashFS) Crash(keep int, rng *rand.Rand) Crashable {
	return &CrashFS{mem: c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: rng})}
}

// Create implements journal.FS.
func (c *CrashFS) Create(name string) (journal.File, error) {
	f, err := c.mem.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &crashFile{f}, nil
}

// Open implements journal.FS.
func (c *CrashFS) Open(name string) (journal.File, error) {
	if _, err := c.mem.Stat(name); err != nil {
		return nil, err // OpenReadWrite would create it
	}
	f, err := c.mem.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &crashFile{f}, nil
}

// Rename implements journal.FS.
func (c *CrashFS) Rename(oldName, newName string) error { return c.mem.Rename(oldName, newName) }

// Remove implements journal.FS.
func (c *CrashFS) Remove(name string) error { return c.mem.Remove(name) }

// MkdirAll implements journal.FS.
func (c *CrashFS) MkdirAll(dir string) error { return c.mem.MkdirAll(dir, 0o750) }

// List implements journal.FS.
func (c *CrashFS) List(dir string) ([]string, error) {
	names, err := c.mem.List(dir)
	slices.Sort(names)
	return names, err
}

// SyncDir implements journal.FS.
func (c *CrashFS) SyncDir(dir string) error {
	d, err := c.mem.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Space implements journal.FS; there is no end to it.
func (c *CrashFS) Space(string) (free, size int64, err error) { return 1 << 50, 1 << 50, nil }

// Lock implements journal.FS.
func (c *CrashFS) Lock(name string) (io.Closer, error) {
	l, err := c.mem.Lock(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &journal.LockedError{Name: name}
	}
	return l, err
}

type crashFile struct{ f vfs.File }

func (c *crashFile) ReadAt(p []byte, off int64) (int, error) { return c.f.ReadAt(p, off) }
func (c *crashFile) SyncData() error                         { return c.f.SyncData() }
func (c *crashFile) Close() error                            { return c.f.Close() }

func (c *crashFile) WriteAt(off int64, bufs ...[]byte) error {
	for _, b := range bufs {
		n, err := c.f.WriteAt(b, off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

func (c *crashFile) Size() (int64, error) {
	info, err := c.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Truncate can only grow: Pebble's files have no way to shrink.
func (c *crashFile) Truncate(size int64) error {
	have, err := c.Size()
	switch {
	case err != nil || have == size:
		return err
	case have > size:
		return errors.ErrUnsupported
	}
	return c.WriteAt(have, make([]byte, size-have))
}
