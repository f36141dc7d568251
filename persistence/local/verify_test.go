package local_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// untouched returns a file system on which every change fails the test.
func untouched(tb testing.TB, fs journal.FS) journal.FS {
	tb.Helper()
	return journaltest.Watch(fs, func(op journaltest.Op, run func() error) error {
		if op.Changes() {
			tb.Errorf("%s of %s", op.Kind, op.Name)
		}
		return run()
	})
}

func TestVerifyCallsAWholeDirectorySoundAndChangesNothing(t *testing.T) {
	d := newDamaged(t)
	v, err := local.Verify(context.Background(), untouched(t, d.disk), "data")
	if err != nil {
		t.Fatal(err)
	}
	if !v.Sound || len(v.Damage)+len(v.Missing) != 0 || v.Messages != int64(d.count) || v.StreamMessages != uint64(d.count) || v.Queues != 3 || v.Streams != 1 || v.StreamFiles == 0 || v.Watermark != v.LogEnd {
		t.Errorf("found %+v", v)
	}
}

// Whatever is wrong for a start or a reader is wrong for Verify, and is named.
func TestVerifyNamesAllThatIsDamaged(t *testing.T) {
	d := newDamaged(t)
	for _, name := range d.files(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			data := d.disk.Data(name)
			for i := 0; i < len(data); i += step(307) {
				disk := d.disk.Clone()
				disk.Data(name)[i] ^= 1 << (i % 8)
				v, err := local.Verify(context.Background(), untouched(t, disk.Clone()), "data")
				if err != nil {
					if named(err) != nil {
						t.Fatalf("byte %d: %v", i, err)
					}
					continue
				}
				s, err := local.Open(damageOptions(disk))
				ok := err == nil
				if ok {
					s.Bind(noEvents{})
					ok = contentsOf(s) == d.want
					_ = s.Close(context.Background())
				}
				if v.Sound && !ok { // the other way round it is damage that nobody meets
					t.Fatalf("byte %d: a start says %v, and verify found %+v", i, err, v)
				}
				for _, x := range v.Damage {
					if !v.Sound && x.File != name && !strings.HasPrefix(name, x.File) {
						t.Fatalf("byte %d: named %+v", i, x)
					}
				}
			}
		})
	}
}

func TestVerifyNamesEveryPlace(t *testing.T) {
	d := newDamaged(t)
	hit := 0
	for _, name := range d.files(t) {
		if data := d.disk.Data(name); strings.HasSuffix(name, ".seg") && data[5000] != 0 {
			data[5000] ^= 1
			hit++
		}
	}
	v, err := local.Verify(context.Background(), d.disk, "data")
	if err != nil {
		t.Fatal(err)
	}
	if hit < 2 || len(v.Damage) != hit || v.Sound {
		t.Errorf("%d places are damaged, named %+v", hit, v.Damage)
	}
}

func TestVerifyOfADirectoryInUseOrOfAnotherKind(t *testing.T) {
	dir := t.TempDir()
	if _, err := local.Verify(context.Background(), journal.OS(), dir); err == nil {
		t.Error("an empty directory is called sound")
	}
	s := open(t, local.Options{Dir: dir})
	_, err := local.Verify(context.Background(), journal.OS(), dir)
	if locked, ok := errors.AsType[*journal.LockedError](err); !ok || locked.PID != os.Getpid() {
		t.Errorf("verify of a directory in use answers %v", err)
	}
	queueOn(t, s, broker.Def{Name: "q"})
	shut(t, s)
	before := tree(t, dir)
	v, err := local.Verify(context.Background(), journal.OS(), dir)
	if err != nil || !v.Sound || v.Queues != 1 {
		t.Errorf("found %+v, %v", v, err)
	}
	if after := tree(t, dir); !slices.Equal(before, after) {
		t.Errorf("verify changed\n%v\nto\n%v", before, after)
	}
	shut(t, open(t, local.Options{Dir: dir}))
}

// tree lists the files of a directory with size and time.
func tree(tb testing.TB, dir string) []string {
	tb.Helper()
	var list []string
	err := filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		list = append(list, name+" "+info.ModTime().String()+" "+info.Mode().String())
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return list
}
