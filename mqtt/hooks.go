package mqtt

import (
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// hook is the one place where mochi and we meet.
type hook struct {
	mochi.HookBase
	s *Server
}

// newMochi makes the mochi server. It is never started: it has no listener and
// no event loop, and only serves the connections that we hand to it.
func newMochi(s *Server) (*mochi.Server, error) {
	caps := mochi.NewDefaultServerCapabilities()
	caps.MaximumClientWritesPending = 1 // nothing is ever put there
	caps.MaximumMessageExpiryInterval = 0
	caps.MaximumPacketSize = 0 // ours, checked before mochi sees a byte
	caps.ReceiveMaximum = uint16(s.o.ReceiveMaximum)
	caps.TopicAliasMaximum = 0 // the table is ours; mochi allocates one for each client
	caps.MinimumProtocolVersion = 3
	caps.Compatibilities.NoInheritedPropertiesOnAck = true
	m := mochi.New(&mochi.Options{
		Capabilities: caps, ClientNetReadBufferSize: 512, SysTopicResendInterval: 1 << 30,
		Logger: newSlog(s.log),
	})
	return m, m.AddHook(&hook{s: s}, nil)
}

// ID names the hook.
func (h *hook) ID() string { return "millrace" }

// Provides lists what is used: mochi copies the packet for each hook it asks.
func (h *hook) Provides(b byte) bool {
	switch b {
	case mochi.OnPacketRead, mochi.OnConnect, mochi.OnConnectAuthenticate, mochi.OnACLCheck,
		mochi.OnSessionEstablish, mochi.OnSessionEstablished, mochi.OnPacketEncode:
		return true
	}
	return false
}

// OnPacketRead sees the CONNECT, the only packet that mochi reads.
func (h *hook) OnPacketRead(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	c, ok := cl.Net.Conn.(*conn)
	if !ok || pk.FixedHeader.Type != packets.Connect {
		return pk, packets.ErrRejectPacket
	}
	return plainConnect(c, pk), nil
}

// plainConnect leaves of a CONNECT what mochi needs to answer it. The will,
// the session expiry and the credentials stay with us; an empty password,
// which mochi refuses although section 3.1.3.6 allows it, is not seen by it.
func plainConnect(c *conn, pk packets.Packet) packets.Packet {
	pk.Connect.ClientIdentifier = c.hello.id
	pk.Connect.Clean = true
	pk.Connect.WillFlag, pk.Connect.WillRetain, pk.Connect.WillQos = false, false, 0
	pk.Connect.WillTopic, pk.Connect.WillPayload = "", nil
	pk.Connect.WillProperties = packets.Properties{}
	pk.Connect.UsernameFlag, pk.Connect.PasswordFlag = false, false
	pk.Connect.Username, pk.Connect.Password = nil, nil
	pk.Connect.Keepalive = 0xFFFF // ours is enforced by ourselves; 0 would be logged for each client
	pk.Properties = packets.Properties{
		RequestProblemInfo: pk.Properties.RequestProblemInfo, RequestProblemInfoFlag: pk.Properties.RequestProblemInfoFlag,
		MaximumPacketSize: pk.Properties.MaximumPacketSize,
	}
	return pk
}

// OnConnect decides. mochi closes without CONNACK when it gets an error, so
// that the refusal is written by finish.
func (h *hook) OnConnect(cl *mochi.Client, _ packets.Packet) error {
	c, ok := cl.Net.Conn.(*conn)
	if !ok {
		return packets.ErrNotAuthorized
	}
	if f := c.login(); f != nil {
		c.end(f)
		return f
	}
	return nil
}

// OnConnectAuthenticate repeats what OnConnect decided.
func (h *hook) OnConnectAuthenticate(cl *mochi.Client, _ packets.Packet) bool {
	c, ok := cl.Net.Conn.(*conn)
	return ok && c.who != nil
}

// OnACLCheck refuses: nothing of ours goes through it.
func (h *hook) OnACLCheck(*mochi.Client, string, bool) bool { return false }

// OnSessionEstablish sees that mochi forgets the client, and finds no other to
// take over from.
func (h *hook) OnSessionEstablish(cl *mochi.Client, _ packets.Packet) {
	h.s.mochi.Clients.Delete(cl.ID)
}

// OnSessionEstablished comes after CONNACK.
func (h *hook) OnSessionEstablished(cl *mochi.Client, _ packets.Packet) {
	if c, ok := cl.Net.Conn.(*conn); ok {
		c.greeted = true
	}
	h.s.mochi.Clients.Delete(cl.ID)
}

// OnPacketEncode completes CONNACK, the only packet that mochi writes.
func (h *hook) OnPacketEncode(cl *mochi.Client, pk packets.Packet) packets.Packet {
	c, ok := cl.Net.Conn.(*conn)
	if !ok || pk.FixedHeader.Type != packets.Connack || pk.ReasonCode != 0 {
		return pk
	}
	p := &pk.Properties
	pk.SessionPresent = c.present && !c.hello.v31
	p.MaximumPacketSize = uint32(h.s.o.MaxPacket)
	p.TopicAliasMaximum = uint16(h.s.o.MaxAliases)
	p.SharedSubAvailable, p.SharedSubAvailableFlag = 1, true
	if c.hello.assigned {
		p.AssignedClientID = c.hello.id
	}
	p.ServerKeepAlive, p.ServerKeepAliveFlag = c.serverKeepAlive()
	return pk
}
