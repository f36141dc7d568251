package local

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"millrace/persistence/journal"
)

// KeepBackup writes a backup that r reads to a file. It has its name once it is
// whole, verified and on disk, and not before: until then it is called NAME.part,
// which is gone after an error. Errors of r come back as they are.
func KeepBackup(ctx context.Context, fsys journal.FS, name string, r io.Reader) (size int64, err error) {
	part := name + ".part"
	f, err := fsys.Create(part)
	if err != nil {
		return 0, err
	}
	if size, err = fill(f, r); err == nil {
		err = f.SyncData()
	}
	if err == nil {
		_, err = ReadBackup(ctx, io.NewSectionReader(f, 0, size))
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(part, name)
	}
	if err != nil {
		_ = fsys.Remove(part) // it is no backup
		return size, err
	}
	return size, fsys.SyncDir(filepath.Dir(name))
}

// fill writes all that r reads.
func fill(f journal.File, r io.Reader) (size int64, err error) {
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := f.WriteAt(size, buf[:n]); err != nil {
				return size, err
			}
			size += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF):
			return size, nil
		case err != nil:
			return size, err
		}
	}
}
