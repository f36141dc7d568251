package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"millrace/cmd/millrace/wire"
)

// TestSessionsSurviveAKill kills the real program while devices with durable
// sessions publish and subscribe in QoS 1 and 2. They keep their part of the
// sessions over the kills: what they were told is there, in order, and in QoS 2
// once from end to end. One subscriber is away until the last round is over.
func TestSessionsSurviveAKill(t *testing.T) {
	killSessions(t, int(fromEnv(t, "MILLRACE_KILL_ROUNDS", 5)))
}

// TestSessionsInNATSSurviveAKill is the same with what is kept in NATS.
func TestSessionsInNATSSurviveAKill(t *testing.T) {
	killSessions(t, int(fromEnv(t, "MILLRACE_KILL_ROUNDS", 3)), "--store", lone(t, nil))
}

// killSessions plays the rounds, with more arguments of the server.
func killSessions(t *testing.T, rounds int, more ...string) {
	t.Helper()
	if testing.Short() {
		rounds = 1
	}
	seed := fromEnv(t, "MILLRACE_KILL_SEED", time.Now().UnixNano()&0xffffff)
	t.Logf("seed %d (repeat with MILLRACE_KILL_SEED=%d)", seed, seed)
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	args := append([]string{"--data", t.TempDir(), "--bootstrap-file", bootstrapFile(t, testKeyYAML), "--set", "mqtt.max_session_queue=10000000", "--set", "mqtt.max_session_bytes=4GiB"}, more...)
	var pubs []*devicePub
	var subs []*deviceSub
	for qos := byte(1); qos <= 2; qos++ {
		pubs = append(pubs, newDevicePub(qos))
		subs = append(subs, newDeviceSub(fmt.Sprint("sub", qos), qos), newDeviceSub(fmt.Sprint("away", qos), qos))
	}
	for round := range rounds {
		s := startServer(t, args...)
		if round == 0 {
			for _, d := range subs {
				d.begin(t, s)
			}
		}
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for _, d := range pubs {
			wg.Go(func() { _ = d.run(ctx, s, -1) }) // it is cut off
		}
		for i, d := range subs {
			if i%2 == 0 {
				noise := rand.New(rand.NewPCG(uint64(seed), uint64(100*round+i)))
				wg.Go(func() { _ = d.run(ctx, s, noise, nil) })
			}
		}
		pause := 50*time.Millisecond + time.Duration(r.Int64N(int64(1200*time.Millisecond)))
		<-time.After(pause)
		s.kill()
		cancel()
		wg.Wait()
		t.Logf("round %d: killed after %s", round+1, pause.Round(time.Millisecond))
	}
	s := startServer(t, args...)
	defer s.stop()
	for _, d := range pubs {
		if err := d.run(t.Context(), s, d.next+10); err != nil { // to its end
			t.Error(err)
		}
		if len(d.open) > 0 {
			t.Fatalf("QoS %d: %d publishes have no answer", d.qos, len(d.open))
		}
	}
	t.Logf("%d messages of QoS 1 and %d of QoS 2 were published", pubs[0].next, pubs[1].next)
	for _, d := range subs {
		start := time.Now()
		if err := d.run(t.Context(), s, nil, pubs); err != nil {
			t.Error(err)
		}
		t.Logf("%s had the rest after %s", d.id, time.Since(start).Round(time.Millisecond))
		for _, p := range pubs {
			d.check(t, p)
		}
	}
}

// moving is a device with a durable session.
type moving struct {
	id      string
	qos     byte
	patient bool            // it waits for the answer to its CONNECT, whatever happens
	took    []time.Duration // how long each connect did, in the order of them
}

func (d *moving) connect(ctx context.Context, s *server) (*wire.Conn, error) {
	if d.patient {
		ctx = context.WithoutCancel(ctx)
	}
	begun := time.Now()
	c, err := wire.Dial(ctx, s.ports["mqtt"], wire.Login{ClientID: d.id, User: testKeyID, Password: testSecret, Keep: true})
	if err == nil {
		d.took = append(d.took, time.Since(begun))
	}
	return c, err
}

// devicePub publishes 0, 1, 2 and so on, and sends what has no answer again
// when it is back.
type devicePub struct {
	moving
	next     int
	lastID   uint16
	order    []uint16       // of open, oldest first
	open     map[uint16]int // number by packet id
	released map[uint16]bool
}

func newDevicePub(qos byte) *devicePub {
	return &devicePub{moving: moving{id: fmt.Sprint("pub", qos), qos: qos}, open: map[uint16]int{}, released: map[uint16]bool{}}
}

func (d *devicePub) topic() string { return fmt.Sprintf("s/%d", d.qos) }

