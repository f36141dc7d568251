package local

// expiry says when to look at a message: its own time is over then, or the
// queue's. It stays behind when the message is gone or leased by then.
type expiry struct {
	time int64
	seq  uint64
	ttl  bool // the queue's: forgotten when its TTL changes
}

// expiries is a heap of them by time, of messages that have a time of their
// own, and of those that came back in a queue with a TTL. (The TTL of messages
// that only wait needs no heap: they end in the order of the queue.)
type expiries struct {
	list []expiry
	live int // messages that have an expiry of their own
}

// add notes the time of the message seq.
func (x *expiries) add(time int64, seq uint64, ttl bool) {
	if !ttl {
		x.live++
	}
	x.push(expiry{time: time, seq: seq, ttl: ttl})
}

// push adds e and restores the order.
func (x *expiries) push(e expiry) {
	x.list = append(x.list, e)
	i := len(x.list) - 1
	for i > 0 {
		p := (i - 1) / 2
		if x.list[p].time <= e.time {
			break
		}
		x.list[i] = x.list[p]
		i = p
	}
	x.list[i] = e
}

// pop removes the earliest.
func (x *expiries) pop() expiry {
	e := x.list[0]
	last := len(x.list) - 1
	x.list[0] = x.list[last]
	x.list = x.list[:last]
	x.down(0)
	if last == 0 && cap(x.list) > 4096 {
		x.list = nil
	}
	return e
}

// sweep keeps those that keep says, when the list is far longer than want.
func (x *expiries) sweep(want int, keep func(expiry) bool) {
	if len(x.list) <= 2*want+64 {
		return
	}
	x.filter(keep)
}

// filter keeps those that keep says.
func (x *expiries) filter(keep func(expiry) bool) {
	kept := x.list[:0]
	for _, e := range x.list {
		if keep(e) {
			kept = append(kept, e)
		}
	}
	x.list = kept
	for i := len(kept)/2 - 1; i >= 0; i-- {
		x.down(i)
	}
}

func (x *expiries) down(i int) {
	if i >= len(x.list) {
		return
	}
	e := x.list[i]
	for {
		c := 2*i + 1
		if c >= len(x.list) {
			break
		}
		if c+1 < len(x.list) && x.list[c+1].time < x.list[c].time {
			c++
		}
		if x.list[c].time >= e.time {
			break
		}
		x.list[i] = x.list[c]
		i = c
	}
	x.list[i] = e
}
