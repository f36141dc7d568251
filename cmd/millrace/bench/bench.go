// Package bench is the load generator: it loads a broker through its public
// protocols, from a process of its own, and tells what a message costs.
package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"millrace/cmd/millrace/wire"
)

// Options are common to all loads.
type Options struct {
	MQTT        string     // address
	Login       wire.Login // ClientID is a prefix
	URL, Key    string     // of /api/v1
	Queue       string     // made when missing, fed by Topic/#
	Topic       string     // first level of every topic
	Connections int
	Size        int // payload bytes
	Warm, Time  time.Duration
	PID         int // of the broker, 0 = its CPU is not measured

	QoS      int
	Window   int // QoS 1 and 2: unacknowledged messages of one connection
	Batch    int // messages in one request
	Messages int // consume: how many
	Rate     int // wake: messages a second
}

// Result is printed as one JSON line.
type Result struct {
	Bench       string  `json:"bench"`
	Connections int     `json:"connections"`
	Size        int     `json:"size"`
	QoS         *int    `json:"qos,omitempty"`
	Window      int     `json:"window,omitempty"`
	Batch       int     `json:"batch,omitempty"`
	Seconds     float64 `json:"seconds"`
	Messages    int64   `json:"messages"`
	PerSecond   float64 `json:"per_second"`
	P50         float64 `json:"p50_ms,omitempty"`
	P99         float64 `json:"p99_ms,omitempty"`
	Max         float64 `json:"max_ms,omitempty"`
	CPU         float64 `json:"broker_cpu_us_per_message,omitempty"`
	Cores       float64 `json:"broker_cores,omitempty"`
	RSS         float64 `json:"broker_rss_mib,omitempty"`
}

// Print writes r as one line.
func (r *Result) Print(w io.Writer) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// meter measures from begin to end, once.
type meter struct {
	mu        sync.Mutex
	hist      *hdrhistogram.Histogram
	messages  int64
	pid       int
	from, to  time.Time
	cpu0      time.Duration
	cpu1, rss float64
}

func newMeter(pid int) *meter {
	return &meter{hist: newHist(), pid: pid}
}

// newHist holds microseconds up to ten minutes with three digits.
func newHist() *hdrhistogram.Histogram { return hdrhistogram.New(1, 600_000_000, 3) }

func (m *meter) begin() error {
	cpu, _, err := usage(m.pid)
	m.cpu0, m.from = cpu, time.Now()
	return err
}

func (m *meter) end() error {
	m.to = time.Now()
	cpu, rss, err := usage(m.pid)
	m.cpu1, m.rss = (cpu - m.cpu0).Seconds(), rss
	return err
}

// add takes what one connection counted.
func (m *meter) add(messages int64, h *hdrhistogram.Histogram) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages += messages
	if h != nil {
		m.hist.Merge(h)
	}
}

func (m *meter) fill(r *Result) {
	r.Seconds = m.to.Sub(m.from).Seconds()
	r.Messages = m.messages
	r.PerSecond = float64(m.messages) / r.Seconds
	if m.hist.TotalCount() > 0 {
		ms := func(us int64) float64 { return float64(us) / 1000 }
		r.P50, r.P99, r.Max = ms(m.hist.ValueAtQuantile(50)), ms(m.hist.ValueAtQuantile(99)), ms(m.hist.Max())
	}
	if m.pid != 0 && m.messages > 0 {
		r.CPU, r.Cores, r.RSS = m.cpu1*1e6/float64(m.messages), m.cpu1/r.Seconds, m.rss
	}
}

// usage returns the CPU time and the resident MiB of a process. Linux counts
// the former in hundredths of a second.
func usage(pid int) (cpu time.Duration, rssMiB float64, err error) {
	if pid == 0 {
		return 0, 0, nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("measure the broker: %w", err)
	}
	// The name in parentheses may hold blanks; fields are counted after it.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 22 {
		return 0, 0, errors.New("measure the broker: /proc/PID/stat is not as expected")
	}
	number := func(i int) int64 {
		n, parse := strconv.ParseInt(f[i], 10, 64)
		err = errors.Join(err, parse)
		return n
	}
	ticks, pages := number(11)+number(12), number(21)
	if err != nil {
		return 0, 0, fmt.Errorf("measure the broker: %w", err)
	}
	return time.Duration(ticks) * 10 * time.Millisecond, float64(pages*int64(os.Getpagesize())) / (1 << 20), nil
}

// each runs f for every connection at once and joins their errors. The first
// error ends the others through ctx.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if errs[i] = f(ctx, i); errs[i] != nil {
				cancel(errs[i])
			}
		})
	}
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return errors.Join(errs...)
}
