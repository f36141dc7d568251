package local

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"time"

	"millrace/broker"
	"millrace/persistence/journal"
)

// quarantineName is the directory of what was given up with AcceptLoss. Each
// start that gives something up makes a folder in it, named after its time, with
// a report and whatever was there in place of what should have been. Nothing in
// it is ever read or removed by Millrace.
const (
	quarantineName = "quarantine"
	reportName     = "report.json"
)

// Losses is what one start gave up, as its report says it.
type Losses struct {
	Time    time.Time `json:"time"`
	Report  string    `json:"-"` // the file
	Damage  []Damage  `json:"damage"`
	Missing []Missing `json:"missing"`
	Note    string    `json:"note"`
}

// Damage is one place where something is not what was once durable there.
type Damage struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Reason string `json:"reason"`
	From   int64  `json:"from"`           // the range of the file that is lost
	To     int64  `json:"to"`             // 0: its end is not known
	Kept   string `json:"kept,omitempty"` // file with what was there instead
}

// Missing are messages of which the place is known, and nothing more.
type Missing struct {
	Kind      string `json:"kind"` // queue, stream or session
	Name      string `json:"name"`
	Partition uint32 `json:"partition"`
	First     uint64 `json:"first"` // sequence, or offset
	Messages  uint64 `json:"messages"`
}

const lossNote = "Messages, acknowledgements, keys and definitions in the ranges above are gone. " +
	"Missing lists the messages that later ones prove: those at the end of the log are not among them, " +
	"and some listed may have been acknowledged before. An acknowledgement that is gone makes its message come again."

// losses collects Losses while the store is opened.
type losses struct {
	fs   journal.FS
	dir  string // of this start
	all  Losses
	seen bool // something is missing in what was replayed so far
}

// begin names the folder that a loss of this start would use.
func (l *losses) begin(o *Options) {
	now := time.Now().UTC()
	l.fs, l.dir = o.FS, filepath.Join(o.Dir, quarantineName, now.Format("20060102T150405.000Z"))
	l.all = Losses{Time: now, Report: filepath.Join(l.dir, reportName), Note: lossNote, Damage: []Damage{}, Missing: []Missing{}}
}

// add notes a loss in the journal, and has the report say it before anything is
// changed: a process that dies half-way leaves it behind.
func (l *losses) add(x journal.Loss) error {
	l.seen = l.seen || x.Segment != 0
	d := x.Damage
	l.all.Damage = append(l.all.Damage, Damage{File: d.File, Offset: d.Offset, Reason: d.Reason, From: x.From, To: x.To, Kept: x.Kept})
	return l.write()
}

// gap notes messages that are missing before a later one of their queue or partition.
func (l *losses) gap(t broker.Def, partition uint32, first, next uint64) {
	if !l.seen || first >= next || next-first >= seqGap {
		return // as many as that were skipped by a start whose record is lost
	}
	l.all.Missing = append(l.all.Missing, Missing{Kind: kindName(t.Kind), Name: t.Name, Partition: partition, First: first, Messages: next - first})
}

// kindName is what a report calls a target.
func kindName(k broker.TargetKind) string {
	switch k {
	case broker.StreamTarget:
		return "stream"
	case broker.SessionTarget:
		return "session"
	case broker.SubscriptionTarget:
		return "subscription"
	default:
		return "queue"
	}
}

// end writes the whole report, and says in the log where it is.
func (l *losses) end(s *Store) error {
	if len(l.all.Damage) == 0 {
		return nil
	}
	var messages uint64
	for i := range l.all.Missing {
		messages += l.all.Missing[i].Messages
	}
	s.log.Error().Int("places", len(l.all.Damage)).Uint64("messages", messages).Str("report", l.all.Report).Msg("damage was given up")
	return l.write()
}

// write replaces the report.
func (l *losses) write() error {
	text, err := json.MarshalIndent(l.all, "", "  ")
	if err != nil {
		return err
	}
	if err := makeAll(l.fs, l.dir); err != nil {
		return err
	}
	return writeWhole(l.fs, l.all.Report, append(text, '\n'))
}

// makeAll makes a folder of the data directory, and those above it, durably.
func makeAll(fsys journal.FS, dir string) error {
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	up := filepath.Dir(dir)
	return errors.Join(fsys.SyncDir(up), fsys.SyncDir(filepath.Dir(up)))
}

// writeWhole writes a small file, which appears whole and durable under its
// name or not at all.
func writeWhole(fsys journal.FS, name string, text []byte) error {
	f, err := fsys.Create(name + ".new")
	if err != nil {
		return err
	}
	if err = f.WriteAt(0, text); err == nil {
		err = f.SyncData()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(name+".new", name)
	}
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(name))
	}
	return err
}

// Losses tells what this start gave up; no damage means nothing.
func (s *Store) Losses() Losses { return s.losses.all }
