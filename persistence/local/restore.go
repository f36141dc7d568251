package local

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"

	"millrace/persistence/journal"
)

// BackupError says why an archive is not a backup that can be restored.
type BackupError struct{ Reason string }

func (e *BackupError) Error() string { return "not a whole backup: " + e.Reason }

func badBackup(format string, args ...any) error {
	return &BackupError{Reason: fmt.Sprintf(format, args...)}
}

// archivedNames are the files that a backup may hold.
var archivedNames = regexp.MustCompile(`^(FORMAT|journal/[0-9a-f]{8}\.seg|checkpoint/[0-9A-Za-z.-]{1,64}|stream/[0-9a-f]{16}/[0-9a-f]{4}/[0-9a-f]{16}\.log)$`)

// Limits of what is read before anything is believed.
const (
	maxManifest     = 64 << 20
	maxArchivedFile = 8 << 30
	maxArchived     = 1 << 20 // files
)

// Restore makes the data directory dir, which must be empty or not there, from a
// backup. Nothing is written before the whole archive was verified, and FORMAT
// comes last, so that what was interrupted is not taken for a data directory.
// The result was verified like by Verify.
func Restore(ctx context.Context, fsys journal.FS, dir string, archive io.ReadSeeker) (*Manifest, error) {
	names, err := fsys.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(names) > 0 {
		return nil, &FormatError{Dir: dir, Reason: fmt.Sprintf("it is not empty (%s is there): restore into a new one", names[0])}
	}
	m, err := ReadBackup(ctx, archive)
	if err != nil {
		return nil, err
	}
	if _, err := archive.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if err := extract(ctx, fsys, dir, archive, m); err != nil {
		return nil, fmt.Errorf("restore into %s: %w", dir, err)
	}
	v, err := Verify(ctx, fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("verify what was restored: %w", err)
	}
	if !v.Sound || v.LogEnd != m.LogEnd {
		return nil, fmt.Errorf("what was restored is not sound: the log ends at %s and should end at %s, %d places are damaged", v.LogEnd, m.LogEnd, len(v.Damage))
	}
	return m, nil
}

// ReadBackup reads an archive to its end and verifies it. One that is not whole
// is a *BackupError.
func ReadBackup(ctx context.Context, archive io.Reader) (*Manifest, error) {
	found := map[string]Archived{}
	t := tar.NewReader(archive)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil, badBackup("it has no manifest at its end, as if it was cut off")
		}
		if err != nil {
			return nil, badBackup("%v", err)
		}
		if h.Name == manifestName {
			return readManifest(t, found)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, twice := found[h.Name]; twice || !archivedNames.MatchString(h.Name) || h.Typeflag != tar.TypeReg || len(found) == maxArchived {
			return nil, badBackup("it has a file %q that does not belong there", h.Name)
		}
		sum := sha256.New()
		n, err := io.Copy(sum, t) //nolint:gosec // it is not compressed
		if err != nil {
			return nil, badBackup("%s: %v", h.Name, err)
		}
		found[h.Name] = Archived{Name: h.Name, Stored: n, SHA256: hex.EncodeToString(sum.Sum(nil))}
	}
}

// readManifest compares the manifest with the files that were found.
func readManifest(r io.Reader, found map[string]Archived) (*Manifest, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxManifest))
	if err != nil {
		return nil, badBackup("manifest: %v", err)
	}
	m := new(Manifest)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, badBackup("manifest: %v", err)
	}
	if m.Format != manifestFormat {
		return nil, badBackup("it has format %d, and this program knows %d", m.Format, manifestFormat)
	}
	if len(m.Files) != len(found) {
		return nil, badBackup("it has %d files, and its manifest names %d", len(found), len(m.Files))
	}
	for _, f := range m.Files {
		got, ok := found[f.Name]
		switch {
		case !ok:
			return nil, badBackup("%s is missing", f.Name)
		case got.Stored != f.Stored || got.SHA256 != f.SHA256:
			return nil, badBackup("%s is not what it was: its checksum does not match", f.Name)
		case f.Size < f.Stored || f.Size > maxArchivedFile:
			return nil, badBackup("%s has a size of %d bytes", f.Name, f.Size)
		}
	}
	if _, ok := found[formatName]; !ok {
		return nil, badBackup("%s is missing", formatName)
	}
	return m, nil
}

// extract writes the files of an archive that was verified.
func extract(ctx context.Context, fsys journal.FS, dir string, archive io.Reader, m *Manifest) error {
	if err := makeDirs(fsys, dir); err != nil {
		return err
	}
	dirs := map[string]bool{}
	var format []byte
	t := tar.NewReader(archive)
	for {
		h, err := t.Next()
		if err != nil {
			return err
		}
		if h.Name == manifestName {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if h.Name == formatName {
			if format, err = io.ReadAll(t); err != nil {
				return err
			}
			continue
		}
		i := slices.IndexFunc(m.Files, func(f Archived) bool { return f.Name == h.Name })
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		for d := filepath.Dir(name); len(d) >= len(dir); d = filepath.Dir(d) {
			dirs[d] = true
		}
		if err := fsys.MkdirAll(filepath.Dir(name)); err != nil {
			return err
		}
		if err := extractFile(fsys, name, t, m.Files[i].Size); err != nil {
			return err
		}
	}
	for d := range dirs {
		if err := fsys.SyncDir(d); err != nil {
			return err
		}
	}
	if !bytes.HasPrefix(format, []byte(formatPrefix)) {
		return badBackup("its FORMAT file is not one of Millrace")
	}
	return writeWhole(fsys, filepath.Join(dir, formatName), format)
}

// extractFile writes what is stored of a file, and zeros up to its size.
func extractFile(fsys journal.FS, name string, r io.Reader, size int64) error {
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	off := int64(0)
	for off < size && err == nil {
		part := buf[:min(int64(len(buf)), size-off)]
		n := 0
		if r != nil {
			if n, err = io.ReadFull(r, part); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				r, err = nil, nil
			}
		}
		clear(part[n:])
		if err == nil {
			err = f.WriteAt(off, part)
		}
		off += int64(len(part))
	}
	if err == nil {
		err = f.SyncData()
	}
	return errors.Join(err, f.Close())
}
