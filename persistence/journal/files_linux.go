package journal

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const maxVector = 1024 // IOV_MAX

// WriteAt is pwritev, called again for what a short write left over.
func (o *osFile) WriteAt(off int64, bufs ...[]byte) error {
	for len(bufs) > 0 {
		vector := bufs[:min(len(bufs), maxVector)]
		n, err := unix.Pwritev(int(o.f.Fd()), vector, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return &os.PathError{Op: "write", Path: o.f.Name(), Err: err}
		}
		off += int64(n)
		bufs = rest(bufs, n)
	}
	return nil
}

// rest returns what remains of bufs after n bytes. A buffer that was written in
// part is shortened in a copy of the list, which belongs to the caller.
func rest(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n == 0 {
		return bufs
	}
	left := append([][]byte(nil), bufs...)
	left[0] = left[0][n:]
	return left
}

// SyncData is fdatasync. It is repeated only when a signal interrupted it
// before it reported anything.
func (o *osFile) SyncData() error {
	for {
		err := unix.Fdatasync(int(o.f.Fd()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "fdatasync", Path: o.f.Name(), Err: err}
		}
		return nil
	}
}

// WriteZeros writes around the page cache where the file system allows: nobody
// will read these bytes, and copying them costs as much processor time as the
// records that will replace them.
func (o *osFile) WriteZeros(off, n int64) error {
	fd, err := unix.Open(o.f.Name(), unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return o.WriteAt(off, zeros[:n])
	}
	direct := os.NewFile(uintptr(fd), o.f.Name())
	_, err = direct.WriteAt(zeros[:n], off)
	if err := errors.Join(err, direct.Close()); errors.Is(err, unix.EINVAL) {
		return o.WriteAt(off, zeros[:n]) // the device wants another alignment
	}
	return err
}

// allocate is fallocate where the file system has it, and nothing elsewhere.
func (o *osFile) allocate(size int64) error {
	for {
		err := unix.Fallocate(int(o.f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil, errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return nil
		}
		return &os.PathError{Op: "fallocate", Path: o.f.Name(), Err: err}
	}
}
