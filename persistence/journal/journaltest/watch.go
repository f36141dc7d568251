package journaltest

import (
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"millrace/persistence/journal"
)

// Kind is a kind of operation on a file system.
type Kind string

// The kinds of operations. Locking and looking at the free space are not watched.
const (
	Create   Kind = "create"
	Open     Kind = "open"
	Rename   Kind = "rename" // Op.Name is the new name
	Remove   Kind = "remove"
	List     Kind = "list"
	MkdirAll Kind = "mkdir"
	SyncDir  Kind = "syncdir"
	Read     Kind = "read"
	Write    Kind = "write"
	Sync     Kind = "sync"
	Truncate Kind = "truncate"
	Size     Kind = "size"
)

// Op is one operation. The name of an open file follows its renaming.
type Op struct {
	Kind Kind
	Name string
}

// Changes reports whether the operation changes the disk or makes a change
// durable, so that a power cut after it finds something new.
func (o Op) Changes() bool {
	switch o.Kind {
	case Create, Rename, Remove, SyncDir, Write, Sync, Truncate, MkdirAll:
		return true
	default:
		return false
	}
}

// Watch returns a view of a file system that calls do for each operation. do
// runs the operation by calling run, or fails it by returning an error without.
func Watch(fs journal.FS, do func(op Op, run func() error) error) journal.FS {
	return &watched{fs: fs, do: do}
}

type watched struct {
	fs    journal.FS
	do    func(Op, func() error) error
	files openFiles
}

func (w *watched) file(kind Kind, name string, open func(string) (journal.File, error)) (journal.File, error) {
	var f *watchedFile
	err := w.do(Op{kind, name}, func() error {
		inner, err := open(name)
		if err == nil {
			f = &watchedFile{f: inner, w: w}
			f.name.Store(&name)
			w.files.add(f)
		}
		return err
	})
	if err != nil {
		if f != nil {
			_ = f.Close() // opened, and failed by do afterwards
		}
		return nil, err
	}
	return f, nil
}

func (w *watched) Create(name string) (journal.File, error) {
	return w.file(Create, name, w.fs.Create)
}

func (w *watched) Open(name string) (journal.File, error) { return w.file(Open, name, w.fs.Open) }

func (w *watched) Rename(oldName, newName string) error {
	return w.do(Op{Rename, newName}, func() error {
		err := w.fs.Rename(oldName, newName)
		if err == nil {
			w.files.rename(oldName, newName)
		}
		return err
	})
}

func (w *watched) Remove(name string) error {
	return w.do(Op{Remove, name}, func() error { return w.fs.Remove(name) })
}

func (w *watched) MkdirAll(dir string) error {
	return w.do(Op{MkdirAll, dir}, func() error { return w.fs.MkdirAll(dir) })
}

func (w *watched) SyncDir(dir string) error {
	return w.do(Op{SyncDir, dir}, func() error { return w.fs.SyncDir(dir) })
}

func (w *watched) Space(dir string) (free, size int64, err error) { return w.fs.Space(dir) }

func (w *watched) Lock(name string) (io.Closer, error) { return w.fs.Lock(name) }

func (w *watched) List(dir string) (names []string, err error) {
	err = w.do(Op{List, dir}, func() (err error) {
		names, err = w.fs.List(dir)
		return err
	})
	return names, err
}

type watchedFile struct {
	f    journal.File
	w    *watched
	name atomic.Pointer[string]
}

func (f *watchedFile) op(kind Kind) Op { return Op{kind, *f.name.Load()} }

func (f *watchedFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.w.do(f.op(Read), func() (err error) {
		n, err = f.f.ReadAt(p, off)
		return err
	})
	return n, err
}

func (f *watchedFile) WriteAt(off int64, bufs ...[]byte) error {
	err := f.w.do(f.op(Write), func() error { return f.f.WriteAt(off, bufs...) })
	if short, ok := errors.AsType[*shortWriteError](err); ok {
		_ = f.f.WriteAt(off, short.part(bufs)...) // the other part is what fails
		return short.err
	}
	return err
}

func (f *watchedFile) SyncData() error { return f.w.do(f.op(Sync), f.f.SyncData) }

func (f *watchedFile) Truncate(size int64) error {
	return f.w.do(f.op(Truncate), func() error { return f.f.Truncate(size) })
}

func (f *watchedFile) Size() (n int64, err error) {
	err = f.w.do(f.op(Size), func() (err error) {
		n, err = f.f.Size()
		return err
	})
	return n, err
}

func (f *watchedFile) Close() error {
	f.w.files.remove(f)
	return f.f.Close()
}

// openFiles is the set of open files, whose names follow renames.
type openFiles struct {
	mu    sync.Mutex
	files []*watchedFile
}

func (s *openFiles) add(f *watchedFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = append(s.files, f)
}

func (s *openFiles) remove(f *watchedFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = slices.DeleteFunc(s.files, func(x *watchedFile) bool { return x == f })
}

func (s *openFiles) rename(oldName, newName string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		if *f.name.Load() == oldName {
			f.name.Store(&newName)
		}
	}
}
