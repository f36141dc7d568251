package main_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
)

// ledger is what producers and consumers were told. "sent" is written before a
// request leaves, "acked" after its answer came; the same for settling.
type ledger struct {
	mu      sync.Mutex
	file    *os.File
	w       *bufio.Writer
	entries []entry
	faults  map[string][]string // kind of fault -> messages
}

type entry struct {
	door     string
	sum      uint32 // of the whole payload
	acked    bool   // the producer has a positive answer
	settling int    // acks of consumers that left and were not refused
	settled  bool   // and was answered
	drained  bool   // received by a drain
	id       string // the broker's, as first seen
}

func newLedger(path string) (*ledger, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return &ledger{file: f, w: bufio.NewWriter(f), faults: map[string][]string{}}, nil
}

func (l *ledger) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.w.Flush(); err != nil {
		return err
	}
	return l.file.Close()
}

// write appends a line; l.mu is held. A test cannot do more about a full disk
// than to lose its notes.
func (l *ledger) write(what string, n int, more string) {
	_, _ = fmt.Fprintf(l.w, "%s %d %s\n", what, n, more)
}

// send makes the next message. Its payload is "NUMBER SUM " and size bytes, text
// or not, whose CRC is SUM.
func (l *ledger) send(door string, r *rand.Rand, text bool) (int, []byte) {
	size := 16 + r.IntN(2000)
	if r.IntN(200) == 0 {
		size = 100_000
	}
	body := make([]byte, size)
	for i := 0; i < size; i += 8 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], r.Uint64())
		copy(body[i:], b[:])
	}
	if text {
		body = []byte(hex.EncodeToString(body[:size/2]))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.entries)
	payload := append(fmt.Appendf(nil, "%d %08x ", n, crc32.ChecksumIEEE(body)), body...)
	l.entries = append(l.entries, entry{door: door, sum: crc32.ChecksumIEEE(payload)})
	l.write("sent", n, door)
	return n, payload
}

func (l *ledger) acked(ns ...int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range ns {
		l.entries[n].acked = true
		l.write("acked", n, "")
	}
}

// fault notes a broken promise.
func (l *ledger) fault(kind, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faultLocked(kind, format, args...)
}

func (l *ledger) faultLocked(kind, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.faults[kind] = append(l.faults[kind], text)
	l.write("FAULT", len(l.faults[kind]), kind+": "+text)
}

// received checks a message that the broker handed out, and returns its number,
// or -1.
func (l *ledger) received(h held, drain bool) int {
	payload := h.bytes()
	number, rest, _ := bytes.Cut(payload, []byte(" "))
	n, err := strconv.Atoi(string(number))
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || n < 0 || n >= len(l.entries) || len(rest) < 9 {
		l.faultLocked("altered", "message %s is not one of ours: %.60q", h.ID, payload)
		return -1
	}
	e := &l.entries[n]
	l.write("received", n, h.ID+" attempt "+strconv.Itoa(h.Attempt))
	if crc32.ChecksumIEEE(payload) != e.sum {
		l.faultLocked("altered", "message %d (%s, %s) has other bytes than were sent", n, e.door, h.ID)
	}
	if e.settled {
		l.faultLocked("came back", "message %d (%s, %s) was acknowledged and comes back as attempt %d", n, e.door, h.ID, h.Attempt)
	}
	if e.id != "" && e.id != h.ID {
		l.faultLocked("duplicated", "message %d (%s) is there as %s and as %s", n, e.door, e.id, h.ID)
	}
	e.id = h.ID
	e.drained = e.drained || drain
	return n
}

// settling notes that the ack of a consumer is about to leave, settled that it
// was answered.
func (l *ledger) settling(n int) {
	if n < 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[n].settling++
	l.write("settling", n, "")
}

// refused takes back settling: the ack had a definite no.
func (l *ledger) refused(n int) {
	if n < 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[n].settling--
	l.write("refused", n, "")
}

func (l *ledger) settled(n int) {
	if n < 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries[n].settled = true
	l.write("settled", n, "")
}

// audit is called after the queue was emptied: every message from first on that
// was acknowledged to its producer must have been received by a consumer whose
// ack was sent, or by the drain.
func (l *ledger) audit(first int) (sent, acked, settled, drained int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range l.entries[first:] {
		sent++
		if e.acked {
			acked++
		}
		if e.settled {
			settled++
		}
		if e.drained {
			drained++
		}
		if e.acked && e.settling == 0 && !e.drained {
			l.faultLocked("lost", "message %d (%s) was acknowledged to its producer and is gone", first+i, e.door)
		}
	}
	return sent, acked, settled, drained
}

func (l *ledger) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

// report describes all faults, the first few of each kind.
func (l *ledger) report() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b bytes.Buffer
	for kind, list := range l.faults {
		fmt.Fprintf(&b, "%s: %d\n", kind, len(list))
		for _, text := range list[:min(5, len(list))] {
			fmt.Fprintf(&b, "  %s\n", text)
		}
	}
	return b.String()
}
