package main_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// mover is a client of MQTT 5 with a durable session, which goes to the next node
// when it is sent away.
type mover struct {
	f  *fleetOf
	id string

	mu    sync.Mutex
	got   map[string]bool
	ends  []byte // the reasons of the DISCONNECTs that it had; 0 where there was none
	wrong []string
}

// live has the device subscribe at a node, and returns when it has.
func (d *mover) live(ctx context.Context, work *sync.WaitGroup, at int) {
	d.f.t.Helper()
	ready := make(chan struct{})
	work.Go(func() {
		for n := 0; ctx.Err() == nil; {
			c, present, err := d.connect(ctx, at)
			if err != nil {
				at++
				select {
				case <-time.After(20 * time.Millisecond):
				case <-ctx.Done():
				}
				continue
			}
			if n++; n > 1 && !present {
				d.fault("its session was not there at the next node")
			}
			if n == 1 {
				if _, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "e/#", QoS: 1}}}); err != nil {
					d.fault(err.Error())
				}
				close(ready)
			}
			select {
			case <-c.Done():
				at++
			case <-ctx.Done():
				_ = c.Disconnect(&paho.Disconnect{}) // it is over
			}
		}
	})
	select {
	case <-ready:
	case <-time.After(time.Minute):
		d.f.t.Fatal("the device does not get in")
	}
}

func (d *mover) fault(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wrong = append(d.wrong, text)
}

func (d *mover) connect(over context.Context, at int) (c *paho.Client, present bool, err error) {
	s := d.f.node(at)
	if s == nil {
		return nil, false, fmt.Errorf("no node is up")
	}
	ctx, cancel := context.WithTimeout(over, 20*time.Second)
	defer cancel()
	var dial net.Dialer
	conn, err := dial.DialContext(ctx, "tcp", s.ports["mqtt"])
	if err != nil {
		return nil, false, err
	}
	var once sync.Once
	ended := func(reason byte) {
		if over.Err() == nil { // else it ends by itself
			once.Do(func() { d.ended(reason) })
		}
	}
	c = paho.NewClient(paho.ClientConfig{
		ClientID: d.id, Conn: conn, PacketTimeout: 20 * time.Second,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.got[string(r.Packet.Payload)] = true
			return true, nil
		}},
		OnServerDisconnect: func(p *paho.Disconnect) { ended(p.ReasonCode) },
		OnClientError:      func(error) { ended(0) },
	})
	expiry := uint32(3600)
	ack, err := c.Connect(ctx, &paho.Connect{ClientID: d.id, KeepAlive: 60, Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry}})
	if err != nil {
		_ = conn.Close() // the refusal is what matters
		return nil, false, err
	}
	return c, ack.SessionPresent, nil
}

func (d *mover) ended(reason byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ends = append(d.ends, reason)
}

// lacks are those of the messages that have not come.
func (d *mover) lacks(all map[string]bool) (missing []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for text := range all {
		if !d.got[text] {
			missing = append(missing, text)
		}
	}
	slices.Sort(missing)
	return missing
}

// TestNodesAreRestartedOneAfterTheOther, as for an upgrade, while services publish:
// devices are sent to the other nodes, and find their sessions there; nothing that
// was acknowledged is lost.
func TestNodesAreRestartedOneAfterTheOther(t *testing.T) {
	f := startNodes(t, "a", "b", "c")
	ctx, sendHome := context.WithCancel(t.Context())
	defer sendHome()
	var work sync.WaitGroup
	devices := make([]*mover, len(f.names))
	for i := range devices {
		devices[i] = &mover{f: f, id: fmt.Sprint("dev-", i), got: map[string]bool{}}
		devices[i].live(ctx, &work, i)
	}
	publishing, stop := context.WithCancel(ctx)
	defer stop()
	x := f.newTraffic(0, stop)
	for i := range f.names {
		x.work.Go(func() { x.publish(publishing, i, i) })
	}
	x.more(20)
	for _, name := range f.names {
		before := 0
		for _, d := range devices {
			before += len(d.reasons())
		}
		x.mu.Lock()
		x.gap = 0
		x.mu.Unlock()
		leads := f.leader()
		f.down(name).stop()
		x.more(20)
		x.mu.Lock()
		if t.Logf("%s is stopped while %s leads: the longest gap between publishes is %s", name, leads, x.gap); x.gap > 5*time.Second { // 0.1 s as a rule
			t.Errorf("nobody could publish for %s", x.gap)
		}
		x.mu.Unlock()
		f.start(name)
		x.more(20)
		after := 0
		for _, d := range devices {
			after += len(d.reasons())
		}
		if after == before {
			t.Errorf("no device was told that %s stops", name)
		}
	}
	stop()
	x.work.Wait()
	eventually(time.Minute, func() bool { // what does not come is told below
		return !slices.ContainsFunc(devices, func(d *mover) bool { return len(d.lacks(x.stored)) > 0 })
	})
	sendHome()
	work.Wait()
	for _, d := range devices {
		if missing := d.lacks(x.stored); len(missing) > 0 {
			t.Errorf("%s lacks %d of %d: %v", d.id, len(missing), len(x.stored), missing)
		}
		if reasons := d.reasons(); slices.ContainsFunc(reasons, func(r byte) bool { return r != 0x9C }) {
			t.Errorf("%s was disconnected with %x, want 9c each time", d.id, reasons)
		}
		for _, text := range d.wrong {
			t.Errorf("%s: %s", d.id, text)
		}
	}
	x.end()
}

func (d *mover) reasons() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.ends)
}
