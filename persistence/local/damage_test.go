package local_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// damaged is a small data directory with a little of everything in it.
type damaged struct {
	disk  *journaltest.SectorFS
	older []*journaltest.SectorFS // as it was before, oldest first
	want  string                  // what it holds
	count int                     // messages in q0
}

func damageOptions(fs journal.FS) local.Options {
	return local.Options{Dir: "data", FS: fs, SegmentSize: 16 << 10, FirstSegmentSize: 8 << 10, WindowSize: 4 << 10, CacheSize: 4 << 10}
}

// newDamaged fills a data directory and closes it in order. After each phase a
// copy is taken.
func newDamaged(tb testing.TB) *damaged {
	tb.Helper()
	return fillDamaged(tb, true)
}

// fillDamaged is newDamaged; without upkeep no segment is ever freed.
func fillDamaged(tb testing.TB, upkeep bool) *damaged {
	tb.Helper()
	d := &damaged{disk: journaltest.NewSectorFS()}
	n := 0
	for range 3 {
		s := open(tb, damageOptions(d.disk))
		if upkeep {
			s.Bind(noEvents{})
		}
		w := &workload{}
		defineCrash(tb, s, w)
		for range 14 {
			c := submit(s, func(b *broker.Batch) {
				m := numbered(n, 0)
				m.Payload = bytes.Repeat([]byte{byte(n + 1)}, 400+n*7)
				b.Publish(m, broker.Route{Target: w.queues[0]}, broker.Route{Target: w.queues[1]}, broker.Route{Target: w.stream})
				b.Put(broker.SpaceCursors, fmt.Sprint("k", n%5), fmt.Appendf(nil, "value %d", n), 0)
			})
			if err := outcome(c); err != nil {
				tb.Fatal(err)
			}
			n++
		}
		c := submit(s, func(b *broker.Batch) { b.Purge(w.queues[1], false) })
		if err := outcome(c); err != nil {
			tb.Fatal(err)
		}
		if _, err := s.CopyStreams(); err != nil {
			tb.Fatal(err)
		}
		if d.want = contentsOf(s); strings.Contains(d.want, "error") {
			tb.Fatal(d.want)
		}
		shut(tb, s)
		d.older = append(d.older, d.disk.Clone())
	}
	d.older, d.count = d.older[:len(d.older)-1], n
	return d
}

// contentsOf is a text of all that a store holds; an error stands in it where
// something cannot be read.
func contentsOf(s *local.Store) string {
	ctx := context.Background()
	var b strings.Builder
	ds, err := s.Definitions(ctx)
	if err != nil {
		return "error: " + err.Error()
	}
	slices.SortFunc(ds, func(a, b broker.Definition) int { return strings.Compare(a.Def.Name, b.Def.Name) })
	for _, d := range ds {
		list, err := s.Read(ctx, d.Target, broker.Pos{States: broker.Ready | broker.Leased | broker.Delayed}, 1<<20, nil)
		for err == nil && d.Def.Kind == broker.StreamTarget && len(list) > 0 { // one error hides behind what was read
			n := len(list)
			if list, err = s.Read(ctx, d.Target, broker.Pos{Seq: list[n-1].Seq + 1}, 1<<20, list); len(list) == n {
				break
			}
		}
		fmt.Fprintf(&b, "%s:", d.Def.Name)
		for i := range list {
			fmt.Fprintf(&b, " %s/%08x", list[i].Topic, crc32.ChecksumIEEE(list[i].Payload))
		}
		if err != nil {
			fmt.Fprintf(&b, " error: %v", err)
		}
		b.WriteByte('\n')
	}
	err = s.List(ctx, broker.SpaceCursors, "", func(e broker.Entry) bool {
		fmt.Fprintf(&b, "%s=%s\n", e.Key, e.Value)
		return true
	})
	if err != nil {
		fmt.Fprintf(&b, "error: %v", err)
	}
	return b.String()
}

