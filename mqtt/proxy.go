package mqtt

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	proxyTimeout = 2 * time.Second
	maxProxyV1   = 107 // bytes of a line, section 2.1 of the PROXY protocol
	minProxyV1   = len("PROXY UNKNOWN\r\n")
	maxProxyV2   = 536 - proxyV2Head // bytes after the head, among them what we do not read
	proxyV2Head  = 16
)

const proxyV2Mark = "\r\n\r\n\x00\r\nQUIT\n"

// proxied takes the PROXY header, version 1 or 2, of a connection from one of
// the addresses that may send it; there it must come. From then on the address
// that it names is the client's.
func (c *conn) proxied(from []netip.Prefix) error {
	peer, _ := netip.ParseAddr(c.host)
	known := false
	for _, p := range from {
		known = known || p.Contains(peer.Unmap())
	}
	if !known {
		return &faultError{success, "PROXY protocol from an address that is not listed", closeProxy}
	}
	if err := c.until(c.accepted.Add(min(proxyTimeout, c.srv.o.ConnectTimeout))); err != nil {
		return err
	}
	addr, err := readProxy(c.Conn)
	if err != nil {
		return c.handshakeFailed("PROXY header", closeProxy, err)
	}
	if err := c.arm(); err != nil {
		return err
	}
	if addr.IsValid() { // otherwise the proxy speaks for itself
		c.remote, c.host = addr.String(), addr.Addr().String()
	}
	if !c.srv.book(c) {
		return &faultError{success, "too many connections of the address", closeAddress}
	}
	return nil
}

type proxyError string

func (e proxyError) Error() string { return string(e) }

// readProxy reads a header and not a byte more. The address is invalid where
// the proxy speaks for itself, or of a family that is not IP.
func readProxy(r io.Reader) (netip.AddrPort, error) {
	var b [maxProxyV1]byte
	if _, err := io.ReadFull(r, b[:minProxyV1]); err != nil {
		return netip.AddrPort{}, err
	}
	if string(b[:len(proxyV2Mark)]) == proxyV2Mark {
		return readProxyV2(r, b[:])
	}
	n := minProxyV1
	for !bytes.HasSuffix(b[:n], []byte("\r\n")) {
		if n == len(b) || string(b[:6]) != "PROXY " {
			return netip.AddrPort{}, proxyError("no PROXY header")
		}
		if _, err := io.ReadFull(r, b[n:n+1]); err != nil {
			return netip.AddrPort{}, err
		}
		n++
	}
	return parseProxyV1(string(b[:n-2]))
}

// parseProxyV1 reads "PROXY TCP4 192.0.2.1 192.0.2.2 4711 1883".
func parseProxyV1(line string) (netip.AddrPort, error) {
	f := strings.Split(line, " ")
	if len(f) < 2 || f[0] != "PROXY" {
		return netip.AddrPort{}, proxyError("no PROXY header")
	}
	if f[1] == "UNKNOWN" {
		return netip.AddrPort{}, nil
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return netip.AddrPort{}, proxyError("PROXY line is malformed")
	}
	source, err := netip.ParseAddr(f[2])
	target, err2 := netip.ParseAddr(f[3])
	port, err3 := strconv.ParseUint(f[4], 10, 16)
	_, err4 := strconv.ParseUint(f[5], 10, 16)
	if err != nil || err2 != nil || err3 != nil || err4 != nil || source.Zone() != "" ||
		source.Is4() != (f[1] == "TCP4") || target.Is4() != source.Is4() {
		return netip.AddrPort{}, proxyError("PROXY line is malformed")
	}
	return netip.AddrPortFrom(source.Unmap(), uint16(port)), nil
}

// readProxyV2 reads the rest of a binary header; b has its first bytes.
func readProxyV2(r io.Reader, b []byte) (netip.AddrPort, error) {
	if _, err := io.ReadFull(r, b[minProxyV1:proxyV2Head]); err != nil {
		return netip.AddrPort{}, err
	}
	command, family, length := b[12], b[13], int(binary.BigEndian.Uint16(b[14:]))
	if command != 0x20 && command != 0x21 || length > maxProxyV2 {
		return netip.AddrPort{}, proxyError("PROXY header is malformed")
	}
	rest := make([]byte, length)
	if _, err := io.ReadFull(r, rest); err != nil {
		return netip.AddrPort{}, err
	}
	size := 0 // of one address
	switch {
	case command == 0x20: // LOCAL: the proxy's own
		return netip.AddrPort{}, nil
	case family == 0x11:
		size = 4
	case family == 0x21:
		size = 16
	default:
		return netip.AddrPort{}, nil
	}
	if length < 2*size+4 {
		return netip.AddrPort{}, proxyError("PROXY header is malformed")
	}
	source, _ := netip.AddrFromSlice(rest[:size])
	return netip.AddrPortFrom(source.Unmap(), binary.BigEndian.Uint16(rest[2*size:])), nil
}

// hostOf is the part of an address that limits count by.
func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}
