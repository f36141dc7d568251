package mqtt

import (
	"errors"
	"fmt"

	"millrace/broker"
)

// reason is an MQTT 5 reason code (section 2.4).
type reason byte

// The codes that we send or look for.
const (
	success           reason = 0x00
	noMatch           reason = 0x10
	noSubscription    reason = 0x11
	unspecified       reason = 0x80
	malformed         reason = 0x81
	protocolError     reason = 0x82
	implementation    reason = 0x83
	badVersion        reason = 0x84
	badClientID       reason = 0x85
	badLogin          reason = 0x86
	notAuthorized     reason = 0x87
	serverUnavailable reason = 0x88
	serverBusy        reason = 0x89
	banned            reason = 0x8A
	shuttingDown      reason = 0x8B
	badAuthMethod     reason = 0x8C
	keepAliveTimeout  reason = 0x8D
	takenOver         reason = 0x8E
	badFilter         reason = 0x8F
	badTopic          reason = 0x90
	packetIDInUse     reason = 0x91
	unknownPacketID   reason = 0x92
	receiveMaximum    reason = 0x93
	badAlias          reason = 0x94
	packetTooLarge    reason = 0x95
	quotaExceeded     reason = 0x97
	administrative    reason = 0x98
	badPayloadFormat  reason = 0x99
	useAnother        reason = 0x9C
	connectionRate    reason = 0x9F
	v3Refused         reason = 0x80 // SUBACK of 3.1.1 section 3.9.3
)

// faultError ends a connection: with DISCONNECT (or CONNACK) and code in MQTT 5,
// by closing in 3.1.1, which has no packet for it.
type faultError struct {
	code reason
	text string // for the log; never from the client
	why  closeReason
}

func (f *faultError) Error() string { return fmt.Sprintf("%s (0x%02X)", f.text, byte(f.code)) }

// broken is the fault of a client that breaks the protocol.
func broken(code reason, text string) *faultError {
	return &faultError{code: code, text: text, why: closeProtocol}
}

// answer is what the outcome of a publish becomes.
type answer struct {
	code reason
	end  bool // disconnect with code instead of an ack (3.1.1: close)
}

// answerOf translates the error of a publish. Only an error that says that
// nothing was stored may become a negative ack; where the outcome is not
// known the connection ends, and the client sends again.
func answerOf(err error) answer {
	switch broker.KindOf(err) {
	case broker.Invalid:
		if isTopic(err) {
			return answer{code: badTopic}
		}
		return answer{code: implementation}
	case broker.Unauthenticated, broker.Forbidden:
		return answer{code: notAuthorized}
	case broker.NotFound, broker.Conflict, broker.Unavailable:
		return answer{code: implementation}
	case broker.TooLarge:
		return answer{code: packetTooLarge, end: true} // PUBACK has no such code
	case broker.Full:
		return answer{code: quotaExceeded}
	case broker.Unknown:
		return answer{code: unspecified, end: true}
	case broker.Internal, broker.Damaged:
		return answer{code: unspecified}
	default:
		return answer{code: unspecified}
	}
}

// v3Connack maps a refusal to the return codes of 3.1.1 section 3.2.2.3; false
// means that there is none, and that the connection is just closed.
func v3Connack(code reason) (byte, bool) {
	switch code {
	case badVersion:
		return 1, true
	case badClientID:
		return 2, true
	case serverUnavailable, serverBusy, quotaExceeded, connectionRate, shuttingDown, useAnother:
		return 3, true
	case badLogin:
		return 4, true
	case notAuthorized, banned:
		return 5, true
	default:
		return 0, false
	}
}

// isTopic reports whether err is about the name of a topic or filter.
func isTopic(err error) bool {
	e, ok := errors.AsType[*broker.Error](err)
	return ok && (e.Subject == broker.TopicSubject || e.Subject == broker.FilterSubject)
}
