package journal

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
)

// View is a file system whose changes stay in memory, over one that is only
// read. With it a directory can be opened and recovered, to see whether that
// works, while nothing on disk changes. Its Lock is shared with other views, and
// excludes those that write.
func View(fsys FS) FS {
	if fsys == OS() {
		fsys = osFS{readOnly: true}
	}
	return &view{under: fsys, names: map[string]*viewNode{}}
}

// view holds what was changed: a name that maps to nil was removed.
type view struct {
	under FS
	mu    sync.Mutex
	names map[string]*viewNode
	files []File // of under, that were opened
}

// viewNode is a file that was opened: the pages that were written, over those
// of the file below.
type viewNode struct {
	mu    sync.Mutex
	below File // nil if the file was created here
	kept  int64
	size  int64
	pages map[int64][]byte
}

func (v *view) Create(name string) (File, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := &viewNode{pages: map[int64][]byte{}}
	v.names[name] = n
	return n, nil
}

func (v *view) Open(name string) (File, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.open(name)
}

// open is Open; mu is held.
func (v *view) open(name string) (*viewNode, error) {
	if n, ok := v.names[name]; ok {
		if n == nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return n, nil
	}
	f, err := v.under.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	v.files = append(v.files, f)
	n := &viewNode{below: f, kept: size, size: size, pages: map[int64][]byte{}}
	v.names[name] = n
	return n, nil
}

func (v *view) Rename(oldName, newName string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.open(oldName)
	if err == nil {
		v.names[oldName], v.names[newName] = nil, n
	}
	return err
}

func (v *view) Remove(name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, err := v.open(name)
	if err == nil {
		v.names[name] = nil
	}
	return err
}

func (v *view) List(dir string) ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	list, err := v.under.List(dir)
	names := map[string]bool{}
	for _, n := range list {
		names[n] = true
	}
	for name, n := range v.names {
		if filepath.Dir(name) == filepath.Clean(dir) {
			names[filepath.Base(name)] = n != nil
		}
	}
	maps.DeleteFunc(names, func(_ string, there bool) bool { return !there })
	if err != nil && len(names) == 0 {
		return nil, err
	}
	return slices.Sorted(maps.Keys(names)), nil
}

func (v *view) Space(dir string) (free, size int64, err error) { return v.under.Space(dir) }

func (v *view) MkdirAll(string) error { return nil }
func (v *view) SyncDir(string) error  { return nil }

func (v *view) Lock(name string) (io.Closer, error) {
	l, err := v.under.Lock(name)
	if err != nil {
		return nil, err
	}
	return &viewLock{v, l}, nil
}

// viewLock ends the view: what it opened is closed with it.
type viewLock struct {
	v    *view
	lock io.Closer
}

func (l *viewLock) Close() error {
	l.v.mu.Lock()
	defer l.v.mu.Unlock()
	for _, f := range l.v.files {
		_ = f.Close() // it was only read
	}
	clear(l.v.names)
	l.v.files = nil
	return l.lock.Close()
}

func (n *viewNode) ReadAt(p []byte, off int64) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	done := 0
	for done < len(p) && off+int64(done) < n.size {
		at := off + int64(done)
		m := int(min(pageSize-at%pageSize, n.size-at, int64(len(p)-done)))
		part := p[done : done+m]
		if page, ok := n.pages[at/pageSize]; ok {
			copy(part, page[at%pageSize:])
		} else if err := n.readBelow(part, at); err != nil {
			return done, err
		}
		done += m
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// readBelow reads what was not written here.
func (n *viewNode) readBelow(p []byte, at int64) error {
	clear(p)
	if at >= n.kept {
		return nil
	}
	_, err := n.below.ReadAt(p[:min(int64(len(p)), n.kept-at)], at)
	return err
}

func (n *viewNode) WriteAt(off int64, bufs ...[]byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, b := range bufs {
		for len(b) > 0 {
			page := n.pages[off/pageSize]
			if page == nil {
				page = make([]byte, pageSize)
				if err := n.readBelow(page, off&^(pageSize-1)); err != nil {
					return err
				}
				n.pages[off/pageSize] = page
			}
			m := copy(page[off%pageSize:], b)
			b, off = b[m:], off+int64(m)
		}
		n.size = max(n.size, off)
	}
	return nil
}

func (n *viewNode) Truncate(size int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for at, page := range n.pages {
		if at*pageSize >= size {
			delete(n.pages, at)
		} else if end := size - at*pageSize; end < pageSize {
			clear(page[end:])
		}
	}
	n.kept, n.size = min(n.kept, size), size
	return nil
}

func (n *viewNode) Size() (int64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.size, nil
}

func (n *viewNode) SyncData() error { return nil }
func (n *viewNode) Close() error    { return nil } // another may have it open: the lock's Close does
