package journaltest

import (
	"cmp"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"

	"millrace/persistence/journal"
)

const sectorSize = 512

// SectorFS is a crashable file system that loses single sectors, in any order,
// and directory operations from the end, as a journaling file system does.
// Directories need not exist.
type SectorFS struct {
	mu      sync.Mutex
	names   map[string]*node // as programs see it
	durable map[string]*node // as the disk has it
	pending []dirOp          // not yet in durable
	locked  map[string]bool
}

// dirOp is one change of a directory: a name that goes, a name that comes.
type dirOp struct {
	dir    string
	remove string
	add    string
	node   *node
}

func (o dirOp) apply(m map[string]*node) {
	if o.remove != "" {
		delete(m, o.remove)
	}
	if o.add != "" {
		m[o.add] = o.node
	}
}

// node is a file. lost holds the durable contents of the sectors written since
// the last sync.
type node struct {
	data []byte
	lost map[int][]byte
	size int // durable
}

// NewSectorFS returns an empty file system.
func NewSectorFS() *SectorFS {
	return &SectorFS{names: map[string]*node{}, durable: map[string]*node{}, locked: map[string]bool{}}
}

// Crash implements Crashable; blocks have 512 bytes.
func (s *SectorFS) Crash(keep int, rng *rand.Rand) Crashable {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := maps.Clone(s.durable)
	for _, op := range s.pending {
		if rng.IntN(100) >= keep {
			break
		}
		op.apply(names)
	}
	after := NewSectorFS()
	copies := map[*node]*node{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n := names[name]
		if copies[n] == nil {
			copies[n] = n.crash(keep, rng)
		}
		after.names[name], after.durable[name] = copies[n], copies[n]
	}
	return after
}

func (n *node) crash(keep int, rng *rand.Rand) *node {
	data := slices.Clone(n.data)
	if len(data) > n.size && rng.IntN(100) >= keep {
		data = data[:n.size]
	}
	for _, i := range slices.Sorted(maps.Keys(n.lost)) {
		if rng.IntN(100) < keep || i*sectorSize >= len(data) {
			continue
		}
		sector := data[i*sectorSize : min((i+1)*sectorSize, len(data))]
		clear(sector[copy(sector, n.lost[i]):])
	}
	return &node{data: data, lost: map[int][]byte{}, size: len(data)}
}

// Kill returns the file system as a process finds it that starts after another
// was killed: all that was written is there, and no more durable than before.
func (s *SectorFS) Kill() *SectorFS {
	s.mu.Lock()
	defer s.mu.Unlock()
	copies := map[*node]*node{nil: nil}
	twin := func(n *node) *node {
		if _, ok := copies[n]; !ok {
			copies[n] = &node{data: slices.Clone(n.data), lost: maps.Clone(n.lost), size: n.size}
		}
		return copies[n]
	}
	after := NewSectorFS()
	for name, n := range s.names {
		after.names[name] = twin(n)
	}
	for name, n := range s.durable {
		after.durable[name] = twin(n)
	}
	for _, op := range s.pending {
		op.node = twin(op.node)
		after.pending = append(after.pending, op)
	}
	return after
}

// Clone returns an independent copy, as if everything had been synced.
func (s *SectorFS) Clone() *SectorFS {
	after := s.Kill()
	after.durable, after.pending = maps.Clone(after.names), nil
	for _, n := range after.names {
		clear(n.lost)
		n.size = len(n.data)
	}
	return after
}

// Data returns the contents of a file, to be looked at or, while nothing else
// uses it, to be damaged.
func (s *SectorFS) Data(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.names[name]; n != nil {
		return n.data
	}
	return nil
}

// SetData replaces a file's contents, durably.
func (s *SectorFS) SetData(name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &node{data: data, lost: map[int][]byte{}, size: len(data)}
	s.names[name], s.durable[name] = n, n
}

func (s *SectorFS) change(op dirOp) {
	op.dir = filepath.Dir(cmp.Or(op.add, op.remove))
	op.apply(s.names)
	s.pending = append(s.pending, op)
}

// Create implements journal.FS.
func (s *SectorFS) Create(name string) (journal.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &node{lost: map[int][]byte{}}
	s.change(dirOp{add: name, node: n})
	return &sectorFile{s, n}, nil
}

// Open implements journal.FS.
func (s *SectorFS) Open(name string) (journal.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.names[name]
	if n == nil {
		return nil, missing("open", name)
	}
	return &sectorFile{s, n}, nil
}

func missing(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// Rename implements journal.FS.
func (s *SectorFS) Rename(oldName, newName string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.names[oldName]
	if n == nil {
		return missing("rename", oldName)
	}
	s.change(dirOp{remove: oldName, add: newName, node: n})
	return nil
}

// Remove implements journal.FS.
func (s *SectorFS) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name] == nil {
		return missing("remove", name)
	}
	s.change(dirOp{remove: name})
	return nil
}

// MkdirAll implements journal.FS.
func (s *SectorFS) MkdirAll(string) error { return nil }

// List implements journal.FS.
func (s *SectorFS) List(dir string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.names {
		if filepath.Dir(name) == filepath.Clean(dir) {
			names = append(names, filepath.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir implements journal.FS.
func (s *SectorFS) SyncDir(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = slices.DeleteFunc(s.pending, func(op dirOp) bool {
		if op.dir == filepath.Clean(dir) {
			op.apply(s.durable)
			return true
		}
		return false
	})
	return nil
}

// Space implements journal.FS; there is no end to it.
func (s *SectorFS) Space(string) (free, size int64, err error) { return 1 << 50, 1 << 50, nil }

// Lock implements journal.FS.
func (s *SectorFS) Lock(name string) (io.Closer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked[name] {
		return nil, &journal.LockedError{Name: name}
	}
	s.locked[name] = true
	return &sectorLock{s, name}, nil
}

type sectorLock struct {
	s    *SectorFS
	name string
}

func (l *sectorLock) Close() error {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	delete(l.s.locked, l.name)
	return nil
}

type sectorFile struct {
	s *SectorFS
	n *node
}

func (f *sectorFile) ReadAt(p []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *sectorFile) WriteAt(off int64, bufs ...[]byte) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	for _, b := range bufs {
		f.n.write(int(off), b)
		off += int64(len(b))
	}
	return nil
}

func (n *node) write(off int, b []byte) {
	for i := off / sectorSize; i*sectorSize < off+len(b); i++ {
		if _, ok := n.lost[i]; !ok {
			from := min(i*sectorSize, len(n.data), n.size)
			n.lost[i] = slices.Clone(n.data[from:min((i+1)*sectorSize, len(n.data), n.size)])
		}
	}
	if grow := off + len(b) - len(n.data); grow > 0 {
		n.data = append(n.data, make([]byte, grow)...)
	}
	copy(n.data[off:], b)
}

func (f *sectorFile) SyncData() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	clear(f.n.lost)
	f.n.size = len(f.n.data)
	return nil
}

func (f *sectorFile) Truncate(size int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if int(size) < len(f.n.data) {
		f.n.data = f.n.data[:size]
		return nil
	}
	f.n.data = append(f.n.data, make([]byte, int(size)-len(f.n.data))...)
	return nil
}

func (f *sectorFile) Size() (int64, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *sectorFile) Close() error { return nil }
