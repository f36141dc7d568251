package mqtt_test

import (
	"bytes"
	"testing"

	"millrace/mqtt"
)

// TestAClientThatAcknowledgesLateGetsItsWindow has more waiting than the output
// holds, and a client that answers when its window is full.
func TestAClientThatAcknowledgesLateGetsItsWindow(t *testing.T) {
	const n = 200
	e := open(t, func(o *mqtt.Options) { o.MaxOutput = 64 << 10 })
	s, _ := keptIn(t, e, false, "s", false, 3600)
	s.subscribe(1, 1, "t")
	e.offline(t, s)
	e.put(t, "t", slicesOf(n, bytes.Repeat([]byte("x"), 8<<10))...)
	s = resumed(t, e, false, "s")
	for range n {
		s.recv()
	}
	s.quiet()
}

// slicesOf is n times the text.
func slicesOf(n int, text []byte) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = string(text)
	}
	return all
}
