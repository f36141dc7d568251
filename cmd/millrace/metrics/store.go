package metrics

import "millrace/broker"

var (
	clockAhead = gauge("clock_ahead_seconds", "How far the wall clock is ahead of the clock that deadlines follow: it was set while we ran.")
	durability = gauge("store_durability", "1 for what a positive answer means now: disk, relaxed or memory.", "level")
	full       = gauge("store_full", "1 while publishes are refused because the disk is low.")
	failed     = gauge("store_failed", "1 after a failed write or sync: nothing is acknowledged any more.")
	syncTook   = durations("store_sync", "The disk's syncs, each shared by all that waited for it.")
	written    = counter("store_written_bytes", "Bytes written to the journal.")
	writes     = counter("store_writes", "Writes to the journal.")
	segments   = gauge("store_segments", "Segments of the journal that hold something.")
	spare      = gauge("store_spare_segments", "Files of the journal that are kept for reuse.")
	bytes      = gauge("store_bytes", "Size of the journal's segments on disk, without spare ones.")
)

func (s Source) store(to *scrape) {
	st := s.Broker.State()
	for _, d := range []broker.Durability{broker.DurabilityDisk, broker.DurabilityRelaxed, broker.DurabilityMemory} {
		to.set(durability, flag(st.Durability == d), string(d))
	}
	to.set(full, flag(st.Full))
	to.set(failed, flag(st.Err != nil))
	if s.Store == nil {
		return
	}
	to.set(clockAhead, s.Store.Clock().Ahead().Seconds())
	j := s.Store.Journal()
	if j == nil {
		return // everything is in memory
	}
	state := j.State()
	to.observe(syncTook, s.Store.SyncTook())
	to.set(written, float64(state.Written))
	to.set(writes, float64(state.Writes))
	to.set(segments, float64(state.Segments))
	to.set(spare, float64(state.Free))
	to.set(bytes, float64(state.Bytes))
}
