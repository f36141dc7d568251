package mqtt

// handle takes one packet after CONNECT.
func (c *conn) handle(head byte, body []byte) error {
	kind := head >> 4
	if c.hello.v31 && (kind == typePubrel || kind == typeSubscribe || kind == typeUnsubscribe) {
		head &^= 8 // MQTT 3.1 sends these again with DUP
	}
	if f := checkFlags(head); f != nil {
		return f
	}
	var f *faultError
	switch kind {
	case typePublish:
		if f = parsePublish(&c.scratch, head, body, c.v5); f == nil {
			f = c.publish(&c.scratch)
		}
	case typePuback, typePubrec, typePubrel, typePubcomp:
		var a ack
		if a, f = parseAck(body, c.v5, &c.props); f == nil {
			if f = checkAck(kind, a.code); f == nil {
				f = c.ack(kind, a)
			}
		}
	case typePingreq:
		if len(body) > 0 {
			f = broken(malformed, "PINGREQ with a body")
			break
		}
		c.send(pingresp)
	case typeSubscribe:
		if f = checkSubscribe(body, c.v5, &c.props); f == nil {
			id, ws := decodeSubscribe(body, c.v5)
			for i := range ws {
				ws[i].start = c.props.userProperty(startProperty)
			}
			f = c.subscribe(id, c.props.subID, ws)
		}
	case typeUnsubscribe:
		if f = checkUnsubscribe(body, c.v5, &c.props); f != nil {
			c.srv.stats.badUnsubscribes.Add(1)
			break
		}
		f = c.unsubscribe(decodeUnsubscribe(body, c.v5))
	case typeDisconnect:
		var code reason
		if code, f = parseDisconnect(body, c.v5, &c.props); f == nil {
			c.said = true
			f = c.disconnect(code, &c.props)
		}
	case typeAuth: // we take no authentication method, so none can be under way
		f = broken(protocolError, "AUTH without an authentication method")
	default: // 3.1.0-2: a second CONNECT; the rest are the server's packets
		f = broken(protocolError, "packet is not a client's to send")
	}
	if f != nil { // a nil *faultError must not become an error
		return f
	}
	return nil
}

var pingresp = []byte{typePingresp << 4, 0}

// checkFlags checks the reserved bits of the first byte, section 2.1.3.
func checkFlags(head byte) *faultError {
	switch head >> 4 {
	case 0:
		return broken(malformed, "packet type 0")
	case typePublish:
		return nil
	case typePubrel, typeSubscribe, typeUnsubscribe:
		if head&15 == 2 {
			return nil
		}
	default:
		if head&15 == 0 {
			return nil
		}
	}
	return broken(malformed, "reserved flags are set")
}

// ack sends one of the four acks where it belongs.
func (c *conn) ack(kind byte, a ack) *faultError {
	switch kind {
	case typePuback:
		return c.session.puback(a)
	case typePubrec:
		return c.session.pubrec(a)
	case typePubcomp:
		return c.session.pubcomp(a)
	default:
		c.pubrel(a)
		return nil
	}
}

// disconnect takes the client's DISCONNECT, section 3.14.4: 0x00 takes the
// will back, anything else lets it be sent.
func (c *conn) disconnect(code reason, p *props) *faultError {
	if p.sessionExpiry > 0 && c.hello.sessionExpiry == 0 { // section 3.14.2.2.2
		return broken(protocolError, "DISCONNECT raises the session expiry from 0")
	}
	if kept := c.session.kept; kept != nil {
		if p.has(propSessionExpiry) {
			kept.SetExpiry(p.sessionExpiry)
		}
		if code == success {
			kept.CancelWill()
		}
	}
	c.stop.Store(true)
	return nil
}
