// Package journaltest has file systems for tests of the journal and of what is
// built on it: two that can lose power, one that fails at will, one whose syncs
// wait. Only tests may import it.
//
//	CrashFS   Pebble's crashable memory file system: loses 4 KiB blocks and
//	          directory entries
//	SectorFS  our own: tears at 512 bytes, loses directory operations from the
//	          end, and is fast
//	Watch     calls a function around each operation of any file system
//	FaultFS   fails the n-th operation of a kind, once or for ever
//	QuotaFS   is a disk of a given size
//	GateFS    holds the syncs of the log until they are released
package journaltest
