package jetstream

import (
	"bytes"
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace/broker"
)

// How long a call lasts. A leader that dies is replaced within 4 to 9 s; a
// graceful change takes some 30 ms.
const (
	resendAfter = 250 * time.Millisecond // at least, and then less and less often, because the servers may be slow
	resendEvery = time.Second
	giveUpAfter = 8 * time.Second // without an answer to it, or to one before it: the servers come to it
	giveUpLine  = time.Minute     // in all
)

// errNobody is a call that nobody ever took: definitely not done.
var errNobody = fmt.Errorf("%w: no NATS server took it within %s", broker.ErrClosed, giveUpAfter)

// call is one request that is repeated until its outcome is known, which is
// safe: a publish carries its message id, and the others may happen twice.
type call struct {
	subject string
	header  nats.Header
	data    []byte
	// done gets the answer, or an error: ErrUnknown, or that nobody took it. It
	// is called once, on a goroutine of the connection, and must not block.
	done  func(m *nats.Msg, err error)
	holds bool // it renews the hold on the prefix

	token uint64
	place *list.Element

	// Under the lock of the calls. Time is counted in sweeps, one each resendAfter:
	// where this process gets none, neither do the servers.
	leaves bool // it is being sent
	out    int  // how often it was sent to where a server may have taken it
	again  int  // until it is sent again
	pause  int  // from that to the next time
	waited int  // since it was started, or one before it was answered
	age    int
}

// calls are the calls under way, over one subscription.
type calls struct {
	nc    *nats.Conn
	inbox string
	sub   *nats.Subscription

	// sending is held while a call is sent, for as long as the server takes to read it.
	// Answers are heard meanwhile.
	sending sync.Mutex

	mu     sync.Mutex
	next   uint64
	open   map[uint64]*call
	order  *list.List // by start
	moved  uint64     // the first call of those answered since the last sweep
	unread int        // answers that waited for us at the last sweep
	read   int        // since then
	timer  *time.Timer
	closed bool
	fresh  func() bool // nil, or whether this node may write
}

// fence has nothing sent while fresh says that this node may have been given up by
// others; what waits for that is sent later, or ends as if nobody had taken it.
func (c *calls) fence(fresh func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fresh = fresh
}

func newCalls(nc *nats.Conn) (*calls, error) {
	c := &calls{nc: nc, inbox: nats.NewInbox() + ".", open: map[uint64]*call{}, order: list.New(), moved: math.MaxUint64}
	sub, err := nc.Subscribe(c.inbox+"*", c.answer)
	if err != nil {
		return nil, err
	}
	c.sub = sub
	return c, sub.SetPendingLimits(-1, -1)
}

// start sends k. Calls leave in the order of their start.
func (c *calls) start(k *call) {
	c.sending.Lock()
	if !c.enter(k) {
		c.sending.Unlock()
		k.done(nil, broker.ErrClosed)
		return
	}
	c.send(k)
	c.sending.Unlock()
}

// enter has the answer to k expected, unless the calls are closed.
func (c *calls) enter(k *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.next++
	k.token, k.leaves = c.next, true
	k.again, k.pause = 2, 2 // the sweep may be near
	k.place = c.order.PushBack(k)
	c.open[k.token] = k
	if c.timer == nil {
		c.timer = time.AfterFunc(resendAfter, c.sweep)
	} else if c.order.Len() == 1 {
		c.timer.Reset(resendAfter)
	}
	return true
}

// send sends k, which may have ended meanwhile. A connection that is down refuses at
// once, and the sweep tries again. sending is held.
func (c *calls) send(k *call) {
	if !c.leave(k) {
		return
	}
	m := &nats.Msg{Subject: k.subject, Reply: c.inbox + strconv.FormatUint(k.token, 36), Header: k.header, Data: k.data}
	err := c.nc.PublishMsg(m)
	c.mu.Lock()
	defer c.mu.Unlock()
	k.leaves = false
	if err != nil {
		k.takenBack()
	}
}

// leave reports whether k is to be sent now, and counts it as sent.
func (c *calls) leave(k *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[k.token] != k {
		return false
	}
	k.out++
	if c.fresh != nil && !k.holds && !c.fresh() && !strings.Contains(k.subject, ".API.STREAM.MSG.GET.") {
		k.leaves = false
		k.takenBack()
		return false
	}
	return true
}

// takenBack notes that nobody took what was sent of k; the next sweep tries again.
func (k *call) takenBack() {
	k.out--
	k.again, k.pause = 1, 1
}

// answer gets every reply.
func (c *calls) answer(m *nats.Msg) {
	token, err := strconv.ParseUint(m.Subject[len(c.inbox):], 36, 64)
	if err != nil {
		return
	}
	c.mu.Lock()
	c.read++
	k := c.open[token]
	stored := len(m.Header) > 0 // a message with anything in it
	switch {
	case m.Header.Get("Status") == "503", // no leader just now: one that was sent was taken by nobody
		!stored && bytes.Contains(m.Data, notReady): // it was not looked at
		if k != nil {
			k.takenBack()
		}
		k = nil
	case !stored && bytes.Contains(m.Data, inProcess): // the first one is not decided yet
		k = nil
	default: // those behind it are next
		c.moved = min(c.moved, token)
	}
	if k != nil {
		c.drop(k)
	}
	c.mu.Unlock()
	if k != nil {
		k.done(m, nil)
	}
}

// drop forgets k.
func (c *calls) drop(k *call) {
	delete(c.open, k.token)
	c.order.Remove(k.place)
}

// unanswered drops k and returns what ends it: with never if no server can have taken it.
func (c *calls) unanswered(k *call, never error) (end func()) {
	c.drop(k)
	if k.out > 0 {
		never = broker.ErrUnknown
	}
	return func() { k.done(nil, never) }
}

