package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"millrace/cmd/millrace/config"
)

// opened is a listener that is open. Its name is that of the flag, without
// -listen: mqtt, mqtt-tls, mqtt-ws, mqtt-wss, mqtt-unix, http, emqx, fastqueue,
// memfifo.
type opened struct{ name, addr string }

// exposed are the listeners without TLS that other machines reach.
func exposed(open []opened) (plain []opened) {
	for _, l := range open {
		host, _, err := net.SplitHostPort(l.addr) // a Unix socket has none
		if err == nil && !config.Loopback(host) && !slices.Contains(secure, l.name) {
			plain = append(plain, l)
		}
	}
	return plain
}

// secure names the listeners with TLS.
var secure = []string{"mqtt-tls", "mqtt-wss", "https"}

// writePorts writes the chosen addresses as {"mqtt": "127.0.0.1:1883", …}. The
// file appears whole, so that a script can wait for it.
func writePorts(path string, open []opened) error {
	m := map[string]string{}
	for _, o := range open {
		m[o.name] = o.addr
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write the ports file: %w", err)
	}
	return writeWhole(path, append(text, '\n'), 0o644)
}

// writeWhole writes a file under another name first, so that nobody sees half
// of it.
func writeWhole(path string, text []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // it was renamed, unless something failed
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
