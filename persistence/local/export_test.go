package local

// Quiet reports whether everything noted is written and the writer sleeps.
func (s *Store) Quiet() bool {
	s.box.mu.Lock()
	alert := s.box.alert
	s.box.mu.Unlock()
	return !alert && s.journal.State().Pending == 0
}
