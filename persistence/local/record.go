package local

import "errors"

// The types of records in the journal. They are on disk: append only. Numbers
// are varints unless a width is given; times are Unix milliseconds.
//
//	start    format u8, epoch, time             one at each start of the process
//	message  time, n, n × (target, partition or tag, sequence), message
//	settle   target, reason u8, runs of (sequence, count)
//	state    target, kind u8, until, runs of (sequence, attempt, rank)
//	park     target, sequence, attempt, rank, reason u8, time
//	put      space u8, revision, key, value
//	delete   space u8, revision, key
//	define   target, definition
//	drop     target
//	move     old position, then as message: by compaction, with what still lives
//
// Types from 0x20 on are those of streams (streamtrim.go), from 0x30 on those of
// subscriptions (subscribed.go).
const (
	recStart byte = iota + 1
	recMessage
	recSettle
	recState
	recPark
	recPut
	recDelete
	recDefine
	recDrop
	recMove
)

// Kinds of a state record.
const (
	kindLeased byte = iota + 1 // until is the end of the lease
	kindBack                   // given back, until is when it is ready
)

// recordFormat is the first byte of a start record.
const recordFormat = 1

// maxSmall bounds the body of a record without key, value or message.
const maxSmall = 64

// routeBound is how many bytes a route takes at most in a message record.
const routeBound = 10 + 5 + 10

// errRecord says that a record is not one of ours, though its checksum is right.
var errRecord = errors.New("record is malformed")
