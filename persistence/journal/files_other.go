//go:build !linux

package journal

// WriteAt writes one buffer after the other.
func (o *osFile) WriteAt(off int64, bufs ...[]byte) error {
	for _, b := range bufs {
		n, err := o.f.WriteAt(b, off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// SyncData is the strongest sync that the standard library offers.
func (o *osFile) SyncData() error { return o.f.Sync() }
