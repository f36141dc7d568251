package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"millrace/cmd/millrace/wire"
)

// observers are connections of every identity that look at what arrives, by
// each path that a message takes to a subscriber.
type observers struct {
	*matrix
	plain, share, group map[*identity]*observer
	publisher, watcher  *observer // a superuser's
	rounds              int
	mourned             []*mourning
	log                 int64 // how much of the log was read
}

// observer is one connection with at most one subscription.
type observer struct {
	*wire.Conn
	client  string
	granted bool
}

// arrivals are the topics of what arrived.
type arrivals struct{ live, retained map[string]int }

// mourning is a connection with a will, which is to be cut.
type mourning struct {
	i       *identity
	q       question
	conn    *wire.Conn
	payload string
}

const endOfRound = "matrix/end"

func (m *matrix) connect(client string, i *identity) *observer {
	m.t.Helper()
	c, err := m.dial(i, wire.Login{ClientID: client})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Minute)); err != nil {
		m.t.Fatal(err)
	}
	return &observer{Conn: c, client: client}
}

// observe connects everyone, and retains a message of each topic.
func (m *matrix) observe() *observers {
	m.t.Helper()
	o := &observers{matrix: m, plain: map[*identity]*observer{}, share: map[*identity]*observer{}, group: map[*identity]*observer{}}
	for _, i := range m.all {
		o.plain[i] = m.connect(i.client+"-live", i)
		o.share[i] = m.connect(i.client+"-share", i)
		o.group[i] = m.connect(i.client+"-group", i)
	}
	sue := &identity{login: [2]string{"sue", matrixPassword}}
	o.publisher, o.watcher = m.connect("matrix-publisher", sue), m.connect("matrix-watcher", sue)
	for _, topic := range matrixTopics {
		o.publish(topic, "kept", true)
	}
	for _, filter := range []string{endOfRound, "m/#"} {
		if !o.watcher.subscribe(m, filter) {
			m.t.Fatal("a superuser was refused")
		}
	}
	o.watcher.drain(m, "")
	return o
}

// publish waits for the ack.
func (o *observers) publish(topic, payload string, retain bool) {
	o.t.Helper()
	b := wire.AppendPublish(nil, topic, 1, 1, []byte(payload))
	if retain {
		b[0] |= 1
	}
	o.publisher.send(o.matrix, b)
	if p, err := o.publisher.Read1(); err != nil || p.Type != wire.Puback {
		o.t.Fatalf("publish to %s: packet type %d, %v", topic, p.Type, err)
	}
}

func (v *observer) send(m *matrix, b []byte) {
	m.t.Helper()
	if _, err := v.Write(b); err != nil {
		m.t.Fatalf("%s: %v", v.client, err)
	}
}

// subscribe reports whether the filter was granted; what was retained comes after.
func (v *observer) subscribe(m *matrix, filter string) bool {
	m.t.Helper()
	v.send(m, wire.AppendSubscribe(nil, 7, filter, 0))
	for {
		p, err := v.Read1()
		if err != nil {
			m.t.Fatalf("%s: %v", v.client, err)
		}
		if p.Type == wire.Suback {
			v.granted = p.Body[2] < 0x80
			return v.granted
		}
	}
}

// drain returns what arrived until the answer to a ping and, where it is given,
// a message with the payload end.
func (v *observer) drain(m *matrix, end string) arrivals {
	m.t.Helper()
	got := arrivals{map[string]int{}, map[string]int{}}
	v.send(m, wire.AppendPing(nil))
	for ponged := false; !ponged || end != ""; {
		p, err := v.Read1()
		if err != nil {
			m.t.Fatalf("%s: %v", v.client, err)
		}
		switch p.Type {
		case wire.Pingresp:
			ponged = true
		case wire.Publish:
			topic, _, payload, err := p.Message()
			if err != nil {
				m.t.Fatal(err)
			}
			if topic == endOfRound && string(payload) == end {
				end = ""
			}
			if p.Flags&1 == 1 {
				got.retained[topic]++
			} else {
				got.live[topic]++
			}
			got.live[string(payload)]++ // no topic is like one; wills are known by it
		}
	}
	return got
}

// seen is what arrived in one round, by path.
type seen struct{ plain, share, group map[*identity]arrivals }

// round publishes to every topic. Messages of one producer are handed out in
// their order: once the watcher has the last, all are on their way, and in
// front of the answer to a ping.
func (o *observers) round() seen {
	o.t.Helper()
	o.rounds++
	for _, topic := range matrixTopics {
		o.publish(topic, "live", false)
	}
	end := fmt.Sprintf("round-%d", o.rounds)
	o.publish(endOfRound, end, false)
	o.watcher.drain(o.matrix, end)
	s := seen{map[*identity]arrivals{}, map[*identity]arrivals{}, map[*identity]arrivals{}}
	for _, i := range o.all {
		s.plain[i], s.share[i], s.group[i] = o.plain[i].drain(o.matrix, ""), o.share[i].drain(o.matrix, ""), o.group[i].drain(o.matrix, "")
	}
	return s
}

