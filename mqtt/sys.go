package mqtt

import (
	"math"
	"runtime/metrics"
	"strconv"
	"time"

	"millrace/broker"
)

// spans are those of the averages below $SYS/broker/load, in minutes.
var spans = []struct {
	name    string
	minutes float64
}{{"1min", 1}, {"5min", 5}, {"15min", 15}}

// load is how much of something happens in a minute, averaged as mosquitto does:
// what is longer ago counts less.
type load struct {
	before int64
	by     [3]float64
}

// add takes the counter of now, after d.
func (l *load) add(count int64, d time.Duration) {
	perMinute := float64(count-l.before) / d.Minutes()
	l.before = count
	for i, s := range spans {
		keep := math.Exp(-d.Minutes() / s.minutes)
		l.by[i] = perMinute + keep*(l.by[i]-perMinute)
	}
}

// sys tells the counters of a server below $SYS/broker, under the names that
// mosquitto has for them. They are the server's own since its start. Those of all
// nodes, and which there are, stand below $SYS/brokers.
type sys struct {
	s     *Server
	to    *broker.Announcer
	began time.Time
	last  time.Time
	told  map[string]string // what holds, by topic below $SYS
	nodes sysNodes
	loads map[string]*load
	heap  uint64 // most that was in use
}

// tell publishes $SYS until the server stops.
func (s *Server) tell() {
	now := time.Now()
	t := &sys{s: s, began: now, last: now, told: map[string]string{}, loads: map[string]*load{}}
	t.to = s.o.Broker.NewAnnouncer(func(error) {}) // QoS 0: nothing is stored
	t.meetNodes()
	t.set("version", "millrace version "+s.o.Version)
	t.publish(now)
	tick := time.NewTicker(s.o.SysInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.stopped:
			return
		case now := <-tick.C:
			t.publish(now)
		case <-t.nodes.news:
			t.hearNodes()
		}
	}
}

// publish tells what has changed.
func (t *sys) publish(now time.Time) {
	st, core := t.s.Stats(), t.s.o.Broker.Stats()
	away := max(0, core.Sessions-int(t.s.stats.kept.Load()))
	var dropped int64
	for _, n := range st.Dropped {
		dropped += n
	}
	t.set("uptime", strconv.Itoa(int(now.Sub(t.began).Seconds()))+" seconds")
	for name, n := range map[string]int64{
		"clients/connected": st.Open, "clients/active": st.Open,
		"clients/disconnected": int64(away), "clients/inactive": int64(away),
		"clients/total": st.Open + int64(away), "clients/maximum": st.MaxOpen, "clients/expired": core.Expired,
		"messages/received": st.In.Packets, "messages/sent": st.Out.Packets,
		"messages/stored": int64(core.Retained), "store/messages/count": int64(core.Retained),
		"publish/messages/received": st.In.Messages, "publish/messages/sent": st.Out.Messages, "publish/messages/dropped": dropped,
		"publish/bytes/received": st.In.Payload, "publish/bytes/sent": st.Out.Payload,
		"bytes/received": st.In.Bytes, "bytes/sent": st.Out.Bytes,
		"retained messages/count": int64(core.Retained), "subscriptions/count": int64(core.Subscriptions),
		"shared_subscriptions/count": int64(t.s.sharedGroups()),
	} {
		t.set(name, strconv.FormatInt(n, 10))
	}
	heap := heapInUse()
	t.heap = max(t.heap, heap)
	t.set("heap/current", strconv.FormatUint(heap, 10))
	t.set("heap/maximum", strconv.FormatUint(t.heap, 10))
	if d := now.Sub(t.last); d > 0 {
		t.last = now
		for name, n := range map[string]int64{
			"messages/received": st.In.Packets, "messages/sent": st.Out.Packets,
			"publish/received": st.In.Messages, "publish/sent": st.Out.Messages, "publish/dropped": dropped,
			"bytes/received": st.In.Bytes, "bytes/sent": st.Out.Bytes,
			"sockets": st.Accepted, "connections": st.Logins,
		} {
			t.average(name, n, d)
		}
	}
	t.tellNodes()
	t.to.Flush()
}

func (t *sys) average(name string, count int64, d time.Duration) {
	l := t.loads[name]
	if l == nil {
		l = &load{}
		t.loads[name] = l
	}
	l.add(count, d)
	for i, s := range spans {
		t.set("load/"+name+"/"+s.name, strconv.FormatFloat(l.by[i], 'f', 2, 64))
	}
}

// set tells a value of this server.
func (t *sys) set(name, value string) {
	t.show("broker/"+name, value)
	if t.nodes.self != "" {
		t.show(nodeTopic(t.nodes.self, name), value)
	}
}

// show tells what holds at a topic, unless it is what was told last; "" is that
// there is nothing any more.
func (t *sys) show(topic, value string) {
	if t.told[topic] == value {
		return
	}
	if t.told[topic] = value; value == "" {
		delete(t.told, topic)
	}
	t.to.Announce(&broker.Message{Topic: "$SYS/" + topic, Payload: []byte(value), Retain: true})
}

func (s *Server) sharedGroups() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.groups)
}

func heapInUse() uint64 {
	m := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(m)
	return m[0].Value.Uint64()
}
