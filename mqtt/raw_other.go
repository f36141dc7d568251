//go:build !unix

package mqtt

import "io"

// rawReader reads in the ordinary way, holding a buffer while it waits.
type rawReader struct{ woken bool }

// read reports nothing at first, so that the caller flushes before it waits.
func (r *rawReader) read(sock io.Reader, p []byte) (n int, ok bool, err error) {
	if !r.woken {
		return 0, false, nil
	}
	r.woken = false
	n, err = sock.Read(p)
	return n, true, err
}

func (r *rawReader) wait(io.Reader) error {
	r.woken = true
	return nil
}
