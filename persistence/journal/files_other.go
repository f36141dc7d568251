//go:build !linux

package journal

func (o *osFile) WriteAt(off int64, bufs ...[]byte) error { return writeEach(o.f, off, bufs) }

// SyncData is the strongest sync that the standard library offers.
func (o *osFile) SyncData() error { return o.f.Sync() }
