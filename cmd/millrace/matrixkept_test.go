package main_test

import (
	"time"

	"millrace/cmd/millrace/wire"
)

// kept are sessions that are away while messages wait for them and the rules
// change.
type kept struct {
	*observers
	granted map[*identity]bool
	before  []rule // in force when the messages came
}

// open opens the session of an identity, as it was left.
func (k *kept) open(i *identity) *observer {
	k.t.Helper()
	c, err := k.dial(i, wire.Login{ClientID: i.client + "-kept", Keep: true})
	if err != nil {
		k.t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		k.t.Fatal(err)
	}
	return &observer{Conn: c, client: i.client + "-kept"}
}

func (k *kept) close(v *observer) {
	k.t.Helper()
	v.send(k.matrix, wire.AppendDisconnect(nil))
	_ = v.Close()
}

// leave has everyone subscribe and go, and publishes.
func (k *kept) leave() {
	k.t.Helper()
	for _, i := range k.all {
		v := k.open(i)
		v.send(k.matrix, wire.AppendSubscribe(nil, 7, "m/#", 1))
		for got := byte(0); got != wire.Suback; {
			p, err := v.Read1()
			if err != nil {
				k.t.Fatalf("%s: %v", v.client, err)
			}
			if got = p.Type; got == wire.Suback {
				k.granted[i] = p.Body[2] < 0x80
			}
		}
		v.take(k, nil) // what is retained
		k.close(v)
	}
	k.before = k.rules
	for _, topic := range matrixTopics {
		k.publish(topic, "queued", false)
	}
}

// take acks what arrives until all of want is there and a ping is answered.
func (v *observer) take(k *kept, want map[string]bool) map[string]bool {
	k.t.Helper()
	got := map[string]bool{}
	missing := len(want)
	v.send(k.matrix, wire.AppendPing(nil))
	for ponged := false; !ponged || missing > 0; {
		p, err := v.Read1()
		if err != nil {
			k.t.Errorf("set %d: %s: got %v, want %v: %v", k.set, v.client, got, want, err)
			return got
		}
		switch p.Type {
		case wire.Pingresp:
			ponged = true
		case wire.Publish:
			topic, id, payload, err := p.Message()
			if err != nil {
				k.t.Fatal(err)
			}
			if p.Flags&6 != 0 {
				v.send(k.matrix, wire.AppendAck(nil, wire.Puback, id))
			}
			if p.Flags&1 == 1 || string(payload) != "queued" || got[topic] {
				continue
			}
			if got[topic] = true; want[topic] {
				if missing--; missing == 0 && ponged { // one more, for what should not come
					v.send(k.matrix, wire.AppendPing(nil))
					ponged = false
				}
			}
		}
	}
	return got
}

// comeBack wants what the rules of now and those of before both allow, and
// nothing that those of now forbid.
func (k *kept) comeBack() {
	k.t.Helper()
	if len(k.granted) == 0 { // nobody has left yet
		return
	}
	for _, i := range k.all {
		v := &observer{client: i.client + "-kept"}
		want := map[string]bool{}
		for _, topic := range matrixTopics {
			q := delivery("queued", topic, v)
			if k.granted[i] && oracle(i, k.before, q) && oracle(i, k.rules, q) {
				want[topic] = true
			}
		}
		v = k.open(i)
		got := v.take(k, want)
		for _, topic := range matrixTopics {
			q := delivery("queued", topic, v)
			if want[topic] || !oracle(i, k.rules, q) {
				k.check(i, q, got[topic])
			}
		}
		k.close(v)
	}
}