// check opens a damaged copy: everything is there, or what is not is named.
func (d *damaged) check(disk *journaltest.SectorFS) error {
	s, err := local.Open(damageOptions(disk))
	if err != nil {
		return named(err)
	}
	s.Bind(noEvents{})
	defer func() { _ = s.Close(context.Background()) }()
	got := contentsOf(s)
	if got == d.want {
		return nil
	}
	if !strings.Contains(got, "is damaged at offset") {
		return fmt.Errorf("silently changed to\n%s\nfrom\n%s", got, d.want)
	}
	for line := range strings.Lines(got) { // what was read in spite of it is right
		good, _, _ := strings.Cut(strings.TrimRight(line, "\n"), " error:")
		if !strings.Contains(d.want, good) {
			return fmt.Errorf("wrong besides the damage: %s", line)
		}
	}
	return nil
}

// named returns err unless it names what is wrong.
func named(err error) error {
	if _, ok := errors.AsType[*journal.DamageError](err); ok {
		return nil
	}
	if _, ok := errors.AsType[*journal.VersionError](err); ok {
		return nil
	}
	if _, ok := errors.AsType[*local.FormatError](err); ok {
		return nil
	}
	return fmt.Errorf("neither damage nor version: %w", err)
}

func (d *damaged) files(tb testing.TB) []string {
	tb.Helper()
	var all []string
	for _, dir := range []string{"data", "data/journal", "data/stream/0000000000000004/0000"} {
		names, err := d.disk.List(dir)
		if err != nil {
			tb.Fatal(err)
		}
		for _, n := range names {
			if strings.HasSuffix(n, ".free") {
				continue // its contents mean nothing
			}
			all = append(all, filepath.Join(dir, n))
		}
	}
	if len(all) < 6 {
		tb.Fatalf("only %v", all)
	}
	return all
}

// step is how many bytes a test of damage goes on by: all of them with
// MILLRACE_FLIPS=all.
func step(short int) int {
	if os.Getenv("MILLRACE_FLIPS") == "all" {
		return 1
	}
	if testing.Short() {
		return 10 * short
	}
	return short
}

func TestAFlippedBitAnywhereIsNeverSilentLoss(t *testing.T) {
	d := newDamaged(t)
	for _, name := range d.files(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			data := d.disk.Data(name)
			n := 0
			for i := 0; i < len(data); i += step(97) {
				disk := d.disk.Clone()
				disk.Data(name)[i] ^= 1 << (i % 8)
				if n++; d.check(disk) != nil {
					t.Fatalf("byte %d: %v", i, d.check(disk))
				}
			}
			t.Logf("%d flips", n)
		})
	}
}

func TestAFileCutAnywhereIsNeverSilentLoss(t *testing.T) {
	d := newDamaged(t)
	for _, name := range d.files(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			data := d.disk.Data(name)
			n := 0
			for i := 0; i < len(data); i += step(101) {
				disk := d.disk.Clone()
				disk.SetData(name, slices.Clone(data[:i]))
				if n++; d.check(disk) != nil {
					t.Fatalf("cut to %d bytes: %v", i, d.check(disk))
				}
			}
			t.Logf("%d cuts", n)
		})
	}
}

func TestAFileThatIsMissingOrOfAnEarlierTimeIsNeverSilentLoss(t *testing.T) {
	d := newDamaged(t)
	for _, name := range d.files(t) {
		disk := d.disk.Clone()
		if err := disk.Remove(name); err != nil {
			t.Fatal(err)
		}
		if err := d.check(disk); err != nil {
			t.Errorf("%s removed: %v", name, err)
		}
		for i, older := range d.older {
			data := older.Data(name)
			if data == nil {
				continue
			}
			disk := d.disk.Clone()
			disk.SetData(name, slices.Clone(data))
			if err := d.check(disk); err != nil {
				t.Errorf("%s as it was after phase %d: %v", name, i, err)
			}
		}
		for _, other := range d.files(t) {
			disk := d.disk.Clone()
			disk.SetData(name, slices.Clone(d.disk.Data(other)))
			if err := d.check(disk); err != nil {
				t.Errorf("%s replaced by %s: %v", name, other, err)
			}
		}
	}
}

