package local_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/broker"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
)

// streamFiles are the files of the stream of d.
func (d *damaged) streamFiles(tb testing.TB) []string {
	tb.Helper()
	list := slices.DeleteFunc(d.files(tb), func(name string) bool { return !strings.HasSuffix(name, ".log") })
	if len(list) < 2 {
		tb.Fatalf("only %v", list)
	}
	return list
}

// accepted opens a damaged copy with AcceptLoss, and wants of the stream what is
// not reported as missing, now or by an earlier start: in this start, and in the
// next one without AcceptLoss, with more in it. It returns what this start reported.
func (d *damaged) accepted(t *testing.T, disk *journaltest.SectorFS, earlier ...local.Missing) local.Losses {
	t.Helper()
	o := damageOptions(disk)
	o.AcceptLoss = true
	s := open(t, o)
	s.Bind(noEvents{})
	l := s.Losses()
	missing := append(earlier, l.Missing...)
	st := s.Named(broker.StreamTarget, "s")
	d.checkStream(t, s, missing)
	if err := outcome(submit(s, func(b *broker.Batch) { b.Publish(numbered(d.count, 100), broker.Route{Target: st}) })); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	o.AcceptLoss = false
	s = open(t, o)
	s.Bind(noEvents{})
	d.checkStream(t, s, missing)
	if _, err := s.CopyStreams(); err != nil {
		t.Error(err)
	}
	d.checkStream(t, s, missing)
	d.checkSubscription(t, s, missing)
	shut(t, s)
	return l
}

// reported is what a report says is missing; none if it is not there.
func reported(t *testing.T, disk *journaltest.SectorFS, name string) []local.Missing {
	t.Helper()
	var l local.Losses
	if text := disk.Data(name); text != nil {
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatal(err)
		}
	}
	return l.Missing
}

