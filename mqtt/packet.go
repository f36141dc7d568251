package mqtt

// publish is a PUBLISH as it came. Slices alias the packet.
type publish struct {
	topic   []byte
	payload []byte
	id      uint16
	qos     byte
	dup     bool
	retain  bool
	props   props
}

// parsePublish reads the PUBLISH of section 3.3 whose first byte is head and
// whose variable header and payload are body.
func parsePublish(p *publish, head byte, body []byte, v5 bool) *faultError {
	p.qos, p.dup, p.retain = head>>1&3, head&8 != 0, head&1 != 0
	switch {
	case p.qos == 3:
		return broken(malformed, "QoS 3")
	case p.qos == 0 && p.dup:
		return broken(protocolError, "DUP with QoS 0")
	}
	r := cursor{b: body}
	p.topic, p.id = r.string(), 0
	if p.qos > 0 {
		if p.id = r.uint16(); p.id == 0 && r.err == nil {
			return broken(protocolError, "packet id 0")
		}
	}
	p.props.set = 0
	if v5 {
		r.properties(&p.props, publishProps)
	}
	p.payload = r.b
	return r.err
}

// ack is a PUBACK, PUBREC, PUBREL or PUBCOMP.
type ack struct {
	id   uint16
	code reason
}

// parseAck reads one of the four acks, sections 3.4 to 3.7.
func parseAck(body []byte, v5 bool, p *props) (a ack, f *faultError) {
	r := cursor{b: body}
	a.id = r.uint16()
	if r.err == nil && a.id == 0 {
		return a, broken(protocolError, "packet id 0")
	}
	if v5 && len(r.b) > 0 {
		a.code = reason(r.byte())
		if len(r.b) > 0 {
			r.properties(p, ackProps)
		}
	}
	if r.err == nil && len(r.b) > 0 {
		return a, broken(malformed, "bytes after the packet")
	}
	return a, r.err
}

// checkSubscribe checks what mochi's decoder forgets or panics on: packet id,
// properties, reserved option bits, trailing bytes. Section 3.8.
func checkSubscribe(body []byte, v5 bool, p *props) *faultError {
	r := cursor{b: body}
	if r.uint16() == 0 && r.err == nil {
		return broken(protocolError, "packet id 0")
	}
	if v5 {
		r.properties(p, subscribeProps)
	}
	if r.err == nil && len(r.b) == 0 {
		return broken(protocolError, "SUBSCRIBE without a filter")
	}
	for len(r.b) > 0 {
		filter, opt := r.string(), r.byte()
		switch {
		case r.err != nil:
		case len(filter) == 0:
			return broken(malformed, "filter is empty") // section 4.7.3
		case opt&3 == 3, v5 && opt&0xC0 != 0, !v5 && opt&0xFC != 0:
			return broken(malformed, "bad subscription options")
		case opt>>4&3 == 3:
			return broken(protocolError, "retain handling 3")
		case opt&4 != 0 && isShared(filter):
			return broken(protocolError, "shared subscription with No Local")
		}
	}
	return r.err
}

// checkUnsubscribe does the same for section 3.10.
func checkUnsubscribe(body []byte, v5 bool, p *props) *faultError {
	r := cursor{b: body}
	if r.uint16() == 0 && r.err == nil {
		return broken(protocolError, "packet id 0")
	}
	if v5 {
		r.properties(p, unsubscribeProps)
	}
	if r.err == nil && len(r.b) == 0 {
		return broken(protocolError, "UNSUBSCRIBE without a filter")
	}
	for len(r.b) > 0 {
		if filter := r.string(); r.err == nil && len(filter) == 0 { // section 4.7.3
			return broken(malformed, "filter is empty")
		}
	}
	return r.err
}

// checkAck checks that a reason code is one of the packet's, sections 3.4.2.1,
// 3.5.2.1, 3.6.2.1 and 3.7.2.1.
func checkAck(kind byte, code reason) *faultError {
	switch code {
	case success:
		return nil
	case noMatch, unspecified, implementation, notAuthorized, badTopic, packetIDInUse, quotaExceeded, badPayloadFormat:
		if kind == typePuback || kind == typePubrec {
			return nil
		}
	case unknownPacketID:
		if kind == typePubrel || kind == typePubcomp {
			return nil
		}
	default:
	}
	return broken(protocolError, "reason code is none of the packet's")
}

// parseDisconnect reads section 3.14. A DISCONNECT of one byte has a reason
// code and no properties, which mochi's decoder does not know.
func parseDisconnect(body []byte, v5 bool, p *props) (code reason, f *faultError) {
	r := cursor{b: body}
	p.reset()
	if v5 && len(r.b) > 0 {
		code = reason(r.byte())
		if len(r.b) > 0 {
			r.properties(p, disconnectProps)
		}
	}
	if r.err == nil && len(r.b) > 0 {
		return code, broken(malformed, "bytes after the packet")
	}
	return code, r.err
}
