package local

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"millrace/persistence/journal"
)

// lostMagic begins a file that takes the place of one that was given up with
// AcceptLoss: a header and no message. Without it the next start would miss the
// other one again. Readers pass over it.
var lostMagic = []byte("MILLGONE")

// giveUpFiles gives up the files of a partition that are damaged or missing,
// and leaves what can be read.
func (p *partition) giveUpFiles(damaged map[*streamFile]error) error {
	if p.copied <= p.first {
		return nil
	}
	missing := func(base uint64) *streamFile {
		f := &streamFile{files: &p.st.s.files, target: p.st.id, partition: p.number, base: base}
		f.name = filepath.Join(p.st.s.files.dirOf(p.st.id, p.number), fileName(base))
		damaged[f] = f.damage(0, "the file is missing")
		return f
	}
	if len(p.files) == 0 || p.files[0].prev > p.first && damaged[p.files[0]] == nil {
		p.files = append([]*streamFile{missing(min(p.first, p.newest))}, p.files...)
	}
	if last := p.files[len(p.files)-1]; last.base != p.newest {
		p.files = append(p.files, missing(p.newest))
	}
	for i, f := range p.files {
		what := stretch{end: p.copied, size: p.newestSize}
		if i+1 < len(p.files) {
			n := p.files[i+1]
			what = stretch{end: n.prev, size: int64(n.prevSize)}
			if damaged[n] != nil || n.lost {
				what = stretch{end: n.base, open: true} // what it said of this one is not known
			}
		}
		err := damaged[f]
		if err == nil && !f.lost {
			err = p.mend(f, what)
		}
		if err == nil {
			continue
		}
		if _, ok := errors.AsType[*journal.DamageError](err); !ok {
			return fmt.Errorf("give up what is damaged in %s: %w", f.name, err)
		}
		if err := p.giveUp(f, err, what.end); err != nil {
			return fmt.Errorf("give up %s: %w", f.name, err)
		}
	}
	return nil
}

// giveUp puts one file aside, reports it, and writes what takes its place.
func (p *partition) giveUp(f *streamFile, damage error, after uint64) error {
	s := p.st.s
	x := journal.Loss{From: fileHeader, Kept: p.keptName(f)}
	if d, ok := errors.AsType[*journal.DamageError](damage); ok {
		x.Damage = *d
	}
	if err := p.report(x, f.base, after); err != nil {
		return err
	}
	f.close()
	if err := s.files.fs.Rename(f.name, x.Kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.files.makeDir(filepath.Dir(f.name)); err != nil {
		return err
	}
	f.gone, f.lost, f.prev, f.prevSize, f.size, f.time = false, true, f.base, 0, fileHeader, p.copiedLast
	return errors.Join(writeWhole(s.files.fs, f.name, f.header(s.journal.State().StoreID)), s.files.fs.SyncDir(s.losses.dir))
}

// keptName is where what was in a file is kept.
func (p *partition) keptName(f *streamFile) string {
	return filepath.Join(p.st.s.losses.dir, fmt.Sprintf("%016x-%04x-%s", uint64(f.target), f.partition, filepath.Base(f.name)))
}

// report notes the messages from an offset up to another one as given up.
func (p *partition) report(x journal.Loss, first, after uint64) error {
	l := &p.st.s.losses
	first = max(first, p.first)
	l.all.Missing = append(l.all.Missing, Missing{
		Kind: "stream", Name: p.st.def.Name, Partition: p.number, First: first, Messages: after - min(first, after),
	})
	return l.add(x)
}
