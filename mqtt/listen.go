package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
)

// Listener is one address to listen on, and what its connections begin with.
type Listener struct {
	// Address is host:port, port 0 takes a free one, or "unix:" and the path of
	// a Unix socket.
	Address string
	// Mode is that of a Unix socket's file: who may connect.
	Mode fs.FileMode
	// AllowAnonymous lets clients in that name no user known here.
	AllowAnonymous bool
	// Proxy lists who may, and then must, begin with a PROXY header that names
	// the client's address; nil = nobody.
	Proxy []netip.Prefix
	TLS   *tls.Config // nil = plain
	// Identity returns the name of the user in a client's certificate, "" where
	// it showed none; nil asks no certificate.
	Identity func(tls.ConnectionState) (string, error)
	// WebSocket has packets in the binary frames of RFC 6455, sub-protocol mqtt
	// or mqttv3.1, at / and /mqtt.
	WebSocket bool
	// Origins are those of web pages that may connect, besides our own host's.
	Origins []string
}

// ListenError says which listener could not be opened.
type ListenError struct {
	At      int // in Options.Listeners
	Address string
	Err     error
}

func (e *ListenError) Error() string { return "mqtt: listen on " + e.Address + ": " + e.Err.Error() }

// Unwrap returns why.
func (e *ListenError) Unwrap() error { return e.Err }

const unixPrefix = "unix:"

func (o *Listener) unix() bool { return strings.HasPrefix(o.Address, unixPrefix) }

func (o *Listener) listen() (net.Listener, error) {
	path, ok := strings.CutPrefix(o.Address, unixPrefix)
	if !ok {
		return new(net.ListenConfig).Listen(context.Background(), "tcp", o.Address)
	}
	return listenUnix(path, o.Mode)
}

// listenUnix opens a socket that is usable only once it has its mode. A file
// that an earlier process left is taken away; anything else at path stays.
func listenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is a file of another kind: choose another path, or take it away", path)
	default:
		if c, err := new(net.Dialer).DialContext(context.Background(), "unix", path); err == nil {
			_ = c.Close() // it only showed that somebody listens
			return nil, &net.OpError{Op: "listen", Net: "unix", Addr: &net.UnixAddr{Name: path, Net: "unix"}, Err: syscall.EADDRINUSE}
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	made := path + ".new"
	if err := os.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // it goes by its own name
	err = os.Chmod(made, mode)
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(made))
	}
	return &unixListener{l, path}, nil
}

// unixListener takes its file away when it closes.
type unixListener struct {
	*net.UnixListener
	path string
}

// Addr is where clients find it.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close implements net.Listener.
func (l *unixListener) Close() error { return errors.Join(l.UnixListener.Close(), os.Remove(l.path)) }
