package jetstream

import "millrace/broker"

// deliver ends a wait, on a goroutine of its own: the caller may hold locks.
func (s *Store) deliver(w *broker.Wait) { go s.deliverNow(w) }

// deliverNow ends a wait, and goes on with it if it is to.
func (s *Store) deliverNow(w *broker.Wait) { s.waits.Deliver(w, s.Receive, s.withdraw) }
