package mqtt

import (
	"sync"
	"time"

	"millrace/broker"
)

// keeper is the one goroutine that does for all consumers what a store's
// callback must not do, and what time brings: it gives messages back, and
// extends leases. It sleeps while no client has one.
type keeper struct {
	s    *Server
	wake chan struct{}
	stop chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	back    []returning  // reached nobody
	kicks   []*taking    // ask again
	refused []broker.Ref // cannot be delivered to the one that took it
	dropped []dropped    // nor to anybody
	sent    []sentID
	numbers []numbered
	shares  []string // shared subscriptions that have a backlog since
	leases  bool     // there may be leases to extend
	stopped bool
}

func (k *keeper) start(s *Server) {
	k.s, k.wake, k.stop = s, make(chan struct{}, 1), make(chan struct{})
	k.done.Go(k.run)
}

// close ends the goroutine, after the last connection.
func (k *keeper) close() {
	k.mu.Lock()
	again := k.stopped
	k.stopped = true
	k.mu.Unlock()
	if !again && k.stop != nil {
		close(k.stop)
	}
	k.done.Wait()
}

// returning is a delivery that goes back, and who took it, if that is to know.
type returning struct {
	ref broker.Ref
	of  *taking
}

// giveBack returns deliveries that reached nobody; of, if not nil, is told of each.
func (k *keeper) giveBack(of *taking, refs []broker.Ref) {
	if len(refs) == 0 {
		return
	}
	k.mu.Lock()
	for _, r := range refs {
		k.back = append(k.back, returning{r, of})
	}
	k.mu.Unlock()
	k.tell()
}

// kick lets t see its credit.
func (k *keeper) kick(t *taking) {
	k.mu.Lock()
	k.kicks = append(k.kicks, t)
	k.mu.Unlock()
	k.tell()
}

// refuse gives a delivery back with its attempt counted: another try of the
// same client would end in the same way.
func (k *keeper) refuse(r broker.Ref) {
	k.mu.Lock()
	k.refused = append(k.refused, r)
	k.mu.Unlock()
	k.tell()
}

// dropped is a delivery that reaches nobody, and why.
type dropped struct {
	ref broker.Ref
	why broker.Reason
}

// drop removes a delivery that its only receiver must not or cannot have.
func (k *keeper) drop(r broker.Ref, why broker.Reason) {
	k.mu.Lock()
	k.dropped = append(k.dropped, dropped{r, why})
	k.mu.Unlock()
	k.tell()
}

// sentID is the packet id of a QoS 2 delivery that the broker does not keep for
// the client: one that never hears of it again must be told to forget the id.
type sentID struct {
	of *broker.Session
	id uint16
}

// note has the broker remember such an id.
func (k *keeper) note(of *broker.Session, id uint16) {
	k.mu.Lock()
	k.sent = append(k.sent, sentID{of, id})
	k.mu.Unlock()
	k.tell()
}

// numbered is a message of a session with the packet id that it is to have.
type numbered struct {
	s   *session
	seq uint64
	id  uint16
}

// renumber has the id recorded; the session is told.
func (k *keeper) renumber(s *session, seq uint64, id uint16) {
	k.mu.Lock()
	k.numbers = append(k.numbers, numbered{s, seq, id})
	k.mu.Unlock()
	k.tell()
}

// reopen says that a shared subscription has a backlog now, on this node or another.
func (k *keeper) reopen(filter string) {
	k.mu.Lock()
	k.shares = append(k.shares, filter)
	k.mu.Unlock()
	k.tell()
}

// watch says that a lease was taken.
func (k *keeper) watch(fixed bool) {
	if fixed {
		return
	}
	k.mu.Lock()
	had := k.leases
	k.leases = true
	k.mu.Unlock()
	if !had {
		k.tell()
	}
}

func (k *keeper) tell() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) run() {
	tick := time.NewTimer(extendEvery)
	defer tick.Stop()
	tick.Stop()
	ticking := false
	for {
		select {
		case <-k.stop:
			k.settle()
			return
		case <-k.wake:
			k.settle()
		case <-tick.C:
			ticking = false
			k.extend()
		}
		k.mu.Lock()
		leases := k.leases
		k.mu.Unlock()
		if leases && !ticking {
			ticking = true
			tick.Reset(extendEvery)
		}
	}
}

// settle gives back what has gathered.
func (k *keeper) settle() {
	k.mu.Lock()
	back, kicks, refused, dropped, sent, numbers := k.back, k.kicks, k.refused, k.dropped, k.sent, k.numbers
	shares := k.shares
	k.back, k.kicks, k.refused, k.dropped, k.sent, k.numbers, k.shares = nil, nil, nil, nil, nil, nil, nil
	k.mu.Unlock()
	for _, filter := range shares {
		k.s.openGroup(filter)
	}
	st := k.s.o.Broker.NewSettlements()
	for _, r := range back {
		var done func(error)
		if r.of != nil {
			done = r.of.returned
		}
		st.Return(r.ref, done)
	}
	for _, r := range refused {
		st.Nack(r)
	}
	for _, d := range dropped {
		st.Drop(d.ref, d.why)
	}
	for _, n := range sent {
		st.Sent(n.of, n.id)
	}
	for _, n := range numbers {
		st.Renumber(n.s.kept, n.seq, n.id, func(err error) { n.s.renumbered(n.seq, n.id, err) })
	}
	st.Submit()
	for _, t := range kicks {
		t.c.Kick()
	}
}

// extend prolongs every lease that a connected client holds.
func (k *keeper) extend() {
	k.mu.Lock()
	k.leases = false // unless one is found, or taken meanwhile
	k.mu.Unlock()
	st := k.s.o.Broker.NewSettlements()
	var refs []broker.Ref
	for _, c := range k.s.loggedIn() {
		refs = c.session.leases(refs[:0])
		for _, r := range refs {
			st.Extend(r)
		}
	}
	for _, g := range k.s.allGroups() {
		for _, r := range g.leases(refs[:0]) {
			st.Extend(r)
		}
	}
	if st.Len() > 0 {
		k.watch(false)
	}
	st.Submit()
}
