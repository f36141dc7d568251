// Package memory watches how much memory is in use, so that the server refuses
// work before the system kills it.
package memory

import (
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

const (
	// every is how often memory is looked at.
	every = 250 * time.Millisecond
	// Of the limit, in sixteenths: where refusing begins, and where it ends. The
	// rest is for garbage that is not collected yet.
	full, roomy = 14, 13
)

// Watch knows whether memory is short.
type Watch struct {
	limit uint64
	used  func() uint64
	log   zerolog.Logger
	over  atomic.Bool
	stop  chan struct{}
	done  chan struct{}
}

// Start has the garbage collector keep within limit bytes as far as it can, and
// watches the memory that it cannot free.
func Start(limit int64, log zerolog.Logger) *Watch {
	debug.SetMemoryLimit(limit)
	return start(uint64(limit), inUse, log)
}

func start(limit uint64, used func() uint64, log zerolog.Logger) *Watch {
	w := &Watch{limit: limit, used: used, log: log, stop: make(chan struct{}), done: make(chan struct{})}
	w.look()
	go w.run()
	return w
}

// Over reports whether memory is short.
func (w *Watch) Over() bool { return w.over.Load() }

// Close ends the watch, and waits for it.
func (w *Watch) Close() {
	close(w.stop)
	<-w.done
}

func (w *Watch) run() {
	defer close(w.done)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
			w.look()
		}
	}
}

func (w *Watch) look() {
	used, over := w.used(), w.over.Load()
	switch {
	case !over && used >= w.limit/16*full:
		w.over.Store(true)
		w.log.Error().Uint64("used", used).Uint64("limit", w.limit).Msg("memory limit is reached: new connections and publishes are refused, consumers are served")
	case over && used < w.limit/16*roomy:
		w.over.Store(false)
		w.log.Warn().Uint64("used", used).Uint64("limit", w.limit).Msg("memory is below its limit again")
	}
}

// inUse is what the last collection found in use, and all stacks.
func inUse() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() + s[1].Value.Uint64()
}
