package journal_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
)

const logDir = "/data/log"

// smallLog is a log of a few groups in two small segments, as it is on disk.
type smallLog struct {
	disk   *journaltest.SectorFS
	groups [][]record
	sure   int // groups that a synced record or a later segment proves durable
}

func damageOptions(fs journal.FS) journal.Options {
	return journal.Options{
		FS: fs, Dir: logDir, SegmentSize: 8 << 10, FirstSegmentSize: 8 << 10,
		WindowSize: 4 << 10, CacheSize: 8 << 10,
	}
}

// newSmallLog writes the log; without an orderly end its last group is not
// proven by anything behind it.
func newSmallLog(tb testing.TB, orderly bool) smallLog {
	tb.Helper()
	l := smallLog{disk: journaltest.NewSectorFS()}
	j, err := journal.Open(damageOptions(l.disk), nil)
	if err != nil {
		tb.Fatal(err)
	}
	var durable journal.Position
	for i := range 9 {
		durable = j.State().Durable // what this group's synced record will say
		l.groups = append(l.groups, mustAppend(tb, j, fmt.Sprint("group ", i), strings.Repeat("z", 700+i*80)))
	}
	if orderly {
		mustClose(tb, j)
		durable = j.State().Durable
	} else {
		crashed := l.disk.Crash(0, rand.New(rand.NewPCG(0, 0))).(*journaltest.SectorFS)
		mustClose(tb, j)
		l.disk = crashed
	}
	for _, g := range l.groups {
		if last := g[len(g)-1]; last.pos+journal.Position(last.size) <= durable {
			l.sure++
		}
	}
	return l
}

func (l smallLog) files(tb testing.TB) []string {
	tb.Helper()
	names, err := l.disk.List(logDir)
	if err != nil {
		tb.Fatal(err)
	}
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".seg") && n != "watermark" })
}

// check opens a damaged copy. The right data or an error is fine, and so is the
// loss of what nothing proves; anything else is not.
func (l smallLog) check(disk *journaltest.SectorFS) (intact bool, err error) {
	var got [][]record
	j, err := journal.Open(damageOptions(disk), collect(&got))
	if err != nil {
		var damage *journal.DamageError
		var version *journal.VersionError
		if !errors.As(err, &damage) && !errors.As(err, &version) {
			return false, fmt.Errorf("neither damage nor version: %w", err)
		}
		return false, nil
	}
	defer func() { _ = j.Close(context.Background()) }()
	if len(got) < l.sure || len(got) > len(l.groups) {
		return false, fmt.Errorf("%d groups, at least %d of %d were sure", len(got), l.sure, len(l.groups))
	}
	for i, g := range got {
		if fmt.Sprint(g) != fmt.Sprint(l.groups[i]) {
			return false, fmt.Errorf("group %d is wrong: %.100v", i, g)
		}
	}
	return len(got) == len(l.groups), nil
}

// interesting skips most of the bytes far from anything written.
func interesting(data []byte, i int) bool {
	from, to := max(0, i-64), min(len(data), i+64)
	for _, b := range data[from:to] {
		if b != 0 {
			return true
		}
	}
	return i%97 == 0
}

func TestAFlippedBitIsNeverSilentLoss(t *testing.T) {
	for _, orderly := range []bool{true, false} {
		t.Run(fmt.Sprintf("orderly=%v", orderly), func(t *testing.T) {
			t.Parallel()
			l := newSmallLog(t, orderly)
			if orderly && l.sure != len(l.groups) || !orderly && l.sure != len(l.groups)-1 {
				t.Fatalf("%d of %d groups are sure", l.sure, len(l.groups))
			}
			step := 1
			if testing.Short() {
				step = 13
			}
			for _, name := range l.files(t) {
				data := l.disk.Data(logDir + "/" + name)
				for i := 0; i < len(data); i += step {
					if !interesting(data, i) {
						continue
					}
					disk := l.disk.Clone()
					disk.Data(logDir + "/" + name)[i] ^= 1 << (i % 8)
					if _, err := l.check(disk); err != nil {
						t.Fatalf("%s byte %d: %v", name, i, err)
					}
				}
			}
		})
	}
}

