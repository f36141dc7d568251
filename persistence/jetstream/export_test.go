package jetstream

// Crash ends the process of s, as far as the servers and its prefix can tell:
// nothing is written, and nobody is told.
func (s *Store) Crash() {
	s.stop()
	s.nc.Close()
}
