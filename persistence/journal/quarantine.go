package journal

import (
	"errors"
	"path/filepath"
)

// Loss is something that was durable once and that AcceptLoss gives up.
type Loss struct {
	Damage   DamageError // what was found
	Segment  uint32      // whose records they were; 0 = none are lost
	From, To int64       // the bytes of the segment that are lost; To 0 = to an unknown end
	Kept     string      // file with what was there instead; "" = there was nothing
}

// lost tells the owner of a loss before anything is changed because of it.
func (j *Journal) lost(damage error, l Loss) error {
	if d, ok := errors.AsType[*DamageError](damage); ok {
		l.Damage = *d
	}
	if l.Segment == 0 {
		l.Segment, _ = segmentNumber(filepath.Base(l.Damage.File))
	}
	j.o.Log.Error().Err(damage).Int64("from", l.From).Int64("to", l.To).Str("kept", l.Kept).Msg("damage given up")
	if j.o.Lost == nil {
		return nil
	}
	return j.o.Lost(l)
}

// putAside moves a file that nobody understands into the quarantine.
func (j *Journal) putAside(path, kept string) error {
	if err := makeDir(j.o.FS, j.o.Quarantine); err != nil {
		return err
	}
	if err := j.o.FS.Rename(path, kept); err != nil {
		return err
	}
	return errors.Join(j.o.FS.SyncDir(j.o.Quarantine), j.o.FS.SyncDir(filepath.Dir(path)))
}

// keep writes bytes into the quarantine that are about to be given up in place.
func (j *Journal) keep(name string, b []byte) error {
	if err := makeDir(j.o.FS, j.o.Quarantine); err != nil {
		return err
	}
	f, err := j.o.FS.Create(name)
	if err != nil {
		return err
	}
	if err = f.WriteAt(0, b); err == nil {
		err = f.SyncData()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return j.o.FS.SyncDir(j.o.Quarantine)
}
