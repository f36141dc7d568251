// Package local is the embedded store: every message, lease, stream and key of
// one process, over a journal on disk or, without a directory, in memory. It is
// one piece of code with two promises; a single queue can be volatile in a
// store that is not.
//
// # What is where
//
// The journal holds the messages, and a record of everything that happened to
// them (record.go). Memory holds an index: 24 bytes for a message that waits,
// about 150 for one that is leased, delayed or dead. A volatile queue holds the
// encoded messages as well.
//
// A checkpoint (checkpoint.go) says what the log before a position need not tell
// again: definitions, counters, which messages are there and what is known of
// them, streams, keys, the de-duplication window. It names messages by sequence;
// where they lie is in the hint of each segment (hint.go). Opening (recovery.go)
// reads the newest checkpoint, the hints, and the log from that position on.
// Without a checkpoint, or a hint, it reads the log, or the segment.
//
// # What stays bounded
//
// For each segment it is counted what lives in it (live.go). When a segment is
// full, or a full one is empty, the upkeep (upkeep.go) copies streams out, writes
// hints, moves the few messages of sparse segments to the end of the log
// (compact.go), writes a checkpoint, and frees what nobody needs (reclaim.go).
//
// The order makes it safe. A segment goes only when both kept checkpoints begin
// behind it, and when what emptied it is on disk: a discarded message that is
// only noted, or a consumed one that is not recorded yet, counts as there. A
// checkpoint is written while others work, so its parts are of different
// moments: all records from its position on may be applied to it again, and
// the log must reach at least as far as it does. A move is decided under the
// append lock, after every acknowledgement that is recorded before it.
//
// # Streams
//
// A message of a stream costs 16 bytes until its run of 256 is full, and 4 or 5
// after that. copyStreams moves what sealed segments hold to the files of each
// partition (streamfile.go), of which memory has an index of 24 bytes for 16 KiB
// of a file that is read. A reader goes from the files to the journal, and from
// there to the commit windows, without noticing. What is too old or too much is
// cut off by whole runs or files, and shown as gone once the record of that is
// durable: the first offset of a partition never goes back.
//
// # Subscriptions
//
// A subscription on a stream is a queue (subscription.go) whose entries are taken
// from the partitions when they are handed out: a backlog costs nothing, what is
// in flight as much as in a queue. Messages are read through the partition.
//
// # Parts
//
// Who receives with a filter asks for a part of a queue (part.go): its messages
// that are ready, by sequence, and those that came back, by place. The queue
// knows the topics of its messages (topics.go) as long as somebody asks for a part of it,
// and gives each that becomes ready to the parts that its topic belongs to, so
// that nobody ever looks at a message of another topic. What was there before the
// first one asked is read once (look.go), about a second for a million
// messages on disk; a further filter goes over the index, some 30 ms.
//
// # The way of a message
//
// Submit writes the unit's records under the append lock and adds the message
// to its queues, where nobody sees it yet. When the log has committed, the
// commit makes it visible, answers the batch and serves the waits. Leases and
// discarded messages are noted and written without anybody waiting for that
// (outbox.go): a crash may hand a message out once more, and never loses one.
//
// # States
//
//	(published) -> delayed -> ready -> leased -> gone
//	                 ^          ^        |
//	                 |          +--------+  lease ended, given back
//	                 +-------------------+  given back for later
//	                                     |
//	                                     +-> held -> gone | dead
//
// Ready is waiting (never handed out: the cursor of the queue comes to it),
// returned (in a heap, by place), or blocked (its key is in flight).
//
// # Goroutines
//
// The timers' (ends leases, delays and messages, and calls Events), the
// writer's (writes what is noted when no Submit does), the upkeep's, one that looks
// through queues for new parts until they have all, and those of the log. None polls, and in an idle store no timer runs.
//
// # Locks
//
// The append lock of the log, then one queue's, then any of the small ones
// (timers, teller, outbox, keys, partition). The upkeep's own (upkeep, copy,
// checkpoints) are taken before all of these. Only the holder of the append lock
// may hold several queues' locks. No lock is held while a Completion, a
// WaitSink or Events is called, nor while something is read from disk. What the
// log's own goroutine runs never takes the append lock.
//
// # What it cannot promise
//
// With Relaxed, or for what was submitted as Lazy, a power cut may take
// messages that were seen already; an offset of a stream is then used again.
package local
