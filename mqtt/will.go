package mqtt

import (
	"millrace/broker"
	"millrace/broker/auth"
)

// checkWill decides at CONNECT what can be decided then: the topic's grammar,
// and the right to publish there. The right is asked again when it is sent,
// which is the broker's business, like when that is.
func (s *Server) checkWill(who *auth.Principal, w *broker.Will) *faultError {
	switch topic := w.Message.Topic; {
	case len(w.Message.Payload) > s.o.MaxPayload:
		return &faultError{packetTooLarge, "will is too large", closeQuota}
	case s.o.Broker.CheckTopic(topic) != nil:
		return broken(badTopic, "will topic cannot be published to")
	case !s.auth.Allow(who, auth.Publish, auth.TopicResource(topic)):
		return &faultError{notAuthorized, "will topic is not allowed", closeAuth}
	}
	return nil
}
