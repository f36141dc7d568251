package local

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"time"

	"millrace/broker"
	"millrace/persistence/journal"
)

// A backup is a tar of the files of a data directory as a start would find them
// after a power cut at one moment, and at its end a manifest with their
// checksums: an archive without one is not whole. Of each file there is what
// counts of it; what follows in a segment is zeros.
const (
	manifestName   = "MANIFEST.json"
	manifestFormat = 1
)

// Manifest describes a backup.
type Manifest struct {
	Format  int        `json:"format"`
	Taken   time.Time  `json:"taken"`
	StoreID string     `json:"store_id"`
	LogEnd  string     `json:"log_end"` // everything recorded before it is in the backup, and nothing after it
	Files   []Archived `json:"files"`
}

// Archived is one file of a backup.
type Archived struct {
	Name   string `json:"name"`   // below the data directory, with slashes
	Size   int64  `json:"size"`   // of the file
	Stored int64  `json:"stored"` // bytes of it in the archive; the others are zero
	SHA256 string `json:"sha256"` // of those
}

// member is a file that can be read however long the archive takes.
type member struct {
	Archived
	from io.ReaderAt
}

// moment is what a backup consists of.
type moment struct {
	manifest Manifest
	files    []member
	segments []*journal.Held
	streams  []*streamFile
	ckpt     journal.File // nil if there is none
}

// Backup writes a backup of the store to w: of everything that was answered
// before the call, and of some that was answered during it. Traffic goes on, and
// so does the removal of what is not needed any more.
func (s *Store) Backup(ctx context.Context, w io.Writer) error {
	if s.journal == nil {
		return errors.New("a store in memory has nothing to back up")
	}
	m := &moment{}
	defer m.release()
	if err := m.hold(ctx, s); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	t := tar.NewWriter(w)
	for i := range m.files {
		if err := m.archive(ctx, t, &m.files[i]); err != nil {
			return fmt.Errorf("backup: %w", err)
		}
	}
	text, err := json.MarshalIndent(&m.manifest, "", "  ")
	if err != nil {
		return err
	}
	if err := m.entry(t, manifestName, int64(len(text))); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	_, err = t.Write(text)
	return errors.Join(err, t.Close())
}

// hold fixes the moment. Files of streams come first: what is cut off them from
// then on is in the log, if it was before the end of that.
func (m *moment) hold(ctx context.Context, s *Store) error {
	s.files.copy.Lock()
	defer s.files.copy.Unlock()
	format := []byte(formatPrefix + strconv.Itoa(formatVersion) + "\n")
	m.add(formatName, int64(len(format)), int64(len(format)), bytesAt(format))
	for _, t := range s.all() {
		if t.st == nil || t.st.volatile {
			continue
		}
		for _, p := range t.st.partitions() {
			if err := m.holdFiles(p); err != nil {
				return err
			}
		}
	}
	s.ckpts.mu.Lock() // none comes or goes, and no segment goes that the newest needs
	defer s.ckpts.mu.Unlock()
	if err := m.holdCheckpoint(s.ckpts.newest(), s.files.fs); err != nil {
		return err
	}
	if err := s.wal.Lock(); err != nil {
		return unavailable(err)
	}
	s.flushNotes()
	if err := s.wait(ctx); err != nil {
		return err
	}
	st := s.journal.State()
	held, err := s.journal.Hold(st.Durable)
	if err != nil {
		return err
	}
	m.segments = held
	for _, h := range held {
		m.add(fmt.Sprintf("%s/%08x.seg", journalName, h.Number), h.Size, int64(h.End), h)
	}
	m.manifest.Format, m.manifest.Taken = manifestFormat, time.Now().UTC().Truncate(time.Millisecond)
	m.manifest.StoreID, m.manifest.LogEnd = hex.EncodeToString(st.StoreID[:]), st.Durable.String()
	return nil
}

// holdCheckpoint holds the newest checkpoint: the log before it is not whole.
func (m *moment) holdCheckpoint(c ckptFile, fsys journal.FS) error {
	if c.name == "" {
		return nil
	}
	f, err := fsys.Open(c.name)
	if err != nil {
		return err
	}
	m.ckpt = f
	size, err := f.Size()
	m.add(ckptDir+"/"+filepath.Base(c.name), size, size, f)
	return err
}

// holdFiles holds the files of a partition.
func (m *moment) holdFiles(p *partition) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, f := range p.files {
		file, err := f.acquire()
		if err != nil {
			return err
		}
		m.streams = append(m.streams, f)
		dir := filepath.Base(filepath.Dir(filepath.Dir(f.name))) + "/" + filepath.Base(filepath.Dir(f.name))
		m.add(streamName+"/"+dir+"/"+filepath.Base(f.name), f.length(), f.length(), file)
	}
	return nil
}

func (m *moment) add(name string, size, stored int64, from io.ReaderAt) {
	m.files = append(m.files, member{Archived{Name: name, Size: size, Stored: stored}, from})
}

// release lets go of all files.
func (m *moment) release() {
	journal.Release(m.segments)
	if m.ckpt != nil {
		_ = m.ckpt.Close() // it was only read
	}
	for _, f := range m.streams {
		f.release()
	}
}

// archive writes one file, and notes its checksum.
func (m *moment) archive(ctx context.Context, t *tar.Writer, h *member) error {
	if err := m.entry(t, h.Name, h.Stored); err != nil {
		return err
	}
	sum := sha256.New()
	buf := make([]byte, 256<<10)
	for off := int64(0); off < h.Stored; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := h.from.ReadAt(buf[:min(int64(len(buf)), h.Stored-off)], off)
		if n == 0 {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		_, _ = sum.Write(buf[:n]) // never fails
		if _, err := t.Write(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	h.SHA256 = hex.EncodeToString(sum.Sum(nil))
	m.manifest.Files = append(m.manifest.Files, h.Archived)
	return nil
}

func (m *moment) entry(t *tar.Writer, name string, size int64) error {
	return t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: size, ModTime: m.manifest.Taken, Format: tar.FormatPAX})
}

// bytesAt is bytes as a file.
type bytesAt []byte

// ReadAt implements io.ReaderAt.
func (b bytesAt) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, b[min(off, int64(len(b))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

var _ broker.Archive = (*Store)(nil)
