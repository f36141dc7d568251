package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"

	"millrace/broker"
	"millrace/broker/fields"
	"millrace/persistence/jetstream"
)

// wireFormat begins everything that nodes send each other.
const wireFormat = 1

// lane is one of the ways to a node. What comes on one from one node is in order.
type lane string

const (
	askLane   lane = "ask"   // requests, each answered on a goroutine of its own
	tellLane  lane = "tell"  // without an answer
	storeLane lane = "store" // to the leader: operations of the store
	eventLane lane = "event" // from the leader: what changed
)

// headRoom is what stands before the body of a message, at most.
const headRoom = 2 << 10

// maxMessage is how long a message may be that comes in parts.
const maxMessage = 64 << 20

// errAway says that a node is not there, or is not who was meant: it did nothing.
var errAway = errors.New("the node is not there")

// parcel is one message between nodes.
type parcel struct {
	from  string
	start uint64 // of the sender
	kind  string
	id    uint64
	body  []byte // the receiver's
	reply string // where an answer goes, if one is wanted
	part  uint64 // of the message: how many came before
}

// wire is this node's end of the ways between the nodes, over core NATS: what does
// not arrive at once is lost. A message larger than the servers take is sent in parts.
type wire struct {
	nc     *nats.Conn
	prefix string
	self   string
	start  uint64
	take   map[lane]func(parcel)

	mu    sync.Mutex
	next  uint64
	asked map[uint64]func(body []byte, more bool, err error)

	tell sync.Mutex // orders the parts of what is told
}

// newWire prepares the ways of a node. Nothing comes before listen.
func newWire(nc *nats.Conn, prefix, self string, start uint64) *wire {
	return &wire{
		nc: nc, prefix: prefix, self: self, start: start,
		take: map[lane]func(parcel){}, asked: map[uint64]func([]byte, bool, error){},
	}
}

// subject of a lane of a node.
func (w *wire) subject(node string, l lane) string {
	return w.prefix + ".n." + jetstream.Token(node) + "." + string(l)
}

// listen begins to take what comes, by take.
func (w *wire) listen() error {
	for l, f := range w.take {
		if err := w.subscribe(w.subject(w.self, l), w.gather(f)); err != nil {
			return err
		}
	}
	return w.subscribe(w.subject(w.self, "answer")+".*", w.answered())
}

func (w *wire) subscribe(subject string, f nats.MsgHandler) error {
	sub, err := w.nc.Subscribe(subject, f)
	if err != nil {
		return err
	}
	return sub.SetPendingLimits(-1, -1)
}

// gather returns what puts parts together and gives the whole to f. A message of
// which a part is missing, or that is too long, is lost as a whole.
func (w *wire) gather(f func(parcel)) nats.MsgHandler {
	type sender struct {
		from  string
		start uint64
	}
	begun := map[sender]parcel{} // one of each sender is under way
	return func(m *nats.Msg) {
		p, more, ok := readParcel(m.Data)
		if !ok {
			return
		}
		s := sender{p.from, p.start}
		have, some := begun[s]
		delete(begun, s)
		if p.part > 0 {
			if !some || have.id != p.id || have.kind != p.kind || have.part+1 != p.part || len(have.body)+len(p.body) > maxMessage {
				return
			}
			p.body = append(have.body, p.body...)
		}
		if more {
			begun[s] = p
			return
		}
		p.reply = m.Reply
		f(p)
	}
}

// appendHead begins a message: format, whether parts follow, how many came before,
// number, kind, sender.
func (w *wire) appendHead(b []byte, more bool, part, id uint64, kind string) []byte {
	b = appendBool(append(b, wireFormat), more)
	b = fields.AppendUints(b, part, id)
	b = fields.AppendText(fields.AppendText(b, kind), w.self)
	return binary.AppendUvarint(b, w.start)
}

func readParcel(b []byte) (p parcel, more, ok bool) {
	r := fields.Reader{Rest: b}
	if r.Byte() != wireFormat {
		return p, false, false
	}
	more = r.Byte() != 0
	p.part, p.id, p.kind, p.from, p.start = r.Uint(), r.Uint(), r.Text(), r.Text(), r.Uint()
	p.body = r.Rest
	return p, more, !r.Bad
}

// send sends a message to a node. It does not wait.
func (w *wire) send(node string, l lane, id uint64, kind string, body []byte, reply string) error {
	w.tell.Lock()
	defer w.tell.Unlock()
	subject, room := w.subject(node, l), int(w.nc.MaxPayload())-headRoom
	for part := uint64(0); ; part++ {
		n := min(len(body), room)
		more := n < len(body)
		data := append(w.appendHead(make([]byte, 0, n+headRoom/8), more, part, id, kind), body[:n]...)
		m := &nats.Msg{Subject: subject, Data: data}
		if !more {
			m.Reply = reply
		}
		if err := w.nc.PublishMsg(m); err != nil {
			return err
		}
		if body = body[n:]; !more {
			return nil
		}
	}
}