func TestATruncatedFileIsNeverSilentLoss(t *testing.T) {
	l := newSmallLog(t, true)
	for _, name := range l.files(t) {
		data := l.disk.Data(logDir + "/" + name)
		for n := 0; n < len(data); n += 7 {
			disk := l.disk.Clone()
			disk.SetData(logDir+"/"+name, slices.Clone(data[:n]))
			if _, err := l.check(disk); err != nil {
				t.Fatalf("%s cut to %d bytes: %v", name, n, err)
			}
		}
	}
}

func TestAMissingSegmentIsDamage(t *testing.T) {
	l := newSmallLog(t, true)
	last := l.groups[len(l.groups)-1][0].pos.Segment()
	if last < 3 {
		t.Fatalf("only %d segments", last)
	}
	for n := uint32(1); n <= last; n++ {
		name := fmt.Sprintf("%08x.seg", n)
		disk := l.disk.Clone()
		if err := disk.Remove(logDir + "/" + name); err != nil {
			t.Fatal(err)
		}
		var damage *journal.DamageError
		if _, err := journal.Open(damageOptions(disk), nil); !errors.As(err, &damage) {
			t.Errorf("without %s: got %v, want a DamageError", name, err)
		}
	}
}

func TestALostActivationIsDamageAndCanBeRestored(t *testing.T) {
	l := newSmallLog(t, true)
	for n := uint32(1); n <= l.groups[len(l.groups)-1][0].pos.Segment(); n++ {
		disk := l.disk.Clone()
		clear(disk.Data(fmt.Sprintf("%s/%08x.seg", logDir, n))[512:1024])
		o := damageOptions(disk)
		var damage *journal.DamageError
		for range 2 { // the refusal changes nothing
			if _, err := journal.Open(o, nil); !errors.As(err, &damage) || damage.Offset != 512 {
				t.Fatalf("segment %d: got %v, want a DamageError", n, err)
			}
		}
		o.AcceptLoss = true
		for range 2 {
			j, log := open(t, o)
			checkLog(t, log, l.groups)
			mustClose(t, j)
			o.AcceptLoss = false
		}
	}
}

func TestATailThatWentMissingIsFoundByAPositionKnownElsewhere(t *testing.T) {
	l := newSmallLog(t, true)
	last := l.groups[len(l.groups)-1][0]
	name := fmt.Sprintf("%s/%08x.seg", logDir, last.pos.Segment())
	if err := l.disk.Remove(name); err != nil {
		t.Fatal(err)
	}
	o := damageOptions(l.disk)
	o.From = last.pos
	var damage *journal.DamageError
	if _, err := journal.Open(o, nil); !errors.As(err, &damage) {
		t.Fatalf("got %v, want a DamageError", err)
	}
}

func TestAcceptLossGivesUpWhatIsDamagedAndNothingElse(t *testing.T) {
	l := newSmallLog(t, true)
	hit := l.groups[2][1]
	name := fmt.Sprintf("%s/%08x.seg", logDir, hit.pos.Segment())
	l.disk.Data(name)[hit.pos.Offset()+50] ^= 4
	var damage *journal.DamageError
	_, err := journal.Open(damageOptions(l.disk), nil)
	if !errors.As(err, &damage) || damage.File != name || damage.Offset != int64(hit.pos.Offset()) {
		t.Fatalf("got %v, want damage of %s at %d", err, name, hit.pos.Offset())
	}
	o := damageOptions(l.disk)
	o.AcceptLoss = true
	j, log := open(t, o)
	checkLog(t, log, slices.Delete(slices.Clone(l.groups), 2, 3))
	if _, _, err := j.Read(hit.pos, hit.size); !errors.As(err, &damage) {
		t.Fatalf("read of the lost record: %v", err)
	}
	near := []journal.Spot{{Pos: l.groups[1][1].pos, Size: l.groups[1][1].size}, {Pos: hit.pos, Size: hit.size}}
	n := 0
	err = j.ReadEach(near, nil, func(int, byte, []byte) error { n++; return nil })
	if n != 1 || !errors.As(err, &damage) {
		t.Fatalf("read of the lost record and its neighbour: %d are good, %v", n, err)
	}
	more := mustAppend(t, j, "goes on")
	mustClose(t, j)
	o.AcceptLoss = false // the loss was accepted once and for all
	j, again := open(t, o)
	checkLog(t, again, append(log, more))
	mustClose(t, j)
}

