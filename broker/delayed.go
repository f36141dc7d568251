package broker

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A delayed message goes to its queues and streams at once, where queues keep
// it back until it is due. For live subscribers, and for a retained one, it is
// also kept in a queue of the broker's own, which no filter feeds and no list
// shows, and published from there when it is due.
const delayedQueue = "$delayed"

// delayedPage is how many due messages are handled at once, and delayedLease
// how long that may take before they are handled again.
const (
	delayedPage  = 100
	delayedLease = time.Minute
)

// delayed publishes what is due.
type delayed struct {
	b      *Broker
	target Target
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// defineDelayed makes the broker's own queue, or finds it among defs.
func (b *Broker) defineDelayed(ctx context.Context, defs []Definition) error {
	for _, d := range defs {
		if d.Def.Name == delayedQueue {
			b.delayed.target = d.Target
			return nil
		}
	}
	t, err := b.store.Define(ctx, Def{Name: delayedQueue, Kind: QueueTarget, Volatile: b.durability == DurabilityMemory})
	b.delayed.target = t
	return err
}

func (d *delayed) start(b *Broker) {
	ctx, stop := context.WithCancel(context.Background())
	d.b, d.stop = b, stop
	d.done.Go(func() { d.run(ctx) })
}

func (d *delayed) close() {
	d.stop()
	d.done.Wait()
}

func (d *delayed) run(ctx context.Context) {
	for ctx.Err() == nil {
		w := &receive{ready: make(chan struct{})}
		w.Wait = Wait{Target: d.target, Max: delayedPage, Lease: delayedLease, Until: d.b.Now().Add(time.Hour), Sink: w}
		d.b.store.Receive(&w.Wait)
		select {
		case <-w.ready:
		case <-ctx.Done():
			if !d.b.store.Cancel(&w.Wait) {
				<-w.ready
				d.b.giveBack(w.Got) //nolint:contextcheck // it must happen although the broker stops
			}
			return
		}
		if errors.Is(w.Err, ErrClosed) || isGone(w.Err) {
			return
		}
		d.publish(ctx, w.Got)
	}
}

// publish gives clients what is due, and forgets it in the same commit.
func (d *delayed) publish(ctx context.Context, due []Delivery) {
	if len(due) == 0 {
		return
	}
	w := d.b.newWaitingPublish()
	w.who, w.lazy, w.stats = clientsOnly, false, new(counters) // it was counted when it was taken
	for i := range due {
		m := &due[i].Message
		m.NotBefore, m.DedupKey = 0, "" // it was stored once under its key
		w.route(nil, m, 0)
		w.batch.Settle(due[i].Ref, ReasonAcked)
		w.closeUnit()
	}
	_ = w.commit(ctx) // what was not committed comes again when its lease ends
}

// undelay takes "$delayed/SECONDS/TOPIC" apart: the message is one to TOPIC
// that is due that much later.
func undelay(m *Message, now time.Time) error {
	delay, topic, err := splitDelayed(m.Topic)
	if err != nil {
		return err
	}
	m.Topic = topic
	if delay > 0 {
		m.NotBefore = now.Add(delay).UnixMilli()
	}
	return nil
}

func splitDelayed(name string) (delay time.Duration, topic string, err error) {
	_, rest, _ := strings.Cut(name, "/")
	text, topic, ok := strings.Cut(rest, "/")
	seconds, bad := strconv.ParseUint(text, 10, 32)
	if !ok || bad != nil || topic == "" {
		return 0, "", errorf(Invalid, TopicSubject, "topic %q is not of the form $delayed/SECONDS/TOPIC", name)
	}
	return time.Duration(seconds) * time.Second, topic, nil
}
