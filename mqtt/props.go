package mqtt

// Property identifiers, MQTT 5 section 2.2.2.2.
const (
	propFormat          = 1
	propExpiry          = 2
	propContentType     = 3
	propResponseTopic   = 8
	propCorrelation     = 9
	propSubscriptionID  = 11
	propSessionExpiry   = 17
	propAuthMethod      = 21
	propAuthData        = 22
	propRequestProblem  = 23
	propWillDelay       = 24
	propRequestResponse = 25
	propReasonString    = 31
	propServerRef       = 28
	propReceiveMaximum  = 33
	propAliasMaximum    = 34
	propAlias           = 35
	propUser            = 38
	propMaxPacket       = 39

	// The server's alone.
	propAssignedID      = 18
	propServerKeepAlive = 19
	propResponseInfo    = 26
	propSharedAvailable = 42
)

// known are all identifiers that exist, in any packet.
const known = 1<<1 | 1<<2 | 1<<3 | 1<<8 | 1<<9 | 1<<11 | 1<<17 | 1<<18 | 1<<19 | 1<<21 | 1<<22 | 1<<23 | 1<<24 | 1<<25 |
	1<<26 | 1<<28 | 1<<31 | 1<<33 | 1<<34 | 1<<35 | 1<<36 | 1<<37 | 1<<38 | 1<<39 | 1<<40 | 1<<41 | 1<<42

// Which properties a client may send, by packet.
const (
	publishProps = 1<<propFormat | 1<<propExpiry | 1<<propContentType | 1<<propResponseTopic |
		1<<propCorrelation | 1<<propAlias | 1<<propUser
	willProps    = publishProps&^(1<<propAlias) | 1<<propWillDelay
	connectProps = 1<<propSessionExpiry | 1<<propReceiveMaximum | 1<<propMaxPacket | 1<<propAliasMaximum |
		1<<propRequestResponse | 1<<propRequestProblem | 1<<propUser | 1<<propAuthMethod | 1<<propAuthData
	ackProps         = 1<<propReasonString | 1<<propUser
	subscribeProps   = 1<<propSubscriptionID | 1<<propUser
	unsubscribeProps = 1 << propUser
	disconnectProps  = 1<<propSessionExpiry | 1<<propReasonString | 1<<propUser | 1<<propServerRef
)

// pair is a user property; both alias the packet.
type pair struct{ name, value []byte }

// props are the properties of one packet. Slices alias the packet.
type props struct {
	set uint64 // bit of each identifier that was there

	format                          byte
	expiry, sessionExpiry           uint32
	willDelay, subID, maxPacket     uint32
	receiveMaximum, aliasMax        uint16
	alias                           uint16
	requestProblem, requestResponse byte
	contentType, responseTopic      []byte
	correlation, authMethod         []byte
	user                            []pair
}

func (p *props) has(id int) bool { return p.set&(1<<id) != 0 }

// userProperty returns the last user property of a name, or "".
func (p *props) userProperty(name string) (value string) {
	for i := range p.user {
		if string(p.user[i].name) == name {
			value = string(p.user[i].value)
		}
	}
	return value
}

// reset empties p and keeps the room of its user properties.
func (p *props) reset() { *p = props{user: p.user[:0]} }

// properties reads a property block into p. MQTT 5 section 2.2.2: an unknown
// identifier is malformed; one of another packet, or a repeated one, is a
// protocol error.
func (r *cursor) properties(p *props, allowed uint64) {
	p.reset()
	n := r.varint()
	if int64(n) > int64(len(r.b)) {
		r.fail(errShort)
		return
	}
	if n > maxPropertyBytes {
		r.fail(&faultError{quotaExceeded, "properties are too large", closeQuota})
		return
	}
	b := cursor{b: r.take(int(n))}
	for len(b.b) > 0 && b.err == nil {
		b.property(p, allowed)
	}
	if b.err != nil {
		r.fail(b.err)
	}
}

func (r *cursor) property(p *props, allowed uint64) {
	id := r.byte() // identifiers below 128 are one byte, and no other exists
	switch {
	case id > 63 || known&(1<<id) == 0:
		r.fail(broken(malformed, "unknown property"))
		return
	case allowed&(1<<id) == 0:
		r.fail(broken(protocolError, "property of another packet"))
		return
	case id != propUser && p.set&(1<<id) != 0:
		r.fail(broken(protocolError, "property is there twice"))
		return
	}
	p.set |= 1 << id
	switch id {
	case propFormat:
		p.format = r.flag()
	case propExpiry:
		p.expiry = r.uint32()
	case propContentType:
		p.contentType = r.string()
	case propResponseTopic:
		p.responseTopic = r.string()
	case propCorrelation:
		p.correlation = r.binary()
	case propSubscriptionID:
		if p.subID = r.varint(); p.subID == 0 {
			r.fail(broken(protocolError, "subscription identifier is 0"))
		}
	case propSessionExpiry:
		p.sessionExpiry = r.uint32()
	case propAuthMethod:
		p.authMethod = r.string()
	case propAuthData:
		r.binary()
	case propRequestProblem:
		p.requestProblem = r.flag()
	case propRequestResponse:
		p.requestResponse = r.flag()
	case propWillDelay:
		p.willDelay = r.uint32()
	case propReasonString, propServerRef:
		r.string()
	case propReceiveMaximum:
		if p.receiveMaximum = r.uint16(); p.receiveMaximum == 0 {
			r.fail(broken(protocolError, "receive maximum is 0"))
		}
	case propAliasMaximum:
		p.aliasMax = r.uint16()
	case propAlias:
		p.alias = r.uint16()
	case propMaxPacket:
		if p.maxPacket = r.uint32(); p.maxPacket == 0 {
			r.fail(broken(protocolError, "maximum packet size is 0"))
		}
	case propUser:
		p.user = append(p.user, pair{r.string(), r.string()})
		if len(p.user) > DefaultUserProperties {
			r.fail(&faultError{quotaExceeded, "too many user properties", closeQuota})
		}
	}
}

// flag reads a byte that is 0 or 1.
func (r *cursor) flag() byte {
	b := r.byte()
	if b > 1 {
		r.fail(broken(protocolError, "property is neither 0 nor 1"))
	}
	return b
}
