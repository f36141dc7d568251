package storetest

import (
	"context"
	"strings"

	"millrace/broker"
)

// put writes one key.
func (h *harness) put(key, v string, rev uint64) broker.Result {
	return h.submit(func(b *broker.Batch) { b.Put(broker.SpaceSessions, key, []byte(v), rev) })
}

// list returns keys and values under a prefix.
func (h *harness) list(prefix string) string {
	h.Helper()
	var all []string
	err := h.store.List(context.Background(), broker.SpaceSessions, prefix, func(e broker.Entry) bool {
		all = append(all, e.Key+"="+string(e.Value))
		return true
	})
	if err != nil {
		h.Fatalf("list: %v", err)
	}
	return strings.Join(all, " ")
}

var keyTests = []test{
	{"a put without condition takes whatever is there", func(h *harness) {
		first, second := h.put("a", "1", 0), h.put("a", "2", 0)
		e, err := h.store.Get(context.Background(), broker.SpaceSessions, "a")
		if err != nil || string(e.Value) != "2" || e.Rev != second.Rev || second.Rev <= first.Rev || first.Rev == 0 {
			h.Fatalf("a is %+v, %v; revisions %d, %d", e, err, first.Rev, second.Rev)
		}
	}},
	{"a key that is not there is not found", func(h *harness) {
		_, err := h.store.Get(context.Background(), broker.SpaceSessions, "a")
		h.fails(err, broker.ErrNotFound)
		h.put("a", "1", 0)
		_, err = h.store.Get(context.Background(), broker.SpaceAuth, "a")
		h.fails(err, broker.ErrNotFound)
		h.must(func(b *broker.Batch) { b.Put(broker.SpaceSessions, "a", nil, 0) })
		_, err = h.store.Get(context.Background(), broker.SpaceSessions, "a")
		h.fails(err, broker.ErrNotFound)
	}},
	{"a put with a revision wants exactly that one", func(h *harness) {
		r := h.put("a", "1", broker.RevNone)
		if r.Err != nil {
			h.Fatal(r.Err)
		}
		h.fails(h.put("a", "2", broker.RevNone).Err, broker.ErrConflict)
		h.fails(h.put("a", "2", r.Rev+100).Err, broker.ErrConflict)
		h.fails(h.put("b", "2", r.Rev).Err, broker.ErrConflict)
		if err := h.put("a", "2", r.Rev).Err; err != nil {
			h.Fatal(err)
		}
		h.must(func(b *broker.Batch) { b.Put(broker.SpaceSessions, "a", nil, 0) })
		if err := h.put("a", "3", broker.RevNone).Err; err != nil {
			h.Fatalf("put of a deleted key that must be absent: %v", err)
		}
	}},
	{"conditions see what is still under way", func(h *harness) {
		b := &broker.Batch{}
		for range 2 {
			b.Put(broker.SpaceSessions, "a", []byte("x"), broker.RevNone)
			b.End()
		}
		d := make(done, 1)
		h.store.Submit(b, broker.Durable, d)
		<-d
		if b.Units[0].Result.Err != nil {
			h.Fatal(b.Units[0].Result.Err)
		}
		h.fails(b.Units[1].Result.Err, broker.ErrConflict)
	}},
	{"a failed condition undoes the whole unit", func(h *harness) {
		q := h.queue(broker.Def{})
		r := h.submit(func(b *broker.Batch) {
			b.Publish(h.message("a"), broker.Route{Target: q})
			b.Put(broker.SpaceSessions, "b", []byte("1"), 0)
			b.Put(broker.SpaceSessions, "a", []byte("1"), 77)
		})
		h.fails(r.Err, broker.ErrConflict)
		if h.store.State().Atomic {
			h.expect(q)
			if got := h.list(""); got != "" {
				h.Fatalf("keys are %s, want none", got)
			}
		}
	}},
	{"keys are listed in order by prefix", func(h *harness) {
		for _, key := range []string{"b", "ab", "a", "aa", "c"} {
			h.put(key, key, 0)
		}
		if got := h.list("a"); got != "a=a aa=aa ab=ab" {
			h.Fatalf("list is %s", got)
		}
		n := 0
		_ = h.store.List(context.Background(), broker.SpaceSessions, "", func(broker.Entry) bool { n++; return n < 2 })
		if n != 2 {
			h.Fatalf("list went on after false: %d calls", n)
		}
	}},
	{"a value may be changed by its caller once the batch is done", func(h *harness) {
		v := []byte("before")
		h.must(func(b *broker.Batch) { b.Put(broker.SpaceSessions, "a", v, 0) })
		copy(v, "after!")
		if got := h.list(""); got != "a=before" {
			h.Fatalf("value is %s", got)
		}
	}},
}
