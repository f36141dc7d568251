package mqtt

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"millrace/broker"
	"millrace/broker/alarms"
	"millrace/broker/clients"

	"github.com/rs/zerolog"
)

// The default limits.
const (
	DefaultMaxPayload      = 4 << 20
	DefaultMaxPacket       = DefaultMaxPayload + 64<<10
	DefaultReceiveMaximum  = 1024
	DefaultMaxInflight     = 1024
	DefaultMaxInflightV3   = 256
	DefaultMaxOutput       = 16 << 20
	DefaultTopicBytes      = 1024
	DefaultTopicLevels     = 201
	DefaultWaiting         = 4096
	DefaultConnectTimeout  = 5 * time.Second
	DefaultStallTimeout    = 10 * time.Second
	DefaultFilters         = 1024
	DefaultLeaseGrace      = 30 * time.Second
	DefaultSubscriptions   = 10_000
	DefaultTopicAliases    = 32
	DefaultBacklogMessages = 100_000
	DefaultBacklogBytes    = 64 << 20
	DefaultUserProperties  = 64
	DefaultRivalsFrom      = 3
)

// Limits that no option moves.
const (
	maxConnect       = 16 << 10 // bytes before login
	maxConnectWill   = 64 << 10 // the same, when the CONNECT carries a will
	maxClientID      = 256
	maxUserName      = 256
	maxPassword      = 8 << 10
	maxPropertyBytes = 8 << 10
	lingerTimeout    = time.Second      // for the last bytes to reach a client
	loginTimeout     = 10 * time.Second // for the broker to decide
	endTimeout       = 10 * time.Second // for what the end of a connection commits
)

// Limits are those that can change while a Server runs. What is beyond a new one
// stays; zero values take the stated default.
type Limits struct {
	MaxWaiting     int           // sockets before CONNECT; default 4,096
	MaxPerAddress  int           // connections of one address; 0 = no limit
	MaxPerIdentity int           // connections of one user or key; 0 = no limit
	AcceptRate     int           // connections taken in a second; 0 = no limit
	MaxKeepAlive   time.Duration // longest keep alive granted to who connects; 0 = any
	MaxFilters     int           // in one SUBSCRIBE; default 1,024
	MaxSubs        int           // of one session; default 10,000
	// What waits in memory for one client, or one shared subscription.
	BacklogMessages int // default 100,000
	BacklogBytes    int // default 64 MiB
}

func (l Limits) withDefaults() (Limits, error) {
	l.MaxWaiting = cmp.Or(l.MaxWaiting, DefaultWaiting)
	l.MaxFilters = cmp.Or(l.MaxFilters, DefaultFilters)
	l.MaxSubs = cmp.Or(l.MaxSubs, DefaultSubscriptions)
	l.BacklogMessages, l.BacklogBytes = cmp.Or(l.BacklogMessages, DefaultBacklogMessages), cmp.Or(l.BacklogBytes, DefaultBacklogBytes)
	if l.MaxWaiting < 0 || l.MaxFilters < 0 || l.MaxSubs < 0 || l.BacklogMessages < 0 || l.BacklogBytes < 0 || l.MaxKeepAlive < 0 || l.MaxPerAddress < 0 || l.MaxPerIdentity < 0 || l.AcceptRate < 0 {
		return l, errors.New("mqtt: Options has a negative limit")
	}
	return l, nil
}

// SetLimits changes the limits from now on.
func (s *Server) SetLimits(l Limits) error {
	l, err := l.withDefaults()
	if err != nil {
		return err
	}
	s.limits.Store(&l)
	s.pace.set(l.AcceptRate)
	return nil
}

