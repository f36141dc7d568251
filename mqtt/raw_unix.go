//go:build unix

package mqtt

import (
	"errors"
	"io"
	"syscall"
)

// rawReader reads a socket without waiting, and waits without a buffer: an idle
// connection holds none. Anything but a socket is read the ordinary way.
type rawReader struct {
	rc    syscall.RawConn
	asked bool
	p     []byte
	n     int
	err   error
	try   func(uintptr) bool
	peek  func(uintptr) bool
	woken bool
	one   [1]byte
}

func (r *rawReader) init(sock io.Reader) {
	r.asked = true
	s, ok := sock.(syscall.Conn)
	if !ok {
		return
	}
	if rc, err := s.SyscallConn(); err == nil {
		r.rc = rc
		r.try, r.peek = r.tryOnce, r.waitOnce
	}
}

// read takes what is there; ok is false, without an error, when that is nothing.
func (r *rawReader) read(sock io.Reader, p []byte) (n int, ok bool, err error) {
	if !r.asked {
		r.init(sock)
	}
	if r.rc == nil {
		if !r.woken {
			return 0, false, nil // so that the caller flushes first
		}
		r.woken = false
		n, err = sock.Read(p)
		return n, true, err
	}
	r.p = p
	if err := r.rc.Read(r.try); err != nil {
		return 0, false, err
	}
	n, err, r.p, r.err = r.n, r.err, nil, nil
	if errors.Is(err, syscall.EAGAIN) {
		return 0, false, nil
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), true, err
}

func (r *rawReader) tryOnce(fd uintptr) bool {
	for {
		r.n, r.err = syscall.Read(int(fd), r.p)
		if !errors.Is(r.err, syscall.EINTR) {
			return true
		}
	}
}

// wait returns when the socket has something to read, or an error.
func (r *rawReader) wait(io.Reader) error {
	if r.rc == nil {
		r.woken = true
		return nil
	}
	r.woken = false
	return r.rc.Read(r.peek)
}

// waitOnce is called at once, and again when the poller says that the socket
// is ready. It must look the first time: what came before the poller was set
// up is not told again.
func (r *rawReader) waitOnce(fd uintptr) bool {
	if r.woken {
		return true
	}
	r.woken = true
	_, _, err := syscall.Recvfrom(int(fd), r.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return !errors.Is(err, syscall.EAGAIN)
}
