package local

import (
	"cmp"
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"millrace/broker"
	"millrace/persistence/journal"
)

// streamName is the directory of the files of streams.
const streamName = "stream"

// limit sets the sizes of files and runs.
func (f *files) limit(o Options) {
	f.max, f.runMax = fileMax, recordsBytes
	if o.SegmentSize > 0 {
		f.max, f.runMax = min(fileMax, o.SegmentSize), min(recordsBytes, o.SegmentSize/16)
	}
}

// openFiles finds the files of every partition after the journal was read. What
// a copy that did not end left behind is removed, and so is what belongs to
// nobody any more; names that are not ours are left alone.
func (s *Store) openFiles(o Options) error {
	s.files.fs, s.files.dir = o.FS, filepath.Join(o.Dir, streamName)
	dirs, err := o.FS.List(s.files.dir)
	if err != nil {
		dirs = nil // there are none yet; one that must be there is missed below
	}
	for _, name := range dirs {
		id, err := strconv.ParseUint(name, 16, 64)
		if err != nil {
			continue
		}
		if s.targets[broker.Target(id)].st == nil && s.used(broker.Target(id)) {
			s.removeStream(filepath.Join(s.files.dir, name))
		}
	}
	var errs []error
	for _, t := range s.targets {
		if t.st == nil || t.st.volatile {
			continue
		}
		for _, p := range t.st.parts {
			if err := p.open(o.AcceptLoss); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// open finds the files of one partition.
func (p *partition) open(acceptLoss bool) error {
	s := p.st.s
	dir := s.files.dirOf(p.st.id, p.number)
	names, err := s.files.fs.List(dir)
	if err != nil {
		names = nil
	}
	store := s.journal.State().StoreID
	damaged := map[*streamFile]error{}
	for _, name := range names {
		hex, ours := strings.CutSuffix(name, ".log")
		base, err := strconv.ParseUint(hex, 16, 64)
		if !ours || err != nil || fileName(base) != name {
			continue
		}
		f := &streamFile{files: &s.files, name: filepath.Join(dir, name), target: p.st.id, partition: p.number, base: base}
		if base >= p.copied || base > p.newest { // the rest of a copy that did not end
			p.doomed = append(p.doomed, f)
			continue
		}
		if f.size, err = f.fileSize(); err != nil {
			return err
		}
		if err := f.readHeader(store); err != nil {
			if _, ok := errors.AsType[*journal.DamageError](err); !ok || !acceptLoss {
				return err
			}
			damaged[f] = err
		}
		if err := f.readFirst(); err != nil && !acceptLoss {
			return err
		}
		p.files = append(p.files, f)
	}
	slices.SortFunc(p.files, func(a, b *streamFile) int { return cmp.Compare(a.base, b.base) })
	if acceptLoss {
		if err := p.giveUpFiles(damaged); err != nil {
			return err
		}
	}
	if err := p.checkFiles(dir); err != nil {
		return err
	}
	for _, f := range p.files {
		p.weigh(f.size)
	}
	p.weigh(-p.cutFiles(p.first))
	s.removeFiles(p.doomed)
	p.doomed = nil
	return nil
}

// checkFiles verifies that the files are those of which the journal knows.
func (p *partition) checkFiles(dir string) error {
	if p.copied <= p.first {
		return nil
	}
	n := len(p.files)
	if n == 0 || p.files[0].prev > p.first || p.files[n-1].base != p.newest {
		return &journal.DamageError{File: dir, Reason: "files of the stream are missing"}
	}
	for i, f := range p.files {
		want := p.newestSize
		if i+1 < n {
			want = int64(p.files[i+1].prevSize)
		}
		if f.lost || i+1 < n && p.files[i+1].lost {
			continue // nobody knows
		}
		if f.size < want {
			return f.damage(f.size, "the file is cut off")
		}
		f.size = want
	}
	return nil
}

func (f *streamFile) fileSize() (int64, error) {
	file, err := f.acquire()
	if err != nil {
		return 0, err
	}
	defer f.release()
	return file.Size()
}

// removeFiles removes files of which nothing is needed. One that stays because
// of an error is removed at the next start.
func (s *Store) removeFiles(list []*streamFile) {
	for _, f := range list {
		f.close()
		if err := s.files.fs.Remove(f.name); err != nil {
			s.log.Warn().Err(err).Str("file", f.name).Msg("file of a stream cannot be removed")
		}
	}
}

// removeStream removes the files of a stream that was dropped.
func (s *Store) removeStream(dir string) {
	parts, _ := s.files.fs.List(dir) // nothing there is nothing to remove
	for _, part := range parts {
		names, _ := s.files.fs.List(filepath.Join(dir, part))
		for _, name := range names {
			if strings.HasSuffix(name, ".log") {
				_ = s.files.fs.Remove(filepath.Join(dir, part, name)) // tried again at the next start
			}
		}
	}
}

// closeFiles closes what is open.
func (s *Store) closeFiles() {
	for _, t := range s.all() {
		if t.st == nil {
			continue
		}
		for _, p := range t.st.partitions() {
			p.mu.RLock()
			for _, f := range p.files {
				f.close()
			}
			for _, f := range p.doomed {
				f.close()
			}
			p.mu.RUnlock()
		}
	}
}
