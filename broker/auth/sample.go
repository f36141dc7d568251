package auth

import "time"

const (
	sampleEvery = time.Minute
	maxSamples  = 1_024 // beyond it the rest is counted together
)

// samples keeps apart what is written one by one and what is only counted: the
// first event of a kind is written at once, the like of it within the next
// minute as one line with their number. They belong to the audit's mutex.
type samples struct {
	seen  map[line]int // how many since the last line
	timer *time.Timer  // runs while something was seen
	ended bool
}

// sample writes e or counts it. Like events are those that differ in nothing
// but time and the port they come from.
func (l *audit) sample(e line) {
	e.Remote = address(e.Remote)
	if e.Outcome == "" {
		e.Outcome = doneOutcome
	}
	if l.count(e) {
		l.write(e)
	}
}

// count reports whether e is the first of its kind.
func (l *audit) count(e line) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.samples
	if l.out == nil || s.ended {
		return l.out != nil
	}
	if s.seen == nil {
		s.seen = make(map[line]int)
	}
	_, again := s.seen[e]
	if !again && len(s.seen) >= maxSamples {
		e, again = line{Who: "others", What: e.What, Outcome: e.Outcome}, true
	}
	if again {
		s.seen[e]++
		return false
	}
	s.seen[e] = 0
	if s.timer == nil {
		s.timer = time.AfterFunc(sampleEvery, l.flush)
	}
	return true
}

// flush is the timer's errand: it writes what was counted, and forgets what was
// not seen again.
func (l *audit) flush() {
	l.mu.Lock()
	s := &l.samples
	var lines []line
	for e, n := range s.seen {
		if n == 0 {
			delete(s.seen, e)
			continue
		}
		s.seen[e] = 0
		e.Count = n
		lines = append(lines, e)
	}
	s.timer = nil
	if len(s.seen) > 0 && !s.ended {
		s.timer = time.AfterFunc(sampleEvery, l.flush)
	}
	l.mu.Unlock()
	for _, e := range lines {
		l.write(e)
	}
}

// stop writes what was counted and starts no timer any more.
func (l *audit) stop() {
	l.mu.Lock()
	l.samples.ended = true
	if l.samples.timer != nil {
		l.samples.timer.Stop()
	}
	l.mu.Unlock()
	l.flush()
}