// delivery is the question whether a topic reaches an observer.
func delivery(path, topic string, v *observer) question {
	return question{door: "mqtt", action: "subscribe", kind: "topic", subject: topic, path: path, client: v.client}
}

// judge goes through the cells of a round: each that got or wanted something.
func (o *observers) judge(s seen, moment string, cell func(i *identity, q question, got bool)) (once bool) {
	once = true
	for _, topic := range matrixTopics {
		members := 0
		for _, i := range o.all {
			if o.plain[i].granted {
				cell(i, delivery(moment+" live", topic, o.plain[i]), s.plain[i].live[topic] == 1)
			}
			if o.share[i].granted {
				cell(i, delivery(moment+" $share alone", topic, o.share[i]), s.share[i].live[topic] == 1)
			}
			if n := s.group[i].live[topic]; n > 0 {
				cell(i, delivery(moment+" $share together", topic, o.group[i]), true)
				members += n
			}
		}
		once = once && (members == 1 || o.rounds == 1) // nobody has subscribed before the first
	}
	return once
}

// afterAChange wants the subscriptions of before to feel the rules of now
// within five seconds, and wills to be judged by the rules of now.
func (o *observers) afterAChange() {
	o.t.Helper()
	o.mourn()
	var s seen
	if !eventually(5*time.Second, func() bool {
		s = o.round()
		felt := true
		once := o.judge(s, "", func(i *identity, q question, got bool) { felt = felt && got == oracle(i, o.rules, q) })
		return felt && once
	}) {
		o.t.Errorf("set %d: the rules are not felt after 5 s", o.set)
	}
	if !o.judge(s, "changed", o.check) {
		o.t.Errorf("set %d: a message was not handed to one member of its group", o.set)
	}
}

// subscribeAnew wants the same of new subscriptions, at once and for what is
// retained too.
func (o *observers) subscribeAnew() {
	o.t.Helper()
	for _, i := range o.all {
		v := o.plain[i]
		v.subscribe(o.matrix, "m/#")
		kept := v.drain(o.matrix, "").retained
		for _, topic := range matrixTopics {
			o.check(i, delivery("retained", topic, v), kept[topic] == 1)
		}
		o.share[i].subscribe(o.matrix, "$share/"+i.client+"/m/#")
		o.group[i].subscribe(o.matrix, "$share/all/m/#")
	}
	if !o.judge(o.round(), "new", o.check) {
		o.t.Errorf("set %d: a message was not handed to one member of its group", o.set)
	}
}

// wills connects with wills, and keeps those that were let in.
func (o *observers) wills() {
	o.t.Helper()
	for n, i := range o.all {
		for k := range 3 {
			client := fmt.Sprintf("%s-will-%d-%d", i.client, o.set, k)
			q := question{door: "mqtt", action: "publish", kind: "topic", subject: matrixTopics[(o.set+n+k*3)%len(matrixTopics)], path: "will at CONNECT", client: client}
			c, err := o.dial(i, wire.Login{ClientID: client, WillTopic: q.subject, WillPayload: "will of " + client})
			refused, ok := errors.AsType[*wire.RefusedError](err)
			if err != nil && (!ok || refused.Code != 5) {
				o.t.Fatalf("%s: %v", client, err)
			}
			if o.check(i, q, err == nil); err == nil {
				q.path = "will when it is sent"
				o.mourned = append(o.mourned, &mourning{i, q, c, "will of " + client})
			}
		}
	}
}

// mourn cuts the connections with wills and wants each will where the rules of
// now let it go: seen by the watcher, or told in the log as not published.
func (o *observers) mourn() {
	o.t.Helper()
	for _, w := range o.mourned {
		_ = w.conn.Close() // without a DISCONNECT
	}
	sent, withheld := map[string]bool{}, map[string]bool{}
	if !eventually(10*time.Second, func() bool {
		for text := range o.watcher.drain(o.matrix, "").live {
			sent[text] = true
		}
		o.readLog(withheld)
		for _, w := range o.mourned {
			if !sent[w.payload] && !withheld[w.q.client] {
				return false
			}
		}
		return true
	}) {
		o.t.Errorf("set %d: some wills are neither sent nor withheld", o.set)
	}
	for _, w := range o.mourned {
		o.check(w.i, w.q, sent[w.payload])
	}
	o.mourned = o.mourned[:0]
}

// readLog notes the clients whose wills the log says were not published.
func (o *observers) readLog(withheld map[string]bool) {
	o.t.Helper()
	f, err := os.Open(o.s.log)
	if err != nil {
		o.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.NewSectionReader(f, o.log, 1<<40))
	if err != nil {
		o.t.Fatal(err)
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	o.log += int64(len(text))
	for line := range strings.Lines(string(text)) {
		if _, after, ok := strings.Cut(line, `"client":"`); ok && strings.Contains(line, "will was not published") {
			client, _, _ := strings.Cut(after, `"`)
			withheld[client] = true
		}
	}
}
