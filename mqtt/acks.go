package mqtt

import (
	"context"
	"sync"

	"millrace/broker"
)

// inbound is what we owe a client for its QoS 1 and 2 publishes. MQTT 5
// section 4.6 wants PUBACK and PUBREC in the order of the publishes, so that a
// publish refused at once waits for those before it that are being committed.
type inbound struct {
	mu    sync.Mutex
	queue []owed // from head on, in order of arrival
	head  int
	told  int  // queue[:told] have their answer
	open  int  // publishes that count against our Receive Maximum
	ended bool // an answer ended the connection: nothing after it is acked
	// ids are the QoS 2 publishes not yet released by PUBREL. Section 4.3.3:
	// until then the id names that message.
	ids  map[uint16]idState
	idle chan struct{} // closed when nothing is owed any more; see wait
}

// idState is where a QoS 2 publish stands.
type idState uint8

const (
	idPending   idState = iota + 1 // PUBREC is still to come
	idReceived                     // PUBREC was sent
	idRestored                     // the same, on an earlier connection
	idClaimed                      // on an earlier connection it was stored, or not: it comes again, or PUBREL
	idReleasing                    // PUBREL came, and its record is under way
)

// owed is one publish waiting for its PUBACK or PUBREC.
type owed struct {
	id    uint16
	qos   byte
	ready bool
	code  reason
}

// count returns the publishes that count against our Receive Maximum.
func (in *inbound) count() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.open
}

// repeated reports whether p is a QoS 2 publish sent again: it is the message
// we have, whatever its payload says now, and must not be published twice.
func (in *inbound) repeated(c *conn, p *publish) bool {
	if p.qos != 2 {
		return false
	}
	in.mu.Lock()
	state, known := in.ids[p.id]
	if known = known && state != idClaimed; known && state != idPending { // PUBREC was lost on the way: again, in its place
		in.queue = append(in.queue, owed{id: p.id, qos: 3, ready: true})
	}
	in.emit(c)
	return known
}

// expect queues p, whose outcome the broker will tell.
func (in *inbound) expect(p *publish) {
	in.mu.Lock()
	in.add(owed{id: p.id, qos: p.qos})
	in.mu.Unlock()
}

// refused queues p with its answer.
func (in *inbound) refused(c *conn, p *publish, code reason) {
	in.mu.Lock()
	in.add(owed{id: p.id, qos: p.qos, ready: true, code: code})
	in.emit(c)
}

func (in *inbound) add(o owed) {
	if o.qos == 2 {
		in.note(o.id, idPending)
	}
	in.open++
	in.queue = append(in.queue, o)
}

func (in *inbound) note(id uint16, st idState) {
	if in.ids == nil {
		in.ids = map[uint16]idState{}
	}
	in.ids[id] = st
}

// restore notes a publish of an earlier connection. It does not count against
// the Receive Maximum of this one.
func (in *inbound) restore(id uint16, st idState) { in.note(id, st) }

// outcomes takes what became of publishes, in their order: a commit is done.
// The tag of an outcome is the QoS of its publish.
func (c *conn) outcomes(os []broker.Outcome) {
	in := &c.acks
	in.mu.Lock()
	if in.ended {
		in.mu.Unlock()
		return
	}
	for i := range os {
		if os[i].Tag == 0 { // QoS 0, and refused
			c.settle(&owed{}, &os[i])
			continue
		}
		for in.told < len(in.queue) && in.queue[in.told].ready {
			in.told++
		}
		if in.told == len(in.queue) {
			break // cannot be: an outcome for each publish that was queued
		}
		o := &in.queue[in.told]
		o.ready = true
		in.told++
		if c.settle(o, &os[i]) {
			in.ended = true
			in.queue = in.queue[:in.told-1]
			break
		}
	}
	in.emit(c)
}

