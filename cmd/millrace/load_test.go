package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"millrace/cmd/millrace/wire"
)

// load is everything that runs against the broker until it is killed.
type load struct {
	ledger *ledger
	server *server
	api    *service
	seed   uint64
	killed atomic.Bool

	repeats repeats
	keepers *keepers
	reader  reader
	wg      sync.WaitGroup
	cancel  context.CancelFunc
}

// startLoad starts producers of every door and consumers.
func startLoad(ctx context.Context, l *ledger, s *server, queue string, k *keepers, seed uint64) *load {
	d := &load{ledger: l, server: s, api: newService(s), keepers: k, seed: seed}
	ctx, d.cancel = context.WithCancel(ctx)
	if err := d.subscribe(ctx); err != nil {
		l.fault("failed", "subscription: %v", err)
	}
	for i, f := range []func(context.Context, *rand.Rand) error{
		d.mqtt(1, 200), d.mqtt(1, 20), d.mqtt(2, 100),
		d.http, d.http, d.batch, d.consumeBatches(queue), d.consumeSingly(queue),
		d.delayed, d.failing, d.fail, d.once, d.keep,
		d.streaming, d.consumeBatches(killSubscription), d.consumeSingly(killSubscription), d.readOn,
	} {
		d.wg.Go(func() {
			err := f(ctx, rand.New(rand.NewPCG(seed, uint64(i))))
			if err != nil && !d.killed.Load() {
				l.fault("failed", "worker %d: %v", i, err)
			}
		})
	}
	return d
}

// kill ends the broker with kill -9 and waits for all workers to notice.
func (d *load) kill() {
	d.killed.Store(true)
	d.server.kill()
	d.cancel()
	d.wg.Wait()
}

// mqtt publishes with a window, and takes PUBACK (or PUBREC, for QoS 2) as the
// broker's word.
func (d *load) mqtt(qos byte, window int) func(context.Context, *rand.Rand) error {
	door := fmt.Sprintf("mqtt%d", qos)
	return func(ctx context.Context, r *rand.Rand) error {
		id := fmt.Sprintf("kill-%d-%x", qos, r.Uint64())
		c, err := wire.Dial(ctx, d.server.ports["mqtt"], wire.Login{ClientID: id, User: testKeyID, Password: testSecret})
		if err != nil {
			return err
		}
		defer c.Close()
		defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
		open := map[uint16]int{}
		free := make([]uint16, window)
		for i := range free {
			free[i] = uint16(i + 1)
		}
		var out []byte
		for {
			for len(free) > 0 && len(out) < 64<<10 {
				n, payload := d.ledger.send(door, r, false)
				pid := free[len(free)-1]
				free = free[:len(free)-1]
				open[pid] = n
				out = wire.AppendPublish(out, fmt.Sprintf("k/%s/%d", door, n%7), qos, pid, payload)
			}
			if _, err := c.Write(out); err != nil {
				return err
			}
			out = out[:0]
			if err := c.Fill(); err != nil {
				return err
			}
			for {
				p, ok, err := c.Buffered()
				if err != nil {
					return err
				}
				if !ok {
					break
				}
				switch p.Type {
				case wire.Puback:
					d.ledger.acked(open[p.ID()])
					free = append(free, p.ID())
				case wire.Pubrec:
					d.ledger.acked(open[p.ID()])
					out = wire.AppendAck(out, wire.Pubrel, p.ID())
				case wire.Pubcomp:
					free = append(free, p.ID())
				default:
					return fmt.Errorf("unexpected packet of type %d", p.Type)
				}
			}
		}
	}
}

func (d *load) http(ctx context.Context, r *rand.Rand) error {
	for {
		n, payload := d.ledger.send("http", r, true)
		if err := d.api.publish(ctx, fmt.Sprintf("k/http/%d", n%7), string(payload)); err != nil {
			return err
		}
		d.ledger.acked(n)
	}
}

func (d *load) batch(ctx context.Context, r *rand.Rand) error {
	for {
		ns, payloads := make([]int, 20), make([]string, 20)
		for i := range ns {
			n, payload := d.ledger.send("batch", r, true)
			ns[i], payloads[i] = n, string(payload)
		}
		if err := d.api.publishBatch(ctx, "k/batch", payloads); err != nil {
			return err
		}
		d.ledger.acked(ns...)
	}
}

// leaseSeconds is short, so that the drain need not wait long for what was held.
const leaseSeconds = 1

// consumeBatches acknowledges in batches, and forgets a tenth.
func (d *load) consumeBatches(queue string) func(context.Context, *rand.Rand) error {
	return func(ctx context.Context, r *rand.Rand) error {
		for {
			if err := d.consumeBatch(ctx, r, queue); err != nil {
				return err
			}
		}
	}
}

func (d *load) consumeBatch(ctx context.Context, r *rand.Rand, queue string) error {
	got, err := d.api.consume(ctx, queue, 50, 1, leaseSeconds)
	if err != nil {
		return err
	}
	var keep []held
	var ns []int
	for _, h := range got {
		n := d.ledger.received(h, false)
		if r.IntN(10) == 0 {
			continue
		}
		d.ledger.settling(n)
		keep, ns = append(keep, h), append(ns, n)
	}
	if len(keep) == 0 {
		return nil
	}
	settled, err := d.api.ackAll(ctx, queue, keep)
	if err != nil {
		return err
	}
	for i, ok := range settled {
		if ok {
			d.ledger.settled(ns[i])
		} else {
			d.ledger.refused(ns[i])
		}
	}
	return nil
}

// consumeSingly acknowledges one at a time, and gives a tenth back.
func (d *load) consumeSingly(queue string) func(context.Context, *rand.Rand) error {
	return func(ctx context.Context, r *rand.Rand) error {
		for {
			if err := d.consumeFew(ctx, r, queue); err != nil {
				return err
			}
		}
	}
}

func (d *load) consumeFew(ctx context.Context, r *rand.Rand, queue string) error {
	got, err := d.api.consume(ctx, queue, 5, 1, leaseSeconds)
	if err != nil {
		return err
	}
	for _, h := range got {
		n := d.ledger.received(h, false)
		if r.IntN(10) == 0 {
			if err := tolerateStale(d.api.nack(ctx, queue, h)); err != nil {
				return err
			}
			continue
		}
		d.ledger.settling(n)
		err := d.api.ack(ctx, queue, h)
		if err == nil {
			d.ledger.settled(n)
			continue
		}
		if err := tolerateStale(err); err != nil {
			return err
		}
		d.ledger.refused(n)
	}
	return nil
}

// tolerateStale forgives an answer that the lease was over and the message went
// to somebody else.
func tolerateStale(err error) error {
	if err == nil || strings.Contains(err.Error(), "INVALID_RECEIPT_HANDLE") {
		return nil
	}
	return err
}
