package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"millrace/broker"
)

// asks are requests of the broker's to other nodes. They end when the node leaves: it
// does nothing more then, and what was sent to it on a network that loses everything
// has no other end.
type asks struct {
	mu   sync.Mutex
	open map[string]map[*context.CancelCauseFunc]bool // by node
}

// errLeft is why a request has no answer whose node has left.
var errLeft = errors.New("it has left the cluster")

// begin returns a context that ends when a node leaves, and what is to be called at the
// end of the request.
func (a *asks) begin(ctx context.Context, node string) (context.Context, func()) {
	ctx, left := context.WithCancelCause(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open = map[string]map[*context.CancelCauseFunc]bool{}
	}
	if a.open[node] == nil {
		a.open[node] = map[*context.CancelCauseFunc]bool{}
	}
	a.open[node][&left] = true
	return ctx, func() {
		a.mu.Lock()
		delete(a.open[node], &left)
		a.mu.Unlock()
		left(nil)
	}
}

// left ends those to a node, once it has had the time to answer them, which one does
// that stops.
func (a *asks) left(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for end := range a.open[node] {
		time.AfterFunc(askFor, func() { (*end)(errLeft) })
	}
}

// has reports whether a node is one of the cluster, as far as this one knows.
func (s *Store) has(node string) bool {
	return slices.ContainsFunc(s.Nodes(), func(n broker.Node) bool { return n.Name == node })
}
