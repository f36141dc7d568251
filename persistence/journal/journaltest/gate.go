package journaltest

import (
	"sync"

	"millrace/persistence/journal"
)

// GateFS holds syncs of the log until they are released. With it a test proves
// that nothing is answered before its commit: hold, do the thing, wait for a
// sync to be held, see that there is no answer, release, see the answer.
type GateFS struct {
	journal.FS
	mu      sync.Mutex
	hold    chan struct{} // closed by Release; nil while syncs pass
	waiting chan struct{}
}

// NewGateFS wraps fs; syncs pass until Hold.
func NewGateFS(fs journal.FS) *GateFS {
	g := &GateFS{waiting: make(chan struct{}, 1)}
	g.FS = Watch(fs, g.do)
	return g
}

// Hold makes each sync of a segment of the log wait for Release.
func (g *GateFS) Hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hold == nil {
		g.hold = make(chan struct{})
	}
}

// Release lets all syncs pass, those held and those to come.
func (g *GateFS) Release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hold != nil {
		close(g.hold)
		g.hold = nil
	}
}

// Held is a channel that has a value once a sync has begun to wait.
func (g *GateFS) Held() <-chan struct{} { return g.waiting }

func (g *GateFS) do(op Op, run func() error) error {
	if op.Kind == Sync && InLog(op) {
		g.mu.Lock()
		hold := g.hold
		g.mu.Unlock()
		if hold != nil {
			select {
			case g.waiting <- struct{}{}:
			default:
			}
			<-hold
		}
	}
	return run()
}
