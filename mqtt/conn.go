package mqtt

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
)

// conn is one client connection.
// Fields without a remark belong to the goroutine that reads.
type conn struct {
	Conn     net.Conn // the socket
	srv      *Server
	remote   string
	host     string // remote without the port; "" on a Unix socket
	booked   bool   // Server.mu; counts in addresses
	counted  string // Server.mu; the identity that it counts for
	anonOK   bool   // this listener lets anonymous clients in
	accepted time.Time

	via     transport
	input   input
	scratch publish // of the packet under work
	props   props   // likewise, for all but PUBLISH
	spoke   bool    // sent enough of a CONNECT to be answered
	greeted bool    // CONNACK is written
	open    bool    // CONNECT was accepted; others read it under Server.mu, and what was made before
	hello   connect
	v5      bool
	who     *auth.Principal
	session *session
	said    bool          // DISCONNECT came
	told    atomic.Uint32 // what $events says of it: tellNothing, tellConnected, tellEnded
	present bool          // the session was there before
	grace   *grace        // what it has yet to go on with; nil for most
	since   int64         // when it took its client id, Unix milliseconds; under Server.mu
	left    chan struct{} // closed when nothing of the session is this connection's any more

	producer *broker.Producer
	topics   topicCache
	aliases  []string // inbound, by alias
	acks     inbound
	// retaining says that a retained message was published, and may not be there yet.
	retaining bool
	denied    atomic.Int64 // when a refused publish was logged last, Unix seconds

	keepAlive atomic.Int64 // 1.5 times what was agreed, nanoseconds; 0 = none
	rearm     atomic.Bool  // the keep alive was changed from outside
	listener  string       // TYPE:NAME
	got       tally        // read and not booked
	received  share
	sent      share
	lost      losses
	lastRead  time.Time
	deadline  time.Time // of the socket, so that it is moved only when it matters

	waiting *waiter // place among the connections before CONNECT

	kicked  atomic.Bool // its session ends with it
	stop    atomic.Bool // nothing is read any more
	wmu     sync.Mutex
	out     output      // wmu
	put     tally       // wmu; written and not booked
	ending  *faultError // wmu; why we end it, nil if the client did
	drained bool        // wmu; the end waits for commits under way
}

// end makes the reader stop and the connection close: with DISCONNECT f.code
// in MQTT 5. Only the first call counts. It never blocks, and may come from
// any goroutine.
func (c *conn) end(f *faultError) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.ending != nil || c.stop.Load() {
		return
	}
	c.ending = f
	c.stop.Store(true)
	_ = c.Conn.SetReadDeadline(past) // wakes the reader; a dead socket wakes it anyway
	c.out.room.Broadcast()
}

// past is a deadline that has gone.
var past = time.Unix(1, 0)

// abort closes the socket without a word.
func (c *conn) abort(f *faultError) {
	c.end(f)
	_ = c.Conn.Close() // the reader sees it
}

// goodbye tells the client why it is disconnected: in CONNACK before login, in
// DISCONNECT after it, and not at all where there is no word for it.
func (c *conn) goodbye(f *faultError) {
	if f.code == success {
		return
	}
	var b []byte
	switch {
	case !c.open && !c.spoke:
	case !c.open:
		b, _ = appendConnack(nil, f.code, c.hello.v5)
		c.srv.stats.rejected.Add(1)
	case c.v5 && c.greeted:
		b = c.parting(f.code)
	}
	c.send(b)
}

// parting is the DISCONNECT with code, which names the servers to use in place
// of this one if the client takes a packet of that size.
func (c *conn) parting(code reason) []byte {
	if at := c.srv.elsewhere; code == useAnother && at != "" {
		b := appendReferral(nil, code, at)
		if limit := int(c.hello.maxPacket); limit == 0 || len(b) <= limit {
			return b
		}
	}
	return appendDisconnect(nil, code)
}

// run serves the connection, and clears up after it.
func (c *conn) run(prepare func(*conn) error) {
	defer c.finish()
	defer c.recovered()
	if err := prepare(c); err != nil {
		c.failed(err)
		return
	}
	c.serve()
	c.readOut()
}

// recovered, deferred, keeps a panic to the connection it is of.
func (c *conn) recovered() {
	if p := recover(); p != nil {
		c.panicked(p)
	}
}

func (c *conn) panicked(p any) {
	c.srv.stats.panics.Add(1)
	c.srv.log.Error().Interface("err", p).Str("remote", c.remote).Str("stack", stack()).Msg("connection panicked")
	c.end(&faultError{unspecified, "internal error", closePanic})
}

// finish ends everything that hangs on the connection. The producer takes what
// was read before the end, also of a client that sends and leaves at once.
func (c *conn) finish() {
	c.srv.leaveWaiting(c)
	c.wmu.Lock()
	c.stop.Store(true)
	f, drain := c.ending, c.drained
	c.wmu.Unlock()
	c.got.book(&c.srv.stats.received, &c.received)
	c.leave(f)
	if c.producer != nil {
		c.producer.Flush()
		if drain {
			c.acks.wait(c.srv.draining)
		}
	}
	if f != nil {
		c.goodbye(f)
	}
	c.farewell(f)
	c.lastWords()
	if c.producer != nil {
		c.producer.Close()
	}
	c.count(f)
	c.closeSocket(f)
}

// leave ends what the session has of the connection. A session that is kept may
// be another connection's after it: what this one published and settled is
// recorded by then.
func (c *conn) leave(f *faultError) {
	defer close(c.left)
	c.srv.events.ended(c, f)
	s := c.session
	if s == nil {
		return
	}
	s.settle() // before the rest is given back
	if kept := s.kept; kept != nil {
		c.srv.stats.kept.Add(-1)
		ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		if c.producer != nil {
			c.producer.Flush()
		}
		s.close()
		if err := c.srv.o.Broker.Settled(ctx); err != nil {
			c.srv.log.Warn().Str("client", clip(s.id)).Err(err).Msg("connection ended before its commits")
		}
		if c.kicked.Load() {
			kept.SetExpiry(0)
		}
		kept.Close(ctx, f != nil && f.why == closeServer)
	}
	s.close()
	c.srv.unregister(c)
	c.delist()
}

// count books and logs the end.
func (c *conn) count(f *faultError) {
	why := closeClient
	if f != nil {
		why = f.why
	}
	if !c.open {
		c.srv.stats.refused[why].Add(1)
	} else {
		c.srv.stats.closed[why].Add(1)
		c.srv.stats.open.Add(-1)
	}
	if f == nil || why == closeServer {
		return
	}
	level := zerolog.DebugLevel
	if why == closeSlow {
		level = zerolog.WarnLevel
	}
	c.srv.log.WithLevel(level).Str("client", clip(c.hello.id)).Str("remote", c.remote).Err(f).Msg("connection ended")
}
