package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"millrace/broker"
)

// The model of a stream is a list of texts for each partition, and the first
// offset that a reader may still find: the store decides when old ones go, and
// never goes back.

const (
	modelPartitions  = 3
	modelStreamBytes = 60 << 10
)

// smodel compares one stream with its model.
type smodel struct {
	h      *harness
	stream broker.Target
	texts  [modelPartitions][]string
	first  [modelPartitions]uint64
}

// RunStreamModel compares the streams of a store with the model over random
// operations, at least as many as MILLRACE_MODEL_STEPS says.
func RunStreamModel(t *testing.T, newPlace func(tb testing.TB) Place) {
	t.Helper()
	repeat(t, func() int { return runStreamModel(t, newPlace) })
}

// runStreamModel runs a hundred sequences, and returns how many steps they had.
func runStreamModel(t *testing.T, newPlace func(tb testing.TB) Place) (done int) {
	t.Helper()
	kinds := []string{"publish", "publish", "publish", "read", "read", "roll", "upkeep", "reopen", "since"}
	one := rapid.Custom(func(rt *rapid.T) step {
		return step{
			kind: rapid.SampledFrom(kinds).Draw(rt, "kind"),
			a:    rapid.IntRange(0, modelPartitions-1).Draw(rt, "a"), b: rapid.IntRange(0, 9).Draw(rt, "b"), c: rapid.IntRange(0, 9).Draw(rt, "c"),
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(one, 1, 60).Draw(rt, "steps")
		done += len(steps)
		var err error
		synctest.Test(t, func(t *testing.T) {
			h := &harness{T: t, place: newPlace(t)}
			h.open()
			m := &smodel{h: h}
			err = m.run(steps)
			_ = h.store.Close(context.Background()) // the error of the model says more
		})
		if err != nil {
			rt.Fatalf("%v", err)
		}
	})
	return done
}

func (m *smodel) run(steps []step) error {
	m.stream = m.h.stream(broker.Def{Partitions: modelPartitions, MaxBytes: modelStreamBytes})
	for i, s := range steps {
		err := m.do(s)
		if err == nil {
			err = m.compare()
		}
		if err != nil {
			return fmt.Errorf("step %d %+v: %w", i, s, err)
		}
	}
	return nil
}

func (m *smodel) do(s step) error {
	switch s.kind {
	case "publish":
		return m.publish(s.a, 1+s.b*s.c, 200*s.c)
	case "read":
		return m.read(s.a, uint64(s.b*len(m.texts[s.a])/10), 1+s.c*10)
	case "since":
		m.h.sleep(1)
		return m.since(s.a)
	case "roll":
		return m.h.roll(1 + s.b)
	case "upkeep":
		m.h.upkeep()
	case "reopen":
		if m.h.keeps() {
			m.h.reopen()
			m.stream = m.h.target("s")
		}
	}
	return nil
}

// publish publishes n messages as a batch.
func (m *smodel) publish(part, n, fill int) error {
	b, d := &broker.Batch{}, make(done, 1)
	next := len(m.texts[part])
	for i := range n {
		x := m.h.message(fmt.Sprint(part, "/", next+i))
		m.texts[part] = append(m.texts[part], string(x.Payload))
		x.Payload = append(x.Payload, make([]byte, fill)...)
		b.Publish(x, broker.Route{Target: m.stream, Partition: uint32(part)})
		b.End()
	}
	m.h.store.Submit(b, broker.Durable, d)
	<-d
	for i := range b.Units {
		if r := b.Units[i].Result; r.Err != nil || r.Seq != uint64(next+i) {
			return fmt.Errorf("publish answers offset %d, %w; want %d", r.Seq, r.Err, next+i)
		}
	}
	return nil
}

// read reads from an offset and compares.
func (m *smodel) read(part int, from uint64, limit int) error {
	got, err := m.h.store.Read(context.Background(), m.stream, broker.Pos{Partition: uint32(part), Seq: from}, limit, nil)
	if gone, ok := errors.AsType[*broker.RangeError](err); ok && gone.First > from {
		return m.cut(part, gone.First)
	}
	if err != nil {
		return fmt.Errorf("read from %d: %w", from, err)
	}
	if want := min(limit, len(m.texts[part])-int(from)); len(got) == 0 && want > 0 || len(got) > want {
		return fmt.Errorf("read from %d gives %d of %d messages", from, len(got), want)
	}
	for i := range got {
		o := from + uint64(i)
		want := m.texts[part][o]
		if got[i].Seq != o || len(got[i].Payload) < len(want) || string(got[i].Payload[:len(want)]) != want {
			return fmt.Errorf("read from %d gives %.10q at %d, want %s at %d", from, got[i].Payload, got[i].Seq, want, o)
		}
	}
	return nil
}

// since reads by time: what is there is not newer than now.
func (m *smodel) since(part int) error {
	got, err := m.h.store.Read(context.Background(), m.stream, broker.Pos{Partition: uint32(part), Begin: true}, 1, nil)
	if err != nil || len(got) == 0 {
		return err
	}
	again, err := m.h.store.Read(context.Background(), m.stream, broker.Pos{Partition: uint32(part), Time: broker.Time(got[0].Queued)}, 1, nil)
	if err != nil || len(again) != 1 || again[0].Seq < got[0].Seq && again[0].Queued != got[0].Queued {
		return fmt.Errorf("read from the time of offset %d gives %d messages, %w", got[0].Seq, len(again), err)
	}
	return nil
}

// cut notes that a partition begins later now.
func (m *smodel) cut(part int, first uint64) error {
	if first < m.first[part] || first > uint64(len(m.texts[part])) {
		return fmt.Errorf("partition %d begins at %d, and did at %d before; it ends at %d", part, first, m.first[part], len(m.texts[part]))
	}
	m.first[part] = first
	return nil
}

// compare compares the bounds.
func (m *smodel) compare() error {
	synctest.Wait()
	in, err := m.h.store.Info(context.Background(), m.stream)
	if err != nil {
		return err
	}
	var bytes int64
	for part, p := range in.Partitions {
		if p.Next != uint64(len(m.texts[part])) {
			return fmt.Errorf("partition %d ends at %d, want %d", part, p.Next, len(m.texts[part]))
		}
		if err := m.cut(part, p.First); err != nil {
			return err
		}
		bytes += p.Bytes
	}
	// The newest run of each partition stays, with 256 messages at most.
	if bytes < 0 || bytes > modelStreamBytes+modelPartitions*256*2200 {
		return fmt.Errorf("the stream holds %d bytes, its limit is %d", bytes, modelStreamBytes)
	}
	return nil
}