func TestAcceptLossOpensWhateverIsDamaged(t *testing.T) {
	l := newSmallLog(t, true)
	rng := rand.New(rand.NewPCG(3, 3))
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	for range rounds {
		disk := l.disk.Clone()
		names := l.files(t)
		name := logDir + "/" + names[rng.IntN(len(names))]
		data := disk.Data(name)
		what := rng.IntN(3)
		at := rng.IntN(len(data))
		switch what {
		case 0:
			data[at] ^= byte(1 + rng.IntN(255))
		case 1:
			disk.SetData(name, slices.Clone(data[:at]))
		case 2:
			clear(data[at:min(len(data), at+600)])
		}
		o := damageOptions(disk)
		o.AcceptLoss = true
		for i := range 2 {
			j, err := journal.Open(o, nil)
			if err != nil {
				t.Fatalf("%s damaged at %d in way %d, open %d: %v", name, at, what, i, err)
			}
			mustAppend(t, j, "goes on")
			mustClose(t, j)
			o.AcceptLoss = false
		}
	}
}

// A power cut may keep the records of a segment and lose the page that made it
// active. They were never durable, and the next use of the file must not bring
// them back behind its own.
func TestRecordsOfAnEarlierUseOfAFileNeverComeBack(t *testing.T) {
	disk := journaltest.NewSectorFS()
	o := damageOptions(disk)
	o.SegmentSize, o.FirstSegmentSize = 32<<10, 32<<10
	j, _ := open(t, o)
	const page = 4096 - journal.RecordHeader // a body that fills a page, so that nothing of the next is rewritten
	for range 3 {
		c := make(done, 1)
		if _, err := appendGroup(j, journal.Lazy, c, strings.Repeat("o", page)); err != nil {
			t.Fatal(err)
		}
		<-c // written, never synced
	}
	crashed := disk.Kill()
	names, _ := crashed.List(logDir)
	for _, n := range names {
		if data := crashed.Data(logDir + "/" + n); strings.HasSuffix(n, ".seg") {
			clear(data[512:1024]) // the activation
		}
	}
	o.FS = crashed
	k, log := open(t, o)
	checkLog(t, log, nil)
	want := [][]record{mustAppend(t, k, strings.Repeat("n", page))}
	o.FS = crashed.Kill()
	_, log = open(t, o)
	checkLog(t, log, want)
}

// A power cut may keep the old name of a freed segment beside the new one. When
// the segment is freed again it takes that name: who had begun to prepare the
// file of that name would give the wrong file the next one, and write records
// where nobody finds them.
func TestAFreeFileIsNotUsedWhileItsSegmentIsThere(t *testing.T) {
	disk := newSmallLog(t, true).disk
	free := logDir + "/00000001.free"
	f, err := disk.Create(free)
	if err == nil {
		err = errors.Join(f.WriteAt(0, disk.Data(logDir+"/00000001.seg")), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	o := damageOptions(journaltest.Watch(disk, func(op journaltest.Op, run func() error) error {
		if op.Name == free && op.Kind == journaltest.Write {
			t.Errorf("%s is prepared for use", op.Name)
		}
		return run()
	}))
	j, _ := open(t, o)
	mustAppend(t, j, "goes on")
	mustClose(t, j)
}

func FuzzRecovery(f *testing.F) {
	l := newSmallLog(f, true)
	f.Add(uint16(0), uint16(4096), []byte{1, 2, 3})
	f.Add(uint16(1), uint16(4100), binary.LittleEndian.AppendUint32(nil, 18))
	f.Add(uint16(0), uint16(512), make([]byte, 32))
	f.Fuzz(func(t *testing.T, file, at uint16, with []byte) {
		names := l.files(t)
		name := logDir + "/" + names[int(file)%len(names)]
		disk := l.disk.Clone()
		data := disk.Data(name)
		copy(data[int(at)%len(data):], with)
		if _, err := l.check(disk); err != nil {
			t.Fatal(err)
		}
		o := damageOptions(disk)
		o.AcceptLoss = true
		j, err := journal.Open(o, nil)
		var version *journal.VersionError
		if err != nil && !errors.As(err, &version) {
			t.Fatalf("with AcceptLoss: %v", err)
		}
		if err == nil {
			mustClose(t, j)
		}
	})
}
