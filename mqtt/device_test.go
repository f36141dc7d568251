package mqtt_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"millrace/mqtt"
)

// device is a client that keeps its part of the session: it knows which QoS 2
// messages it has, whatever happens to its connections.
type device struct {
	tb   testing.TB
	e    *edge
	v5   bool
	id   string
	has  map[uint16]bool // QoS 2 messages received and not released
	got  []message       // in order; repeats of QoS 1 as well
	conn *raw
}

// connect takes the place of the connection before, if it is still open.
func (d *device) connect() {
	d.tb.Helper()
	if d.has == nil {
		d.has = map[uint16]bool{}
	}
	d.conn, _ = keptIn(d.tb, d.e, d.v5, d.id, false, 3600)
}

// step takes one packet, and answers it unless ack is false; it reports whether
// there was one.
func (d *device) step(ack bool) bool {
	head, body, err := d.conn.read()
	if err != nil {
		return false
	}
	var answer []byte
	switch head >> 4 {
	case 3:
		m := d.conn.parse(head, body)
		id := []byte{byte(m.id >> 8), byte(m.id)}
		if m.qos == 2 {
			if !d.has[m.id] {
				d.got = append(d.got, m)
			}
			d.has[m.id] = true
			answer = append([]byte{0x50, 2}, id...)
		} else {
			d.got = append(d.got, m)
			answer = append([]byte{0x40, 2}, id...)
		}
	case 6:
		delete(d.has, uint16(body[0])<<8|uint16(body[1]))
		answer = []byte{0x70, 2, body[0], body[1]}
	}
	if ack && answer != nil {
		_, _ = d.conn.Write(answer)
	}
	return true
}

// TestNothingIsLostInTakeovers has a subscriber that connects again and again,
// with the connection before still open, while messages come.
func TestNothingIsLostInTakeovers(t *testing.T) { // B4, B6
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprint("qos=", qos), func(t *testing.T) {
			const n, reconnects = 4000, 100
			e := open(t, func(o *mqtt.Options) { o.RivalsFrom = -1 }) // one device that comes back in a hurry
			d := &device{tb: t, e: e, v5: true, id: "sub"}
			d.connect()
			d.conn.subscribe(1, qos, "t")
			p := login(t, e, true, "pub")
			var wg sync.WaitGroup
			wg.Go(func() { publishMany(p, n, qos) })
			r := rand.New(rand.NewPCG(1, uint64(qos)))
			for k := 0; ; k++ {
				for i := r.IntN(2 * n / reconnects); i > 0; i-- {
					_ = d.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
					if !d.step(r.IntN(10) > 0) {
						break
					}
				}
				if k >= reconnects {
					break
				}
				d.connect()
			}
			wg.Wait()
			d.connect()
			_ = d.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			for last := ""; last != strconv.Itoa(n-1); last = d.got[len(d.got)-1].payload {
				if !d.step(true) {
					t.Fatalf("the last that came of %d is %q", n, last)
				}
			}
			if fault := inOrder(d.got, n, qos); fault != "" {
				t.Error(fault)
			}
		})
	}
}

// publishMany publishes 0 to n-1 and waits for the acknowledgements.
func publishMany(p *raw, n int, qos byte) {
	for i := range n {
		id := uint16(i%60_000 + 1)
		_, _ = p.Write(p.publishPacket("t", strconv.Itoa(i), qos, id))
		if _, _, err := p.read(); err != nil {
			return
		}
		if qos == 2 {
			_, _ = p.Write([]byte{0x62, 2, byte(id >> 8), byte(id)})
			_, _, _ = p.read()
		}
	}
}

// inOrder says what is wrong with what a device got of 0 to n-1: each for the
// first time in order, and repeats in QoS 1 only, marked as such.
func inOrder(got []message, n int, qos byte) string {
	next := 0
	for _, m := range got {
		k, _ := strconv.Atoi(m.payload)
		switch {
		case k == next:
			next++
		case k > next:
			return fmt.Sprintf("%d came before %d", k, next)
		case qos == 2:
			return fmt.Sprintf("%d came twice", k)
		case !m.dup:
			return fmt.Sprintf("%d came again without DUP", k)
		}
	}
	if next != n {
		return fmt.Sprintf("%d of %d came", next, n)
	}
	return ""
}

// TestADeepBacklogDrainsInOrder has more waiting than there are packet ids, and
// a restart in between.
func TestADeepBacklogDrainsInOrder(t *testing.T) {
	const n = 70_000
	dir := t.TempDir()
	e := openDir(t, dir)
	d := &device{tb: t, e: e, v5: true, id: "sub"}
	d.connect()
	d.conn.subscribe(1, 1, "t")
	e.offline(t, d.conn)
	p := login(t, e, false, "pub")
	_ = p.SetDeadline(time.Now().Add(patience))
	const chunk = 1000
	acks := make([]byte, 4*chunk)
	for i := 0; i < n; i += chunk {
		var b []byte
		for k := range chunk {
			b = append(b, p.publishPacket("t", strconv.Itoa(i+k), 1, uint16(k+1))...)
		}
		p.send(b)
		if _, err := io.ReadFull(p.br, acks); err != nil {
			t.Fatal(err)
		}
	}
	e.stop(t)
	e = openDir(t, dir)
	d.e = e
	d.connect()
	_ = d.conn.SetDeadline(time.Now().Add(patience))
	for len(d.got) < n {
		if !d.step(true) {
			t.Fatalf("%d of %d came", len(d.got), n)
		}
	}
	if fault := inOrder(d.got, n, 1); fault != "" {
		t.Error(fault)
	}
	d.conn.quiet()
}
