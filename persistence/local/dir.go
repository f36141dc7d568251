package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rs/zerolog"

	"millrace/persistence/journal"
)

// The data directory:
//
//	FORMAT       the version of everything below, in words
//	LOCK         held, and with the process id in it, while the store is open
//	journal/     segments, their hints, watermark
//	checkpoint/  the two newest checkpoints
//	stream/      files of streams
//	quarantine/  what was given up, or set aside because it is damaged
const (
	formatName  = "FORMAT"
	lockName    = "LOCK"
	journalName = "journal"
	ckptDir     = "checkpoint"

	formatVersion = 2 // 1 had no checkpoints, and no moves
	formatPrefix  = "millrace data "
)

// FormatError says that a data directory was written by a newer Millrace, or
// is not one. Nothing in it was touched.
type FormatError struct {
	Dir    string
	Reason string
}

func (e *FormatError) Error() string { return "data directory " + e.Dir + ": " + e.Reason }

// PermissionError says that anybody may write into a data directory.
type PermissionError struct {
	Dir  string
	Mode fs.FileMode
}

func (e *PermissionError) Error() string {
	return fmt.Sprintf("data directory %s may be written by everybody (mode %v): take that right away with chmod o-w", e.Dir, e.Mode.Perm())
}

// openDir makes, checks and locks a data directory. The lock lasts until
// unlock. That another process has it is a *journal.LockedError.
func openDir(fsys journal.FS, dir string, log zerolog.Logger) (unlock func() error, err error) {
	// Before anything is written: a directory of a newer version stays as it is.
	if _, err := readFormat(fsys, dir); err != nil {
		return nil, err
	}
	if fsys == journal.OS() {
		if err := checkMode(dir, log); err != nil {
			return nil, err
		}
	}
	if err := makeDirs(fsys, dir); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := ensureFormat(fsys, dir); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock.Close, nil
}

// makeDirs makes the directories that are missing, and makes them durable: a
// file that was synced is lost with the directory it is in.
func makeDirs(fsys journal.FS, dir string) error {
	_, err := fsys.List(dir)
	existed, missing := err == nil, false
	for _, name := range []string{journalName, ckptDir} {
		inner := filepath.Join(dir, name)
		if _, err := fsys.List(inner); existed && err == nil {
			continue
		}
		missing = true
		if err := fsys.MkdirAll(inner); err != nil {
			return err
		}
	}
	if !missing {
		return nil
	}
	if err := fsys.SyncDir(dir); err != nil || existed {
		return err
	}
	return fsys.SyncDir(filepath.Dir(filepath.Clean(dir)))
}

// checkMode refuses what anybody may write, and warns of what a group may.
func checkMode(dir string, log zerolog.Logger) error {
	link, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it will be ours alone
	}
	if err != nil {
		return fmt.Errorf("look at data directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at data directory: %w", err)
	}
	if info.Mode().Perm()&0o002 != 0 {
		return &PermissionError{Dir: dir, Mode: info.Mode()}
	}
	if info.Mode().Perm()&0o020 != 0 {
		log.Warn().Str("dir", dir).Msg("data directory may be written by its group")
	}
	if link.Mode()&fs.ModeSymlink != 0 {
		log.Warn().Str("dir", dir).Msg("data directory is a symbolic link")
	}
	return nil
}

// readFormat returns the version of a data directory, 0 if it has none yet.
func readFormat(fsys journal.FS, dir string) (int, error) {
	text, err := readFile(fsys, filepath.Join(dir, formatName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read format of data directory: %w", err)
	}
	word, ok := strings.CutPrefix(strings.TrimSpace(text), formatPrefix)
	version, err := strconv.Atoi(word)
	switch {
	case !ok || err != nil || version < 1:
		return 0, &FormatError{Dir: dir, Reason: "its FORMAT file is not one of Millrace"}
	case version > formatVersion:
		return 0, &FormatError{Dir: dir, Reason: fmt.Sprintf("it has version %d, and this program knows up to %d: use a newer one", version, formatVersion)}
	}
	return version, nil
}

// ensureFormat writes the version into a new data directory, or one of an older
// version, which this program reads and goes on with. The file appears whole: it
// is written under another name first.
func ensureFormat(fsys journal.FS, dir string) error {
	version, err := readFormat(fsys, dir)
	if err != nil || version == formatVersion {
		return err
	}
	if names, err := fsys.List(filepath.Join(dir, journalName)); version == 0 && err == nil && len(names) > 0 {
		return &FormatError{Dir: dir, Reason: "it has a journal and no FORMAT file"}
	}
	text := []byte(formatPrefix + strconv.Itoa(formatVersion) + "\n")
	if err := writeWhole(fsys, filepath.Join(dir, formatName), text); err != nil {
		return fmt.Errorf("write format of data directory: %w", err)
	}
	return nil
}

// readFile reads a small file.
func readFile(fsys journal.FS, name string) (string, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	b := make([]byte, 256)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(b[:n]), nil
}
