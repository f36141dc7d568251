package mqtt_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"

	"millrace/broker/auth"
	"millrace/mqtt"

	"github.com/rs/zerolog"
)

func silent(o *mqtt.Options) { o.Log = zerolog.Nop() }

// BenchmarkIngest publishes with many in flight, over one connection. The time
// and allocations are those of client and broker together; the client here is
// cheap: it writes packets made before, and counts the bytes of acks.
func BenchmarkIngest(b *testing.B) {
	for _, qos := range []byte{0, 1} {
		for _, stored := range []string{"no", "memory", "disk"} {
			b.Run(fmt.Sprintf("qos=%d/stored=%v", qos, stored), func(b *testing.B) {
				dir := ""
				if stored == "disk" {
					dir = b.TempDir()
				}
				e := openDir(b, dir, silent)
				if stored != "no" {
					e.queue(b, "q", "#")
				}
				r := login(b, e, false, "c")
				_ = r.SetDeadline(noDeadline)
				const window = 500
				var chunk []byte
				for i := range uint16(window) {
					chunk = append(chunk, r.publishPacket("devices/1/temperature", strings.Repeat("x", 256), qos, i+1)...)
				}
				if qos == 0 {
					chunk = append(chunk, 0xC0, 0)
				}
				acks := make([]byte, 4*window)
				if qos == 0 {
					acks = acks[:2]
				}
				b.ReportAllocs()
				b.ResetTimer()
				start := cpu()
				for i := 0; i < b.N; i += window {
					if _, err := r.Write(chunk); err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(r.br, acks); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// BenchmarkFanOut publishes to n subscribers; an op is one delivery.
func BenchmarkFanOut(b *testing.B) {
	for _, qos := range []byte{0, 1} {
		for _, n := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("qos=%d/subscribers=%d", qos, n), func(b *testing.B) { fanOut(b, qos, n) })
			b.Run(fmt.Sprintf("qos=%d/subscribers=%d/rules", qos, n), func(b *testing.B) { fanOut(b, qos, n, overlapping...) })
		}
	}
}

// overlapping are denies in every subscription of the fan-out, so that each
// delivery is asked about.
var overlapping = func() (rules []auth.Rule) {
	for i := range 20 {
		rules = append(rules, deny("subscribe", fmt.Sprintf("devices/+/secret-%d/#", i)), deny("subscribe", fmt.Sprintf("devices/%%c/%d", i)))
	}
	return rules
}()

func fanOut(b *testing.B, qos byte, n int, rules ...auth.Rule) {
	b.Helper()
	e := open(b, silent)
	e.rules(b, rules...)
	const window = 100
	payload := strings.Repeat("x", 256)
	r := login(b, e, false, "pub")
	_ = r.SetDeadline(noDeadline)
	var chunk []byte
	for i := range uint16(window) {
		chunk = append(chunk, r.publishPacket("devices/1/temperature", payload, qos, i+1)...)
	}
	size := len(chunk) / window
	turn := make(chan struct{}, n)
	for i := range n {
		s := login(b, e, false, fmt.Sprint("sub", i))
		_ = s.SetDeadline(noDeadline)
		s.subscribe(1, qos, "devices/#")
		go func() {
			buf := make([]byte, size*window)
			acks := make([]byte, 4*window)
			for {
				if _, err := io.ReadFull(s.br, buf); err != nil {
					return
				}
				if qos > 0 {
					for k := range window {
						at := k*size + size - len(payload) - 2
						copy(acks[4*k:], []byte{0x40, 2, buf[at], buf[at+1]})
					}
					_, _ = s.Write(acks)
				}
				turn <- struct{}{}
			}
		}()
	}
	acks := make([]byte, 4*window)
	b.ReportAllocs()
	b.ResetTimer()
	start := cpu()
	for i := 0; i < b.N; i += window * n {
		if _, err := r.Write(chunk); err != nil {
			b.Fatal(err)
		}
		if qos > 0 {
			_, _ = io.ReadFull(r.br, acks)
		}
		for range n {
			<-turn
		}
	}
	b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
}

// BenchmarkConnect connects clients with clean sessions and no password, one after
// the other, and closes them; bare is the same with a server that answers at once
// and knows nothing, which is what sockets and the client cost.
func BenchmarkConnect(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		go func() { // ends with the listener
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					p := make([]byte, 64)
					for n, err := c.Read(p); n > 0 && err == nil; n, err = c.Read(p) {
						_, _ = c.Write([]byte{0x20, 2, 0, 0})
					}
					_ = c.Close()
				}()
			}
		}()
		connects(b, l.Addr().String())
	})
	b.Run("server", func(b *testing.B) {
		e := open(b, silent)
		connects(b, e.Addr().String())
		eventually(b, "all ends", func() bool { return e.Stats().Open == 0 })
	})
}

func connects(b *testing.B, addr string) {
	b.Helper()
	packets := make([][]byte, 1000)
	for i := range packets {
		packets[i] = connectPacket(false, fmt.Sprint("client-", i), nil)
	}
	answer := make([]byte, 4)
	b.ReportAllocs()
	b.ResetTimer()
	start := cpu()
	for i := range b.N {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = c.Write(packets[i%len(packets)])
		if _, err := io.ReadFull(c, answer); err != nil {
			b.Fatal(err)
		}
		_ = c.Close()
	}
	b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
}

// BenchmarkIdleConnection reports the memory of a connected client with one
// subscription, after a garbage collection.
func BenchmarkIdleConnection(b *testing.B) {
	const n = 2000
	for b.Loop() {
		e := open(b, silent)
		before := memory()
		rs := make([]*raw, n)
		for i := range rs {
			rs[i] = login(b, e, true, fmt.Sprint("idle", i))
			rs[i].subscribe(1, 1, fmt.Sprint("idle/", i))
			rs[i].br = nil // the client's 4 KiB are not ours
		}
		heap, stack := memory().sub(before)
		b.ReportMetric(float64(heap)/n, "heap-B/conn")
		b.ReportMetric(float64(stack)/n, "stack-B/conn")
		for _, r := range rs {
			_ = r.Close()
		}
		_ = e.Close(context.Background())
	}
}

type mem struct{ heap, stack uint64 }

func memory() mem {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return mem{m.HeapAlloc, m.StackInuse}
}

func (m mem) sub(b mem) (heap, stack uint64) { return m.heap - b.heap, m.stack - b.stack }