func TestWhatIsGivenUpIsKeptAndReported(t *testing.T) {
	d := fillDamaged(t, false)
	hit := 0
	for _, name := range d.files(t) {
		data := d.disk.Data(name)
		if !strings.HasSuffix(name, ".seg") || data[5000] == 0 {
			continue
		}
		hit++
		disk := d.disk.Clone()
		forget(t, disk)
		was := slices.Clone(disk.Data(name))
		disk.Data(name)[5000] ^= 1
		o := damageOptions(disk)
		if _, err := local.Open(o); err == nil {
			t.Fatalf("%s: damage is not noticed", name)
		}
		if names, _ := disk.List("data/quarantine"); len(names) > 0 {
			t.Errorf("%s: a refused start left %v", name, names)
		}
		o.AcceptLoss = true
		s := open(t, o)
		s.Bind(noEvents{})
		l := s.Losses()
		checkLosses(t, disk, l, name, was)
		missing := map[string]uint64{}
		for _, m := range l.Missing {
			missing[m.Name] += m.Messages
		}
		in, err := s.Info(context.Background(), s.Named(broker.QueueTarget, "q0"))
		if err != nil {
			t.Fatal(err)
		}
		if got := int(in.Ready) + int(missing["q0"]); got != d.count && in.Ready != 0 {
			t.Errorf("%s: %d are there and %d are missing of %d", name, in.Ready, missing["q0"], d.count)
		}
		shut(t, s)
		o.AcceptLoss = false
		s = open(t, o)
		if l := s.Losses(); len(l.Damage) != 0 {
			t.Errorf("%s: the next start reports %v", name, l)
		}
		shut(t, s)
	}
	if hit < 2 {
		t.Fatalf("only %d segments were damaged", hit)
	}
}

// forget removes checkpoints and hints, so that a start reads all of the log.
func forget(tb testing.TB, disk *journaltest.SectorFS) {
	tb.Helper()
	for _, dir := range []string{"data/checkpoint", "data/journal"} {
		names, err := disk.List(dir)
		if err != nil {
			tb.Fatal(err)
		}
		for _, name := range names {
			if strings.HasPrefix(name, "ckpt-") || strings.HasSuffix(name, ".hint") {
				if err := disk.Remove(dir + "/" + name); err != nil {
					tb.Fatal(err)
				}
			}
		}
	}
}

// checkLosses compares a report with its file, and with the bytes that it kept.
func checkLosses(t *testing.T, disk *journaltest.SectorFS, l local.Losses, name string, was []byte) {
	t.Helper()
	var told local.Losses
	if err := json.Unmarshal(disk.Data(l.Report), &told); err != nil {
		t.Fatalf("%s: the report: %v", name, err)
	}
	if len(told.Damage) != 1 || told.Damage[0].File != name || len(told.Missing) != len(l.Missing) {
		t.Fatalf("%s: reported %+v", name, told)
	}
	x := told.Damage[0]
	kept := disk.Data(x.Kept)
	if x.From > 5000 || x.To <= 5000 || int64(len(kept)) != x.To-x.From {
		t.Fatalf("%s: %d to %d are lost, and %d bytes kept", name, x.From, x.To, len(kept))
	}
	kept[5000-x.From] ^= 1
	if string(kept) != string(was[x.From:x.To]) {
		t.Errorf("%s: what was kept is not what was there", name)
	}
}

func TestAcceptLossOpensAnyJournal(t *testing.T) {
	d := newDamaged(t)
	for _, name := range d.files(t) {
		if !strings.Contains(name, "/journal/") {
			continue
		}
		data := d.disk.Data(name)
		for i := 0; i < len(data); i += step(997) {
			disk := d.disk.Clone()
			clear(disk.Data(name)[i:min(len(data), i+300)])
			o := damageOptions(disk)
			o.AcceptLoss = true
			begin := time.Now()
			s, err := local.Open(o)
			if err != nil {
				if named(err) != nil {
					t.Fatalf("%s zeroed at %d: %v", name, i, err)
				}
				continue
			}
			s.Bind(noEvents{})
			if err := s.Check(); err != nil {
				t.Fatalf("%s zeroed at %d: %v", name, i, err)
			}
			shut(t, s)
			if took := time.Since(begin); took > 10*time.Second {
				t.Fatalf("%s zeroed at %d: it took %v", name, i, took)
			}
		}
	}
}