// Options configure a Server. Zero values take the stated default.
type Options struct {
	Broker *broker.Broker // required
	// Clients is kept up to date with who is here; default: an index of our own.
	Clients *clients.Registry
	// Alarms is where an operator looks; default: a book of our own.
	Alarms    *alarms.Book
	Listeners []Listener // none where connections come by Server.WebSocket alone
	Log       zerolog.Logger

	Limits
	MaxPayload     int           // bytes of a message; default 4 MiB
	MaxPacket      int           // bytes of a packet; default 4 MiB + 64 KiB
	ReceiveMaximum int           // QoS > 0 publishes a client may have open; default 1,024
	MaxInflight    int           // and we towards a client; default 1,024
	MaxInflightV3  int           // the same for 3.1.1; default 256
	MaxOutput      int           // bytes waiting for one client; default 16 MiB
	MaxTopicBytes  int           // of a topic or filter; default 1,024
	MaxTopicLevels int           // default 201
	ConnectTimeout time.Duration // from accept to a complete CONNECT; default 5 s
	StallTimeout   time.Duration // a socket that takes nothing that long is closed; default 10 s
	MaxAliases     int           // inbound topic aliases; default 32
	// LeaseGrace is how long messages of queues that the client of a durable
	// session holds stay its own without a connection, at most 40 s: what a lease
	// has left then; default 30 s.
	LeaseGrace time.Duration
	// SessionExpiryV3 is how long the session of a 3.1.1 client that wants one
	// outlives its connection, in seconds; default broker.NeverExpires.
	SessionExpiryV3 uint32

	// ResponseInformation is told to MQTT 5 clients that ask for it, as the
	// beginning of their response topics; %c is the client id. "" = nothing.
	ResponseInformation string

	// SysInterval is how often $SYS is told; 0 = never.
	SysInterval time.Duration
	// RivalsFrom is how many take-overs of one client id in a row, each within
	// 10 s, make its clients rivals, whose connects are slowed down; default 3,
	// negative = never.
	RivalsFrom int
	// NoEvents keeps $events silent.
	NoEvents bool
	Version  string // of the program, for $SYS/broker/version

	// Overloaded tells that memory is short, so that nobody more is let in; nil
	// = never.
	Overloaded func() bool

	// CloseOnDeny ends the connection of a 3.1.1 client that publishes where
	// it may not, instead of an ack for a message that is dropped.
	CloseOnDeny bool
}

// withDefaults fills zero values and reports what cannot be.
func (o Options) withDefaults() (Options, error) {
	if o.Broker == nil {
		return o, errors.New("mqtt: Options.Broker is missing")
	}
	if o.Clients == nil {
		o.Clients = &clients.Registry{}
	}
	if o.Alarms == nil {
		o.Alarms = alarms.NewBook(o.Log)
	}
	for _, f := range []struct {
		v    *int
		def  int
		name string
		max  int
	}{
		{&o.MaxPayload, DefaultMaxPayload, "MaxPayload", 256 << 20},
		{&o.MaxPacket, DefaultMaxPacket, "MaxPacket", 256 << 20},
		{&o.ReceiveMaximum, DefaultReceiveMaximum, "ReceiveMaximum", 65_535},
		{&o.MaxInflight, DefaultMaxInflight, "MaxInflight", 65_535},
		{&o.MaxInflightV3, DefaultMaxInflightV3, "MaxInflightV3", 65_535},
		{&o.MaxOutput, DefaultMaxOutput, "MaxOutput", 4 << 30},
		{&o.MaxTopicBytes, DefaultTopicBytes, "MaxTopicBytes", 65_535},
		{&o.MaxTopicLevels, DefaultTopicLevels, "MaxTopicLevels", 65_535},
		{&o.MaxAliases, DefaultTopicAliases, "MaxAliases", 65_535},
	} {
		*f.v = cmp.Or(*f.v, f.def)
		if *f.v < 1 || *f.v > f.max {
			return o, fmt.Errorf("mqtt: Options.%s is %d, must be 1 to %d", f.name, *f.v, f.max)
		}
	}
	o.LeaseGrace = cmp.Or(o.LeaseGrace, DefaultLeaseGrace)
	o.SessionExpiryV3 = cmp.Or(o.SessionExpiryV3, broker.NeverExpires)
	o.RivalsFrom = cmp.Or(o.RivalsFrom, DefaultRivalsFrom)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, DefaultConnectTimeout)
	o.StallTimeout = cmp.Or(o.StallTimeout, DefaultStallTimeout)
	if o.ConnectTimeout < 0 || o.StallTimeout < 0 || o.SysInterval < 0 {
		return o, errors.New("mqtt: Options has a negative limit")
	}
	var err error
	o.Limits, err = o.Limits.withDefaults()
	return o, err
}
