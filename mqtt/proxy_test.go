package mqtt_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/mqtt"
)

const proxyMark = "\r\n\r\n\x00\r\nQUIT\n"

// proxyV2 builds a binary header.
func proxyV2(command, family byte, body string) string {
	b := append([]byte(proxyMark), command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(body)))) + body
}

func openProxied(t *testing.T, from string, change ...func(*mqtt.Options)) *edge {
	t.Helper()
	return open(t, append(change, func(o *mqtt.Options) {
		o.Listeners = []mqtt.Listener{{Address: "127.0.0.1:0", AllowAnonymous: true, Proxy: []netip.Prefix{netip.MustParsePrefix(from)}}}
	})...)
}

func TestProxyHeaders(t *testing.T) { // X177
	e := openProxied(t, "127.0.0.0/8", func(o *mqtt.Options) { o.CloseOnDeny = true })
	inet := "\xC0\x00\x02\x01\xC0\x00\x02\x02\x12\x67\x07\x5B" // 192.0.2.1:4711 to 192.0.2.2:1883
	inet6 := strings.Repeat("\x20\x01\x0D\xB8"+strings.Repeat("\x00", 11)+"\x07", 2) + "\x12\x67\x07\x5B"
	for _, row := range []struct{ header, remote string }{
		{"PROXY TCP4 192.0.2.1 192.0.2.2 4711 1883\r\n", "192.0.2.1:4711"},
		{"PROXY TCP6 2001:db8::7 2001:db8::8 4711 1883\r\n", "[2001:db8::7]:4711"},
		{"PROXY UNKNOWN\r\n", "127.0.0.1:"},
		{"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "127.0.0.1:"},
		{proxyV2(0x21, 0x11, inet), "192.0.2.1:4711"},
		{proxyV2(0x21, 0x11, inet+strings.Repeat("\x04\x00\x05tlv!", 64)), "192.0.2.1:4711"},
		{proxyV2(0x21, 0x21, inet6), "[2001:db8::7]:4711"},
		{proxyV2(0x20, 0x00, ""), "127.0.0.1:"},
		{proxyV2(0x21, 0x31, strings.Repeat("\x00", 216)), "127.0.0.1:"},

		{"PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n", ""},
		{"PROXY TCP4 2001:db8::7 2001:db8::8 4711 1883\r\n", ""},
		{"PROXY TCP4 192.0.2.1 192.0.2.2 99999 1883\r\n", ""},
		{"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", ""},
		{"PROXY TCP4 " + strings.Repeat("1", 120) + "\r\n", ""},
		{"PROXY UDP4 192.0.2.1 192.0.2.2 4711 1883\r\n", ""},
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		{proxyV2(0x21, 0x11, inet[:8]), ""},
		{proxyV2(0x31, 0x11, inet), ""},
		{proxyMark + "\x21\x11\xFF\xFF" + strings.Repeat("x", 1000), ""},
		{string(connectPacket(false, "c", nil)), ""},
	} {
		r := dial(t, e)
		r.send([]byte(row.header))
		if row.remote == "" {
			r.wantEnd(0)
			continue
		}
		r.send(connectPacket(false, "c", nil))
		r.want("20 02 00 00")
		r.publish("$SYS/x", "x", 0, 0) // which closes the connection, and logs
		r.wantEnd(0)
		want := fmt.Sprintf(`"remote":"%s`, row.remote)
		eventually(t, want, func() bool { return strings.Contains(e.log.String(), want) })
	}
}

func TestProxyHeaderFromAStranger(t *testing.T) { // X176
	e := openProxied(t, "192.0.2.0/24")
	r := dial(t, e)
	r.send([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 4711 1883\r\n"))
	r.wantEnd(0)
	eventually(t, "counted", func() bool { return e.Stats().Refused["proxy"] == 1 })
}

func TestProxyHeaderWithoutAListener(t *testing.T) { // X176
	e := open(t)
	r := dial(t, e)
	r.send([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 4711 1883\r\n"))
	r.wantEnd(0)
}

func TestNoProxyHeaderInTime(t *testing.T) { // X179
	e := openProxied(t, "127.0.0.1/32")
	start := time.Now()
	dial(t, e).wantEnd(0)
	if took := time.Since(start); took < 1900*time.Millisecond || took > 20*time.Second {
		t.Errorf("closed after %v, want 2 s", took)
	}
}

func TestLimitsCountTheProxiedAddress(t *testing.T) { // X178
	e := openProxied(t, "127.0.0.0/8", func(o *mqtt.Options) { o.MaxPerAddress = 2 })
	connect := func(addr string, ok bool) {
		t.Helper()
		r := dial(t, e)
		r.send([]byte("PROXY TCP4 " + addr + " 192.0.2.2 4711 1883\r\n"))
		r.send(connectPacket(false, "", nil))
		if ok {
			r.want("20 02 00 00")
		} else {
			r.wantEnd(0)
		}
	}
	for range 2 {
		connect("192.0.2.1", true)
		connect("192.0.2.7", true)
	}
	connect("192.0.2.1", false)
	connect("192.0.2.8", true)
	eventually(t, "counted", func() bool { return e.Stats().Refused["address"] == 1 })
}

func TestUnixSocketFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mqtt.sock")
	on := func(path string) mqtt.Options {
		return mqtt.Options{Broker: open(t).broker, Listeners: []mqtt.Listener{{Address: "unix:" + path, Mode: 0o660}}}
	}
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}) // of a process that was killed
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	_ = left.Close()
	s, err := mqtt.Listen(on(path))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("the file is %v, %v", info, err)
	}
	if _, err := mqtt.Listen(on(path)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second listener gets %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := mqtt.Listen(on(path)); err == nil || !strings.Contains(err.Error(), "another kind") {
		t.Errorf("in place of a file: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "mine" {
		t.Error("the file is gone")
	}
}

func TestAddressLimitSparesUnixSockets(t *testing.T) {
	p := openPlaces(t, func(o *mqtt.Options) { o.MaxPerAddress = 1 })
	for range 3 {
		r := p.dial(t, "unix")
		r.send(connectPacket(false, "", nil))
		r.want("20 02 00 00")
	}
}
