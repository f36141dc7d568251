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
	ckpts    []journal.File
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
	if err := m.hold(s); err != nil {
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

// hold fixes the moment, between two rounds of upkeep. Files of streams and
// checkpoints come first: what is cut off or recorded after them and before the
// end of the log is in the log.
func (m *moment) hold(s *Store) error {
	s.upkeep.mu.Lock()
	defer s.upkeep.mu.Unlock()
	s.ckpts.mu.Lock()
	defer s.ckpts.mu.Unlock()
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
	for _, c := range s.ckpts.kept {
		if err := m.holdCheckpoint(s.ckpts.fs, c.name); err != nil {
			return err
		}
	}
	if err := s.barrier(); err != nil {
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

func (m *moment) holdCheckpoint(fsys journal.FS, name string) error {
	f, err := fsys.Open(name)
	if err != nil {
		return err
	}
	m.ckpts = append(m.ckpts, f)
	size, err := f.Size()
	if err != nil {
		return err
	}
	m.add(ckptDir+"/"+filepath.Base(name), size, size, f)
	return nil
}

func (m *moment) add(name string, size, stored int64, from io.ReaderAt) {
	m.files = append(m.files, member{Archived{Name: name, Size: size, Stored: stored}, from})
}

// release lets go of all files.
func (m *moment) release() {
	journal.Release(m.segments)
	for _, f := range m.streams {
		f.release()
	}
	for _, f := range m.ckpts {
		_ = f.Close() // it was only read
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
