package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"millrace/cmd/millrace/wire"
)

// leased is the answer of a receive, as far as a consumer needs it.
type leased struct {
	Data struct {
		Messages []struct {
			ID      string `json:"message_id"`
			Receipt string `json:"receipt_handle"`
			Payload string `json:"payload,omitempty"`
		} `json:"messages"`
	} `json:"data"`
}

// take leases up to most messages and acknowledges them in one request.
func (c *caller) take(queue string, most, wait int) (leased, error) {
	var got leased
	body := fmt.Appendf(nil, `{"max_messages":%d`, most)
	if wait > 0 {
		body = fmt.Appendf(body, `,"timeout_seconds":%d`, wait)
	}
	text, err := c.must("/queues/"+queue+"/messages/consume", append(body, '}'))
	if err != nil {
		return got, err
	}
	if err := json.Unmarshal(text, &got); err != nil {
		return got, fmt.Errorf("read a received batch: %w", err)
	}
	return got, nil
}

func (c *caller) ack(queue string, got leased) error {
	body := []byte(`{"messages":[`)
	for i, m := range got.Data.Messages {
		if i > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"message_id":%q,"receipt_handle":%q}`, m.ID, m.Receipt)
	}
	_, err := c.must("/queues/"+queue+"/messages/ack", append(body, `]}`...))
	return err
}

// Consume fills the queue with o.Messages and then measures lease and
// acknowledgement, o.Batch at a time, until it is empty.
func Consume(ctx context.Context, o Options) (*Result, error) {
	if err := o.makeQueue(ctx); err != nil {
		return nil, err
	}
	if err := o.prefill(ctx); err != nil {
		return nil, err
	}
	m := newMeter(o.PID)
	o.Warm, o.Time = 0, time.Hour
	err := o.timed(ctx, m, func(c *caller, _ int) (int, error) {
		got, err := c.take(o.Queue, o.Batch, 0)
		if err != nil {
			return 0, err
		}
		if len(got.Data.Messages) == 0 {
			return 0, errDone
		}
		return len(got.Data.Messages), c.ack(o.Queue, got)
	})
	r := &Result{Bench: "consume", Connections: o.Connections, Size: o.Size, Batch: o.Batch}
	m.fill(r)
	return r, err
}

func (o Options) prefill(ctx context.Context) error {
	c, err := o.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = c.conn.Close() }() // nothing is under way
	for left := o.Messages; left > 0; {
		n := min(left, 500)
		path, body := o.publishBody(n)
		if _, err := c.must("/topics/"+o.Topic+"/0"+path, body); err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// Wake publishes over MQTT at a rate and measures until a long poll has each.
func Wake(ctx context.Context, o Options) (*Result, error) {
	if err := o.makeQueue(ctx); err != nil {
		return nil, err
	}
	l := o.Login
	l.ClientID += "bench-wake"
	pub, err := wire.Dial(ctx, o.MQTT, l)
	if err != nil {
		return nil, err
	}
	defer func() { _ = pub.Close() }() // nothing is under way
	epoch := time.Now()
	h := newHist()
	m := newMeter(o.PID)
	publishing := make(chan error, 1)
	go discard(pub)                                       // until pub is closed
	go func() { publishing <- o.pace(ctx, pub, epoch) }() // Wake waits for it below
	o.Connections = 1                                     // one consumer, as a service is: it takes what is there, acks, and polls again
	err = o.timed(ctx, m, func(c *caller, _ int) (int, error) {
		got, err := c.take(o.Queue, 100, 1)
		now := time.Since(epoch)
		if err != nil || len(got.Data.Messages) == 0 {
			return 0, err
		}
		for _, msg := range got.Data.Messages {
			at, err := strconv.ParseInt(msg.Payload, 10, 64)
			if err == nil && time.Duration(at) > o.Warm {
				_ = h.RecordValue(max(1, (now - time.Duration(at)).Microseconds())) // out of range only after ten minutes
			}
		}
		return len(got.Data.Messages), c.ack(o.Queue, got)
	})
	err = errors.Join(err, <-publishing)
	m.hist = h
	r := &Result{Bench: "wake", Connections: 1, Size: o.Size, QoS: &o.QoS}
	m.fill(r)
	return r, err
}

// pace publishes o.Rate messages a second, each with the time it was due.
func (o Options) pace(ctx context.Context, c *wire.Conn, epoch time.Time) error {
	every := time.Second / time.Duration(o.Rate)
	var out []byte
	id := uint16(0)
	for due := every; due < o.Warm+o.Time && ctx.Err() == nil; due += every {
		waitUntil(ctx, epoch.Add(due))
		id = id%60_000 + 1
		out = wire.AppendPublish(out[:0], o.Topic+"/wake", 1, id, strconv.AppendInt(nil, int64(due), 10))
		if _, err := c.Write(out); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	return nil
}

// discard reads acknowledgements until the connection ends.
func discard(c *wire.Conn) {
	for {
		if _, err := c.Read1(); err != nil {
			return
		}
	}
}