// ask sends a request. done gets the answer, the last of several with more false,
// on a goroutine of the connection: it must not block. With errAway it was not
// taken. Who waits no longer forgets it.
func (w *wire) ask(node string, l lane, kind string, body []byte, done func(body []byte, more bool, err error)) uint64 {
	w.mu.Lock()
	w.next++
	id := w.next
	w.asked[id] = done
	w.mu.Unlock()
	if err := w.send(node, l, id, kind, body, w.subject(w.self, "answer")+"."+strconv.FormatUint(id, 36)); err != nil {
		if done := w.forget(id); done != nil {
			go done(nil, false, fmt.Errorf("%w: %w", errAway, err))
		}
	}
	return id
}

// forget gives up a request; it returns what waited for its answer, or nil.
func (w *wire) forget(id uint64) func([]byte, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	done := w.asked[id]
	delete(w.asked, id)
	return done
}

// States of an answer.
const (
	answerOK = iota
	answerMore
	answerFailed
	answerAway
)

// answer sends the answer to p. With more others follow.
func (w *wire) answer(p *parcel, body []byte, more bool, err error) {
	state := byte(answerOK)
	switch {
	case errors.Is(err, errAway):
		state = answerAway
	case err != nil:
		state, body = answerFailed, appendError(nil, err)
	case more:
		state = answerMore
	}
	w.tell.Lock()
	defer w.tell.Unlock()
	room := int(w.nc.MaxPayload()) - headRoom
	for part := uint64(0); ; part++ {
		n := min(len(body), room)
		follows := n < len(body)
		data := binary.AppendUvarint(appendBool(append(make([]byte, 0, n+8), state), follows), part)
		if w.nc.Publish(p.reply, append(data, body[:n]...)) != nil || !follows {
			return // what is lost is asked for again, or its outcome is unknown
		}
		body = body[n:]
	}
}

// answered gets the answers.
func (w *wire) answered() nats.MsgHandler {
	skip := len(w.subject(w.self, "answer")) + 1
	type parts struct {
		body []byte
		n    uint64
	}
	begun := map[uint64]parts{}
	return func(m *nats.Msg) {
		id, err := strconv.ParseUint(m.Subject[skip:], 36, 64)
		if err != nil {
			return
		}
		if m.Header.Get("Status") == "503" {
			w.end(id, nil, errAway)
			return
		}
		r := fields.Reader{Rest: m.Data}
		state, follows, part := r.Byte(), r.Byte() != 0, r.Uint()
		if r.Bad {
			return
		}
		have := begun[id]
		delete(begun, id)
		if part != have.n || len(have.body)+len(r.Rest) > maxMessage {
			return // one is missing: it has no answer
		}
		body := append(have.body, r.Rest...) //nolint:gocritic // it is built up from its parts
		if follows {
			begun[id] = parts{body, part + 1}
			return
		}
		switch state {
		case answerMore:
			w.mu.Lock()
			done := w.asked[id]
			w.mu.Unlock()
			if done != nil {
				done(body, true, nil)
			}
		case answerAway:
			w.end(id, nil, errAway)
		case answerFailed:
			r := fields.Reader{Rest: body}
			w.end(id, nil, readError(&r))
		default:
			w.end(id, body, nil)
		}
	}
}

func (w *wire) end(id uint64, body []byte, err error) {
	if done := w.forget(id); done != nil {
		done(body, false, err)
	}
}

// wait asks, and waits for the one answer.
func (w *wire) wait(ctx context.Context, node string, l lane, kind string, body []byte) ([]byte, error) {
	type outcome struct {
		body []byte
		err  error
	}
	end := make(chan outcome, 1)
	id := w.ask(node, l, kind, body, func(body []byte, _ bool, err error) { end <- outcome{body, err} })
	select {
	case o := <-end:
		return o.body, o.err
	case <-ctx.Done():
		w.forget(id)
		return nil, fmt.Errorf("%w: node %q does not answer: %w", broker.ErrUnknown, node, context.Cause(ctx))
	}
}

// close closes the connection.
func (w *wire) close() {
	w.nc.Close()
	w.mu.Lock()
	open := w.asked
	w.asked = map[uint64]func([]byte, bool, error){}
	w.mu.Unlock()
	for _, done := range open {
		done(nil, false, broker.ErrUnknown)
	}
}
