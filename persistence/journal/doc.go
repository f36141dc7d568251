// Package journal is an append-only log of records in segment files, with one
// shared fdatasync for everything that was appended meanwhile (group commit).
// It knows bytes, segments, commits and recovery, and nothing of queues.
//
// # Life of a record
//
//	Lock      the append lock; waits while too much is unwritten
//	Reserve   room for one atomic group in the current window and segment
//	Start     the caller encodes the body straight into the window
//	End       header and checksum; the record has its position
//	Unlock    publishes the group to the flusher and leaves
//	flusher   takes all that was published: one vectored write of whole pages,
//	          one fdatasync, then the next; a single goroutine
//	completer calls every Completion of the group, in log order
//
// A window is 1 MiB of memory that mirrors a page-aligned stretch of a segment.
// Windows are never reused: records read from memory are slices of them, and
// the garbage collector keeps a window while somebody holds such a slice.
//
// # Goroutines
//
// flusher and completer always, preparer (zero-fills the next segment before it
// is needed), marker (keeps the watermark), syncer (only with Options.Relaxed). Close ends and awaits all.
// None of them has a timer while nothing is appended.
//
// # Locks
//
// appendMu is held from Lock to Unlock and guards the append position. mu
// guards what appenders and flusher share and is held for moments. cacheMu
// guards the list of windows, tableMu the segment table. Order: appendMu, mu,
// tableMu; cacheMu is taken with none of mu and tableMu. No lock is held while
// a Completion, Options.Failed or a write or sync of the log runs, except that
// readers wait for one another while a file is opened.
//
// # Failure
//
// The first error from a write or a sync of the log ends it: that error goes to
// everyone who waits and to every later call, and no sync is ever tried again,
// because the kernel reports a lost page only once. Errors while preparing a
// segment are different: nothing was promised on that file. Appends that need
// it get ErrFull, and preparing is retried.
//
// The on-disk format and the rules of recovery are in docs/format.md.
package journal