// run publishes until ctx ends or, if it is not negative, the number end is
// reached and everything answered; else it returns why it ended.
func (d *devicePub) run(ctx context.Context, s *server, end int) error {
	c, err := d.connect(ctx, s)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	var out []byte
	for _, id := range d.order {
		if d.released[id] {
			out = wire.AppendAck(out, wire.Pubrel, id)
			continue
		}
		at := len(out)
		out = wire.AppendPublish(out, d.topic(), d.qos, id, strconv.AppendInt(nil, int64(d.open[id]), 10))
		out[at] |= 8
	}
	for {
		for len(d.open) < 100 && (end < 0 || d.next < end) {
			for d.lastID++; d.lastID == 0 || d.used(d.lastID); d.lastID++ {
			}
			d.open[d.lastID], d.order = d.next, append(d.order, d.lastID)
			out = wire.AppendPublish(out, d.topic(), d.qos, d.lastID, strconv.AppendInt(nil, int64(d.next), 10))
			d.next++
		}
		if _, err := c.Write(out); err != nil || end >= 0 && len(d.open) == 0 {
			return err
		}
		out = out[:0]
		p, err := c.Read1()
		if err != nil {
			return err
		}
		out = d.answer(out, p)
	}
}

func (d *devicePub) used(id uint16) bool { _, ok := d.open[id]; return ok }

func (d *devicePub) answer(out []byte, p wire.Packet) []byte {
	id := p.ID()
	if p.Type == wire.Pubrec {
		d.released[id] = true
		return wire.AppendAck(out, wire.Pubrel, id)
	}
	delete(d.open, id)
	delete(d.released, id)
	for i, o := range d.order {
		if o == id {
			d.order = append(d.order[:i], d.order[i+1:]...)
			break
		}
	}
	return out
}

// deviceSub is a subscriber that knows which QoS 2 messages it has.
type deviceSub struct {
	moving
	has    map[uint16]bool
	next   map[string]int // by topic: the first number that is still to come
	faults []string
}

func newDeviceSub(id string, qos byte) *deviceSub {
	return &deviceSub{moving: moving{id: id, qos: qos}, has: map[uint16]bool{}, next: map[string]int{}}
}

func (d *deviceSub) begin(t *testing.T, s *server) {
	t.Helper()
	c, err := d.connect(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Subscribe("s/#", d.qos); err != nil {
		t.Fatal(err)
	}
}

// run takes what comes until ctx ends or, given publishers, it has all of
// theirs; else it returns why it ended. With noise it leaves some without an answer.
func (d *deviceSub) run(ctx context.Context, s *server, noise *rand.Rand, until []*devicePub) error {
	c, err := d.connect(ctx, s)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	if until != nil {
		_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	}
	for !d.complete(until) {
		p, err := c.Read1()
		if err != nil {
			return err
		}
		if b := d.take(p, noise); b != nil {
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *deviceSub) complete(pubs []*devicePub) bool {
	for _, p := range pubs {
		if d.next[p.topic()] < p.next {
			return false
		}
	}
	return pubs != nil
}

// take checks one packet and returns its answer.
func (d *deviceSub) take(p wire.Packet, noise *rand.Rand) []byte {
	switch p.Type {
	case wire.Publish:
		topic, id, payload, err := p.Message()
		n, bad := strconv.Atoi(string(payload))
		qos := p.Flags >> 1 & 3
		if err != nil || bad != nil {
			d.faults = append(d.faults, fmt.Sprintf("%s: %q is not ours", topic, payload))
			return nil
		}
		if qos < 2 || !d.has[id] {
			d.number(topic, n, qos, p.Flags&8 != 0)
		}
		if qos == 2 {
			d.has[id] = true
		}
		if noise != nil && noise.IntN(50) == 0 {
			return nil
		}
		if qos == 2 {
			return wire.AppendAck(nil, wire.Pubrec, id)
		}
		return wire.AppendAck(nil, wire.Puback, id)
	case wire.Pubrel:
		delete(d.has, p.ID())
		return wire.AppendAck(nil, wire.Pubcomp, p.ID())
	default:
		return nil
	}
}

// number notes a message. In QoS 1 on either way it may come again, but none
// may be missing before it.
func (d *deviceSub) number(topic string, n int, qos byte, dup bool) {
	switch next := d.next[topic]; {
	case n == next:
		d.next[topic]++
	case n > next:
		d.faults = append(d.faults, fmt.Sprintf("%s: %d came before %d", topic, n, next))
		d.next[topic] = n + 1
	case qos == 2:
		d.faults = append(d.faults, fmt.Sprintf("%s: %d came twice in QoS 2 (DUP %v)", topic, n, dup))
	}
}

func (d *deviceSub) check(t *testing.T, p *devicePub) {
	t.Helper()
	if got := d.next[p.topic()]; got != p.next {
		t.Errorf("%s: %d of %d messages of QoS %d came", d.id, got, p.next, p.qos)
	}
	for _, f := range d.faults[:min(5, len(d.faults))] {
		t.Errorf("%s: %s", d.id, f)
	}
	d.faults = nil
}