// checkStream reads the stream from its beginning, and wants every message that
// is not missing at its offset.
func (d *damaged) checkStream(t *testing.T, s *local.Store, missing []local.Missing) {
	t.Helper()
	want := d.present(missing)
	got := []int{}
	for next := uint64(0); int(next) < d.count; {
		list, err := s.Read(context.Background(), s.Named(broker.StreamTarget, "s"), broker.Pos{Seq: next}, 3, nil)
		if err != nil {
			t.Fatalf("read from offset %d: %v", next, err)
		}
		if len(list) == 0 {
			break
		}
		for i := range list {
			if next = list[i].Seq + 1; int(list[i].Seq) < d.count {
				got = append(got, number(t, &list[i]))
			}
			if uint64(number(t, &list[i])) != list[i].Seq {
				t.Fatalf("message %s at offset %d", list[i].Topic, list[i].Seq)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("there are %v, want %v", got, want)
	}
	for _, n := range want { // and from each of them alone
		list, err := s.Read(context.Background(), s.Named(broker.StreamTarget, "s"), broker.Pos{Seq: uint64(n)}, 1, nil)
		if err != nil || len(list) != 1 || number(t, &list[0]) != n {
			t.Fatalf("offset %d: %d messages, %v", n, len(list), err)
		}
	}
}

// present are the messages of the stream that are not missing.
func (d *damaged) present(missing []local.Missing) []int {
	list := []int{}
	for n := range d.count {
		if !slices.ContainsFunc(missing, func(m local.Missing) bool {
			return m.Name == "s" && uint64(n) >= m.First && uint64(n) < m.First+m.Messages
		}) {
			list = append(list, n)
		}
	}
	return list
}

// checkSubscription wants the same of a subscription that begins at the beginning.
func (d *damaged) checkSubscription(t *testing.T, s *local.Store, missing []local.Missing) {
	t.Helper()
	sub, err := s.Define(context.Background(), broker.Def{Name: "sub", Kind: broker.SubscriptionTarget, Source: s.Named(broker.StreamTarget, "s")})
	if err != nil {
		t.Fatal(err)
	}
	got := []int{}
	for range d.count + 2 {
		c := make(collect, 1)
		w := &broker.Wait{Target: sub, Max: 7, Lease: time.Hour, Sink: c}
		s.Receive(w)
		<-c
		if w.Err != nil {
			t.Fatal(w.Err)
		}
		for i := range w.Got {
			if int(w.Got[i].Offset) < d.count {
				got = append(got, number(t, &w.Got[i]))
			}
		}
	}
	if want := d.present(missing); !slices.Equal(got, want) {
		t.Fatalf("the subscription has %v, want %v", got, want)
	}
}

func TestAFileOfAStreamIsGivenUpAloneAndOnce(t *testing.T) {
	d := newDamaged(t)
	for _, name := range d.streamFiles(t) {
		for what, damage := range map[string]func(disk *journaltest.SectorFS){
			"header":  func(disk *journaltest.SectorFS) { disk.Data(name)[30] ^= 1 },
			"cut":     func(disk *journaltest.SectorFS) { disk.SetData(name, slices.Clone(disk.Data(name)[:70])) },
			"missing": func(disk *journaltest.SectorFS) { _ = disk.Remove(name) },
		} {
			disk := d.disk.Clone()
			damage(disk)
			was := slices.Clone(disk.Data(name))
			if _, err := local.Open(damageOptions(disk)); named(err) != nil || err == nil {
				t.Fatalf("%s, %s: a start answers %v", name, what, err)
			}
			l := d.accepted(t, disk)
			if len(l.Damage) != 1 || len(l.Missing) != 1 || l.Missing[0].Name != "s" || string(disk.Data(l.Damage[0].Kept)) != string(was) {
				t.Errorf("%s, %s: reported %+v", name, what, l)
			}
		}
	}
}

// entries are the places of the messages in a file of a stream, and its end.
func entries(file []byte) []int {
	list := []int{64}
	for at := 64; at < len(file); list = append(list, at) {
		at += int(binary.LittleEndian.Uint32(file[at:]))
	}
	return list
}

func TestADamagedMessageInAFileOfAStreamIsGivenUpAlone(t *testing.T) {
	d := newDamaged(t)
	hits := 0
	for _, name := range d.streamFiles(t) {
		file := d.disk.Data(name)
		places := entries(file)
		for m := range len(places) - 1 {
			for i := places[m]; i < places[m+1]; i += max(1, min(step(131), places[m+1]-i-1)) {
				hits++
				disk := d.disk.Clone()
				disk.Data(name)[i] ^= 1 << (i % 8)
				if m == 0 { // its time counts
					if _, err := local.Open(damageOptions(disk.Clone())); err == nil || named(err) != nil {
						t.Fatalf("%s, byte %d: a start answers %v", name, i, err)
					}
				}
				was := slices.Clone(disk.Data(name)[places[m]:places[m+1]])
				l := d.accepted(t, disk)
				if len(l.Damage) != 1 || len(l.Missing) != 1 || l.Missing[0].Messages != 1 || l.Missing[0].Name != "s" {
					t.Fatalf("%s, byte %d: reported %+v", name, i, l)
				}
				x := l.Damage[0]
				if x.File != name || int(x.From) != places[m] || int(x.To) != places[m+1] || !bytes.Equal(disk.Data(x.Kept), was) {
					t.Fatalf("%s, byte %d: reported %+v for the bytes %d to %d", name, i, x, places[m], places[m+1])
				}
				if i == places[m+1]-1 {
					break
				}
			}
		}
	}
	t.Logf("%d flips", hits)
}

func TestWhatCanBeReadOfAFileOfAStreamThatIsCutStays(t *testing.T) {
	d := newDamaged(t)
	for _, name := range d.streamFiles(t) {
		file := d.disk.Data(name)
		places := entries(file)
		for cut := places[1]; cut < len(file); cut += step(211) {
			disk := d.disk.Clone()
			disk.SetData(name, slices.Clone(file[:cut]))
			whole := 0
			for places[whole+1] <= cut {
				whole++
			}
			l := d.accepted(t, disk)
			if len(l.Missing) != 1 || int(l.Missing[0].Messages) != len(places)-1-whole {
				t.Fatalf("%s cut to %d bytes, which are %d messages of %d: reported %+v", name, cut, whole, len(places)-1, l)
			}
		}
	}
}

func TestDamageInManyPlacesOfAFileOfAStream(t *testing.T) {
	d := newDamaged(t)
	for _, name := range d.streamFiles(t) {
		file := d.disk.Data(name)
		places := entries(file)
		zeroed := func(from, to int) func(b []byte) { return func(b []byte) { clear(b[from:to]) } }
		for what, damage := range map[string]func(b []byte){
			"two messages": func(b []byte) { b[places[1]+5] ^= 1; b[places[3]+30] ^= 1 },
			"neighbours":   zeroed(places[2]+9, places[4]+9),
			"first":        zeroed(places[0], places[0]+4),
			"last":         zeroed(places[len(places)-2], len(file)),
			"all but one":  zeroed(places[0], places[len(places)-2]),
			"two sizes":    func(b []byte) { b[places[1]+1] ^= 1; b[places[2]+1] ^= 1 },
		} {
			disk := d.disk.Clone()
			damage(disk.Data(name))
			l := d.accepted(t, disk)
			lost := 0
			for _, m := range l.Missing {
				lost += int(m.Messages)
			}
			want := map[string]int{"two messages": 2, "neighbours": 3, "first": 1, "last": 1, "all but one": len(places) - 2, "two sizes": 2}[what]
			if lost != want {
				t.Errorf("%s, %s: %d are given up of %d, want %d", name, what, lost, len(places)-1, want)
			}
		}
	}
}

// A power cut at any moment leaves a directory that is mended by the next start
// with AcceptLoss, and no message is given up that could be read.
func TestAPowerCutWhileFilesOfStreamsAreMended(t *testing.T) {
	d := newDamaged(t)
	name := d.streamFiles(t)[1]
	places := entries(d.disk.Data(name))
	damaged, file := d.disk.Clone(), slices.Clone(d.disk.Data(name))
	file[places[1]+40] ^= 1
	file[places[3]+1] ^= 1
	damaged.SetData(name, file)
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for cut := 1; ; cut++ {
		disk := damaged.Clone()
		left := cut
		var after *journaltest.SectorFS
		o := damageOptions(journaltest.Watch(disk, func(op journaltest.Op, run func() error) error {
			err := run()
			if op.Changes() {
				if left--; left == 0 {
					after = disk.Crash(50, rng).(*journaltest.SectorFS)
				}
			}
			return err
		}))
		o.AcceptLoss = true
		s := open(t, o)
		whole := after == nil
		if shut(t, s); whole {
			t.Logf("%d cuts", cut)
			return
		}
		before := reported(t, after, s.Losses().Report)
		l := d.accepted(t, after, before...)
		if n := len(d.present(append(before, l.Missing...))); n != d.count-2 {
			t.Fatalf("cut %d, seed %d: %d of %d are there", cut, seed, n, d.count)
		}
	}
}

// A neighbour that is given up as a whole said how long this file is.
func TestAFileOfAStreamBesideOneThatIsGivenUp(t *testing.T) {
	d := newDamaged(t)
	names := d.streamFiles(t)
	for i := range len(names) - 1 {
		places := entries(d.disk.Data(names[i]))
		for what, damage := range map[string]func(disk *journaltest.SectorFS){
			"whole": func(*journaltest.SectorFS) {},
			"cut": func(disk *journaltest.SectorFS) {
				disk.SetData(names[i], slices.Clone(disk.Data(names[i])[:places[2]]))
			},
			"torn": func(disk *journaltest.SectorFS) {
				disk.SetData(names[i], slices.Clone(disk.Data(names[i])[:places[2]+7]))
			},
			"rest of a copy": func(disk *journaltest.SectorFS) {
				disk.SetData(names[i], append(slices.Clone(disk.Data(names[i])), disk.Data(names[i+1])[64:200]...))
			},
			"flip": func(disk *journaltest.SectorFS) { disk.Data(names[i])[places[1]+20] ^= 1 },
		} {
			disk := d.disk.Clone()
			damage(disk)
			disk.Data(names[i+1])[30] ^= 1
			l := d.accepted(t, disk)
			lost := 0
			for _, m := range l.Missing {
				lost += int(m.Messages)
			}
			own := map[string]int{"cut": len(places) - 1 - 2, "torn": len(places) - 1 - 2, "flip": 1}[what]
			if next := len(entries(d.disk.Data(names[i+1]))) - 1; lost != own+next {
				t.Errorf("%s: %d are given up, want %d and the %d of the next file", what, lost, own, next)
			}
		}
	}
}