// sweep repeats what has no answer and ends what had none for too long. The
// timer runs only while calls are under way. It does not count for the servers while
// answers of theirs wait for us.
func (c *calls) sweep() {
	var ends []func()
	var due []*call
	unread, _, _ := c.sub.Pending()
	c.mu.Lock()
	counts := 1
	if c.read < c.unread {
		counts = 0
	}
	c.unread, c.read = unread, 0
	for e := c.order.Front(); e != nil; {
		k := e.Value.(*call)
		e = e.Next()
		k.age++
		k.waited += counts
		k.again -= counts
		if c.moved < k.token {
			k.waited = 0
		}
		switch {
		case k.waited >= int(giveUpAfter/resendAfter), k.age >= int(giveUpLine/resendAfter):
			ends = append(ends, c.unanswered(k, errNobody))
		case k.again <= 0 && counts > 0 && !k.leaves:
			k.leaves = true
			k.again, k.pause = k.pause, min(2*k.pause, int(resendEvery/resendAfter))
			due = append(due, k)
		}
	}
	c.moved = math.MaxUint64
	if c.order.Len() > 0 {
		c.timer.Reset(resendAfter) // before the calls are sent, which may take long
	}
	c.mu.Unlock()
	for _, end := range ends {
		end()
	}
	for _, k := range due { // what is started meanwhile need not wait for all
		c.sending.Lock()
		c.send(k)
		c.sending.Unlock()
	}
}

// close ends what is under way.
func (c *calls) close() {
	var ends []func()
	c.mu.Lock()
	c.closed = true
	for _, k := range c.open {
		ends = append(ends, c.unanswered(k, broker.ErrClosed))
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	for _, end := range ends {
		end()
	}
	_ = c.sub.Unsubscribe()
}

// wait starts a call and waits for its answer.
func (c *calls) wait(ctx context.Context, subject string, header nats.Header, data []byte) (*nats.Msg, error) {
	type outcome struct {
		m   *nats.Msg
		err error
	}
	end := make(chan outcome, 1)
	c.start(&call{subject: subject, header: header, data: data, done: func(m *nats.Msg, err error) { end <- outcome{m, err} }})
	select {
	case o := <-end:
		return o.m, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", broker.ErrUnknown, ctx.Err())
	}
}

// inProcess is in the answer to a publish whose id is that of one under way.
var inProcess = []byte(`"err_code":10158`)

// notReady is in every answer of servers that elect their leader.
var notReady = []byte(`"err_code":10008`)

// apiError is what JetStream answers when it refuses.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

// Numbers of JetStream errors (nats-server, server/errors.json).
const (
	errNoPeers       = 10005 // too few servers for the copies
	errStoreFull     = 10023 // insufficient resources
	errNoMessage     = 10037
	errDelete        = 10057 // the message cannot be deleted: it is not there
	errNoStream      = 10059
	errNoConsumer    = 10014
	errNoMemory      = 10028
	errNoStorage     = 10047
	errWrongLast     = 10071 // wrong last sequence of the subject
	errNoCluster     = 10074 // copies on a lone server
	errStreamFull    = 10077 // a limit of the stream
	errWrongLastCont = 10164
)

func (e *apiError) Error() string { return fmt.Sprintf("jetstream %d: %s", e.ErrCode, e.Description) }

// Is says which error of the contract e is.
func (e *apiError) Is(target error) bool {
	switch e.ErrCode {
	case errStoreFull, errNoMemory, errNoStorage, errStreamFull:
		return target == broker.ErrFull
	case errWrongLast, errWrongLastCont:
		return target == broker.ErrConflict
	case errNoMessage:
		return target == broker.ErrNotFound
	}
	return false
}

// missing reports whether e, of too few servers for the copies, is of a cluster that knows
// of more of them than it hears. One that hears all it has will not have more.
func (e *apiError) missing() bool {
	return strings.Contains(e.Description, "peer offline") || strings.Contains(e.Description, "miscellaneous issue")
}

// pubAck is the answer to a publish.
type pubAck struct {
	Seq       uint64    `json:"seq"`
	Duplicate bool      `json:"duplicate"`
	Err       *apiError `json:"error"`
}

// parseAck reads the answer to a publish. The common one,
// {"stream":"S","seq":N}, is read without reflection.
func parseAck(data []byte) (pubAck, error) {
	const before = `,"seq":`
	s := string(data)
	if i := strings.Index(s, before); i > 0 && s[len(s)-1] == '}' && strings.HasPrefix(s, `{"stream":"`) {
		if n, err := strconv.ParseUint(strings.TrimSpace(s[i+len(before):len(s)-1]), 10, 64); err == nil {
			return pubAck{Seq: n}, nil
		}
	}
	var a pubAck
	if err := json.Unmarshal(data, &a); err != nil {
		return a, fmt.Errorf("%w: answer %q to a publish: %w", broker.ErrUnknown, data, err)
	}
	if a.Err != nil {
		return a, a.Err
	}
	return a, nil
}

// again repeats a call that may be repeated: a young cluster, or one that
// elects, may leave some unanswered. Each try has a second.
func again(ctx context.Context, f func(context.Context) error) (err error) {
	const tries = 15
	for range tries {
		one, cancel := context.WithTimeout(ctx, time.Second)
		err = f(one)
		cancel()
		if ctx.Err() != nil {
			return err
		}
		api, refused := errors.AsType[*jetstream.APIError](err)
		switch {
		case refused && api.Code == 503:
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrTimeout):
		default:
			return err
		}
		select {
		case <-time.After(resendAfter):
		case <-ctx.Done():
			return err
		}
	}
	return err
}
