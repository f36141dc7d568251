package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"millrace/cmd/millrace/wire"
)

// MQTT publishes as fast as the windows allow, one goroutine a connection,
// which writes and reads in batches.
func MQTT(ctx context.Context, o Options) (*Result, error) {
	if err := o.makeQueue(ctx); err != nil {
		return nil, err
	}
	ps := make([]*publisher, o.Connections)
	err := each(ctx, o.Connections, func(ctx context.Context, i int) error {
		l := o.Login
		l.ClientID = fmt.Sprintf("%sbench-%d", l.ClientID, i)
		c, err := wire.Dial(ctx, o.MQTT, l)
		if err == nil {
			ps[i] = newPublisher(c, fmt.Sprintf("%s/%d", o.Topic, i), o)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	m := newMeter(o.PID)
	start := time.Now()
	from, to := start.Add(o.Warm), start.Add(o.Warm+o.Time)
	measured := make(chan error, 1)
	go func() { // ends with the run: it waits for nothing but the two times
		waitUntil(ctx, from)
		err := m.begin()
		waitUntil(ctx, to)
		if end := m.end(); err == nil {
			err = end
		}
		measured <- err
	}()
	err = each(ctx, o.Connections, func(ctx context.Context, i int) error {
		defer context.AfterFunc(ctx, func() { _ = ps[i].conn.Close() })()
		err := ps[i].run(from, to)
		m.add(ps[i].done, ps[i].hist)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := <-measured; err != nil {
		return nil, err
	}
	r := &Result{Bench: "mqtt", Connections: o.Connections, Size: o.Size, QoS: &o.QoS}
	if o.QoS > 0 {
		r.Window = o.Window
	}
	m.fill(r)
	return r, nil
}

func waitUntil(ctx context.Context, t time.Time) {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// publisher is one connection.
type publisher struct {
	conn    *wire.Conn
	topic   string
	qos     byte
	payload []byte
	free    []uint16    // packet ids that are not in use
	sent    []time.Time // by packet id
	out     []byte
	hist    *hdrhistogram.Histogram
	frame   int   // bytes of one PUBLISH
	done    int64 // acknowledged (QoS 0: written) while it was measured
}

func newPublisher(c *wire.Conn, topic string, o Options) *publisher {
	p := &publisher{conn: c, topic: topic, qos: byte(o.QoS), payload: fillPayload(o.Size), sent: make([]time.Time, o.Window+1), hist: newHist()}
	for id := o.Window; id > 0; id-- {
		p.free = append(p.free, uint16(id))
	}
	p.frame = len(wire.AppendPublish(nil, topic, p.qos, 1, p.payload))
	return p
}

// fillPayload returns text that is not all the same byte.
func fillPayload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(i*7%26)
	}
	return b
}

const writeBatch = 32 << 10

// run publishes until to, and counts what was acknowledged after from.
func (p *publisher) run(from, to time.Time) error {
	window := len(p.free)
	for now := time.Now(); ; now = time.Now() {
		if now.Before(to) {
			p.gather(now)
			if p.qos == 0 && now.After(from) {
				p.done += int64(len(p.out) / p.frame)
			}
		}
		if len(p.out) > 0 {
			if _, err := p.conn.Write(p.out); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
			p.out = p.out[:0]
		}
		if p.qos == 0 {
			if now.Before(to) {
				continue
			}
			return p.barrier()
		}
		if len(p.free) == window {
			if !now.Before(to) {
				return nil
			}
			continue
		}
		if err := p.settle(from, to); err != nil {
			return err
		}
	}
}

// gather fills the output with messages.
func (p *publisher) gather(now time.Time) {
	for len(p.out) < writeBatch {
		id := uint16(0)
		if p.qos > 0 {
			if len(p.free) == 0 {
				return
			}
			id = p.free[len(p.free)-1]
			p.free = p.free[:len(p.free)-1]
			p.sent[id] = now
		}
		p.out = wire.AppendPublish(p.out, p.topic, p.qos, id, p.payload)
	}
}

// settle reads once and takes every ack that came.
func (p *publisher) settle(from, to time.Time) error {
	if err := p.conn.Fill(); err != nil {
		return fmt.Errorf("wait for acknowledgements: %w", err)
	}
	now := time.Now()
	for {
		k, ok, err := p.conn.Buffered()
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		switch k.Type {
		case wire.Pubrec:
			p.out = wire.AppendAck(p.out, wire.Pubrel, k.ID())
		case wire.Puback, wire.Pubcomp:
			id := k.ID()
			p.free = append(p.free, id)
			if now.After(from) && now.Before(to) {
				p.done++
				_ = p.hist.RecordValue(max(1, now.Sub(p.sent[id]).Microseconds())) // out of range only after ten minutes
			}
		}
	}
}

// barrier waits until the broker has read everything.
func (p *publisher) barrier() error {
	if _, err := p.conn.Write(wire.AppendPing(nil)); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	for {
		k, err := p.conn.Read1()
		if err != nil || k.Type == wire.Pingresp {
			return err
		}
	}
}
