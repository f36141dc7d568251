package emqx

// counters are the broker's own, by the names of their owners.
func (a *api) counters() map[string]int64 {
	n := map[string]int64{}
	if a.options.Counters != nil {
		for name, v := range a.options.Counters {
			n[name] += v
		}
	}
	return n
}

// sources says of each of EMQX's counters which of ours it is the sum of. A
// counter of something that cannot happen here has none, and is 0: clients take
// one that is not there for a fault.
var sources = map[string][]string{
	"bytes.received": {"mqtt.bytes.received"}, "bytes.sent": {"mqtt.bytes.sent"},

	"packets.received": {"mqtt.packets.received"}, "packets.sent": {"mqtt.packets.sent"},
	"packets.connect.received": {"mqtt.connect.received"},
	"packets.connack.sent":     {"mqtt.connack.sent"}, "packets.connack.error": {"mqtt.connack.error"},
	"packets.connack.auth_error": {"mqtt.connack.auth_error"},
	"packets.publish.received":   {"mqtt.publish.received"}, "packets.publish.sent": {"mqtt.publish.sent"},
	"packets.publish.error": {"mqtt.dropped.reserved", "mqtt.dropped.payload_format"}, "packets.publish.auth_error": {"mqtt.refused.publish"},
	"packets.publish.dropped": {"mqtt.refused.publish", "mqtt.dropped.reserved", "mqtt.dropped.payload_format"},
	"packets.publish.inuse":   nil, "packets.publish.quota_exceeded": nil,
	"packets.puback.received": {"mqtt.puback.received"}, "packets.puback.sent": {"mqtt.puback.sent"},
	"packets.puback.missed": {"mqtt.puback.missed"}, "packets.puback.inuse": nil,
	"packets.pubrec.received": {"mqtt.pubrec.received"}, "packets.pubrec.sent": {"mqtt.pubrec.sent"},
	"packets.pubrec.missed": {"mqtt.pubrec.missed"}, "packets.pubrec.inuse": nil,
	"packets.pubrel.received": {"mqtt.pubrel.received"}, "packets.pubrel.sent": {"mqtt.pubrel.sent"},
	"packets.pubrel.missed":    {"mqtt.pubrel.missed"},
	"packets.pubcomp.received": {"mqtt.pubcomp.received"}, "packets.pubcomp.sent": {"mqtt.pubcomp.sent"},
	"packets.pubcomp.missed": {"mqtt.pubcomp.missed"}, "packets.pubcomp.inuse": nil,
	"packets.subscribe.received": {"mqtt.subscribe.received"}, "packets.subscribe.error": {"mqtt.subscribe.error"},
	"packets.subscribe.auth_error": {"mqtt.subscribe.auth_error"}, "packets.suback.sent": {"mqtt.suback.sent"},
	"packets.unsubscribe.received": {"mqtt.unsubscribe.received"}, "packets.unsubscribe.error": nil,
	"packets.unsuback.sent":    {"mqtt.unsuback.sent"},
	"packets.pingreq.received": {"mqtt.pingreq.received"}, "packets.pingresp.sent": {"mqtt.pingresp.sent"},
	"packets.disconnect.received": {"mqtt.disconnect.received"}, "packets.disconnect.sent": {"mqtt.disconnect.sent"},
	"packets.auth.received": {"mqtt.auth.received"}, "packets.auth.sent": nil,

	"messages.received": {"mqtt.publish.received"}, "messages.sent": {"mqtt.publish.sent"},
	"messages.qos0.received": {"mqtt.publish.received.qos0"}, "messages.qos0.sent": {"mqtt.publish.sent.qos0"},
	"messages.qos1.received": {"mqtt.publish.received.qos1"}, "messages.qos1.sent": {"mqtt.publish.sent.qos1"},
	"messages.qos2.received": {"mqtt.publish.received.qos2"}, "messages.qos2.sent": {"mqtt.publish.sent.qos2"},
	"messages.publish": {"messages.published"}, "messages.persisted": {"messages.stored"},
	"messages.delivered": {"mqtt.publish.sent"}, "messages.acked": {"mqtt.acked"},
	"messages.forward": nil, "messages.retained": {"messages.retained"}, "messages.delayed": {"messages.delayed"},
	"messages.dropped":                      {"messages.unmatched", "mqtt.refused.publish", "mqtt.dropped.reserved", "mqtt.dropped.payload_format"},
	"messages.dropped.no_subscribers":       {"messages.unmatched"},
	"messages.dropped.await_pubrel_timeout": nil,
	"messages.dropped.quota_exceeded":       nil,
	"messages.dropped.receive_maximum":      nil,
	"messages.validation_failed":            nil,
	"messages.validation_succeeded":         nil,
	"messages.transformation_failed":        nil,
	"messages.transformation_succeeded":     nil,
	"delivery.dropped":                      {"mqtt.dropped.too_large", "mqtt.dropped.shed", "mqtt.dropped.backlog", "mqtt.dropped.expired"},
	"delivery.dropped.no_local":             nil,
	"delivery.dropped.too_large":            {"mqtt.dropped.too_large"},
	"delivery.dropped.qos0_msg":             {"mqtt.dropped.shed"},
	"delivery.dropped.queue_full":           {"mqtt.dropped.backlog"},
	"delivery.dropped.expired":              {"mqtt.dropped.expired"},
	"client.connect":                        {"mqtt.connect.received"},
	"client.connack":                        {"mqtt.connack.sent"},
	"client.connected":                      {"mqtt.clients.connected"},
	"client.disconnected":                   {"mqtt.clients.disconnected"},
	"client.authenticate":                   {"mqtt.login.accepted", "mqtt.login.refused"},
	"client.auth.anonymous":                 {"mqtt.login.anonymous"},
	"client.authorize":                      nil,
	"client.subscribe":                      {"mqtt.subscribe.received"},
	"client.unsubscribe":                    {"mqtt.unsubscribe.received"},
	"session.created":                       {"mqtt.sessions.created"},
	"session.resumed":                       {"mqtt.sessions.resumed"},
	"session.takenover":                     {"mqtt.sessions.taken_over"},
	"session.discarded":                     {"mqtt.sessions.discarded"},
	"session.terminated":                    {"mqtt.sessions.ended"},
	"authentication.success":                {"mqtt.login.accepted"},
	"authentication.success.anonymous":      {"mqtt.login.anonymous"},
	"authentication.failure":                {"mqtt.login.refused"},
	"authorization.allow":                   nil,
	"authorization.deny":                    {"mqtt.refused.publish", "mqtt.subscribe.auth_error"},
	"authorization.cache_hit":               nil,
	"authorization.cache_miss":              nil,
	"authorization.superuser":               nil,
	"authorization.nomatch":                 nil,
	"authorization.matched.allow":           nil,
	"authorization.matched.deny":            nil,
	"overload_protection.delay.ok":          nil,
	"overload_protection.delay.timeout":     nil,
	"overload_protection.hibernation":       nil,
	"overload_protection.gc":                nil,
	"overload_protection.new_conn":          nil,
}

// metrics are EMQX's counters.
func (a *api) metrics() map[string]int64 {
	ours, n := a.counters(), make(map[string]int64, len(sources))
	for name, parts := range sources {
		n[name] = 0
		for _, part := range parts {
			n[name] += ours[part]
		}
	}
	return n
}