// settle turns one outcome into an answer; end says that the connection ends
// instead.
func (c *conn) settle(o *owed, out *broker.Outcome) (end bool) {
	if out.Err == nil {
		if c.v5 && out.Matched == (broker.Matched{}) && !out.Duplicate {
			o.code = noMatch
		}
		return false
	}
	a := answerOf(out.Err)
	o.code = a.code
	denied := a.code == notAuthorized
	if denied {
		c.drop(dropDenied)
		c.srv.stats.denied.Add(1)
		c.logDenied()
	}
	switch {
	case o.qos == 0 && (!denied || c.v5 || !c.srv.o.CloseOnDeny): // there is no answer
	case a.end, !c.v5 && !denied, !c.v5 && c.srv.o.CloseOnDeny:
		if o.qos > 0 { // the client sends it again with all behind it, in their order
			c.producer.Halt() // before the reader, which ends with c, hands over the rest
		}
		c.end(&faultError{a.code, "publish failed", closeQuota})
		return true
	case !c.v5: // 3.1.1 section 3.3.5: acked, and dropped
		o.code = success
	}
	return false
}

// emit writes the acks that are next, in one piece. The caller holds mu, which
// emit releases.
func (in *inbound) emit(c *conn) {
	var one [8]byte
	n := 0
	c.wmu.Lock()
	for in.head < len(in.queue) && in.queue[in.head].ready {
		o := &in.queue[in.head]
		in.head++
		kind := byte(typePubrec)
		switch {
		case o.qos == 1:
			kind = typePuback
			in.open--
		case o.qos == 2 && o.code >= unspecified: // section 4.3.3: the id is free
			delete(in.ids, o.id)
			in.open--
		case o.qos == 2:
			in.ids[o.id] = idReceived
		}
		b := appendAck(one[:0], kind, o.id, o.code, c.v5)
		c.out.write(b)
		c.put.count(b[0], len(b))
		n += len(b)
	}
	if n > 0 {
		c.wrote(n)
	}
	c.wmu.Unlock()
	if in.head == len(in.queue) || in.head >= 1024 {
		n := copy(in.queue, in.queue[in.head:])
		in.queue = in.queue[:n]
		in.told = max(0, in.told-in.head)
		in.head = 0
		if n == 0 && cap(in.queue) > 256 {
			in.queue = nil
		}
	}
	if in.idle != nil && (in.ended || len(in.queue) == 0) {
		close(in.idle)
		in.idle = nil
	}
	in.mu.Unlock()
}

// wait returns when every publish has its answer, or ctx is done.
func (in *inbound) wait(ctx context.Context) {
	in.mu.Lock()
	if in.ended || len(in.queue) == 0 {
		in.mu.Unlock()
		return
	}
	idle := make(chan struct{})
	in.idle = idle
	in.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// pubrel releases the id of a QoS 2 publish, sections 3.6 and 4.3.3. An id
// whose PUBREC was not sent yet is as unknown as any other. Where the id is
// recorded, so is its end, before the client may use it again.
func (c *conn) pubrel(a ack) {
	in := &c.acks
	in.mu.Lock()
	defer in.mu.Unlock()
	code := unknownPacketID
	switch st := in.ids[a.id]; {
	case st == idReleasing:
		return // PUBCOMP is under way
	case st < idReceived:
		c.srv.stats.missed[2].Add(1)
	case c.session.durable():
		if st == idReceived {
			in.open--
		}
		in.ids[a.id] = idReleasing
		c.session.settlements().Release(c.session.kept, a.id, func(err error) { c.freed(a.id, err) })
		return
	default:
		delete(in.ids, a.id)
		in.open--
		code = success
	}
	c.send(appendAck(nil, typePubcomp, a.id, code, c.v5))
}

// freed sends the PUBCOMP of an id whose release was recorded, or could not be.
func (c *conn) freed(id uint16, err error) {
	if err != nil {
		c.end(&faultError{unspecified, "release of a packet id failed", closeQuota})
		return
	}
	c.acks.mu.Lock()
	delete(c.acks.ids, id)
	c.acks.mu.Unlock()
	c.send(appendAck(nil, typePubcomp, id, success, c.v5))
}
