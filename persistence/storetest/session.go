package storetest

import (
	"time"

	"millrace/broker"
)

// session defines a session target.
func (h *harness) session(d broker.Def) broker.Target {
	h.Helper()
	d.Kind = broker.SessionTarget
	return h.define(d, "c")
}

var sessionTests = []test{
	{"a session and a queue of one name are two", func(h *harness) {
		s, q := h.session(broker.Def{Name: "x"}), h.queue(broker.Def{Name: "x"})
		if s == q {
			h.Fatal("they are one target")
		}
		h.publish(s, "a")
		h.expect(q)
		h.expect(s, "a")
	}},
	{"the tag of a route comes with every delivery of it, also after a reopen", func(h *harness) {
		s, other := h.session(broker.Def{}), h.session(broker.Def{Name: "d"})
		h.must(func(b *broker.Batch) {
			b.Publish(h.message("a"), broker.Route{Target: s, Tag: 1<<32 - 1}, broker.Route{Target: other, Tag: 7})
		})
		tags := func(ds []broker.Delivery, want uint32) {
			h.Helper()
			if len(ds) != 1 || ds[0].Tag != want {
				h.Fatalf("got %d deliveries, %+v, want the tag %d", len(ds), ds, want)
			}
		}
		tags(h.receive(s, 10, time.Hour), 1<<32-1)
		if h.keeps() {
			h.reopen()
			s, other = h.target("c"), h.target("d")
		}
		tags(h.read(s, broker.Pos{States: broker.Leased}, 10), 1<<32-1)
		tags(h.receive(other, 10, time.Hour), 7)
	}},
	{"what is leased of a session is read from a place on", func(h *harness) {
		s := h.session(broker.Def{})
		h.publish(s, "a", "b", "c", "d")
		ds := h.receive(s, 3, time.Hour)
		h.ack(ds[1])
		h.same(h.read(s, broker.Pos{States: broker.Leased}, 1), "a")
		h.same(h.read(s, broker.Pos{States: broker.Leased, Seq: ds[0].Seq + 1}, 9), "c")
	}},
	{"a full session that drops the newest leaves the rest of the publish alone", func(h *harness) {
		s, q := h.session(broker.Def{MaxMessages: 2, DropNewest: true}), h.queue(broker.Def{})
		both := func(body string) broker.Result {
			return h.must(func(b *broker.Batch) {
				b.Publish(h.message(body), broker.Route{Target: s, Tag: 3}, broker.Route{Target: q})
			})
		}
		both("a")
		both("b")
		if r := both("c"); r.Full != 0 {
			h.Fatalf("full is %d in a unit that was done", r.Full)
		}
		h.expect(q, "a", "b", "c")
		if got := h.droppedSince(); got != "[overflow 1]" {
			h.Fatalf("told as dropped: %s", got)
		}
		h.must(func(b *broker.Batch) { b.Publish(h.message("d"), broker.Route{Target: s}) }) // nothing is left of it
		if got := h.droppedSince(); got != "[overflow 1]" {
			h.Fatalf("told as dropped then: %s", got)
		}
		h.expect(s, "a", "b")
	}},
	{"a full session that drops the oldest drops the newest where that makes no room", func(h *harness) {
		s, q := h.session(broker.Def{MaxMessages: 2, DropOldest: true, DropNewest: true}), h.queue(broker.Def{})
		h.publish(s, "a", "b")
		h.receive(s, 2, time.Hour) // what is leased stays
		h.must(func(b *broker.Batch) {
			b.Publish(h.message("c"), broker.Route{Target: s}, broker.Route{Target: q})
		})
		h.expect(q, "c")
		h.counts(s, "ready 0 delayed 0 leased 2 held 0 dead 0")
	}},
}
