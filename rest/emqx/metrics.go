package emqx

import "maps"

// counters are the broker's and the MQTT edge's own, by the names that their
// owners give them.
func (a *api) counters() map[string]int64 {
	n := maps.Collect(a.broker.Counters)
	if a.options.Counters != nil {
		maps.Insert(n, a.options.Counters)
	}
	return n
}

// sources says of each of EMQX's counters which of ours it is the sum of.
var sources = map[string][]string{
	"bytes.received": {"mqtt.bytes.received"}, "bytes.sent": {"mqtt.bytes.sent"},

	"packets.received": {"mqtt.packets.received"}, "packets.sent": {"mqtt.packets.sent"},
	"packets.connect.received": {"mqtt.connect.received"},
	"packets.connack.sent":     {"mqtt.connack.sent"}, "packets.connack.error": {"mqtt.connack.error"},
	"packets.connack.auth_error": {"mqtt.connack.auth_error"},
	"packets.publish.received":   {"mqtt.publish.received"}, "packets.publish.sent": {"mqtt.publish.sent"},
	"packets.publish.error": {"mqtt.dropped.reserved", "mqtt.dropped.payload_format"}, "packets.publish.auth_error": {"mqtt.refused.publish"},
	"packets.publish.dropped": notPublished,
	"packets.publish.inuse":   {"mqtt.publish.in_use"}, "packets.publish.quota_exceeded": {"mqtt.publish.quota"},
	"packets.puback.received": {"mqtt.puback.received"}, "packets.puback.sent": {"mqtt.puback.sent"},
	"packets.puback.missed":   {"mqtt.puback.missed"},
	"packets.pubrec.received": {"mqtt.pubrec.received"}, "packets.pubrec.sent": {"mqtt.pubrec.sent"},
	"packets.pubrec.missed":   {"mqtt.pubrec.missed"},
	"packets.pubrel.received": {"mqtt.pubrel.received"}, "packets.pubrel.sent": {"mqtt.pubrel.sent"},
	"packets.pubrel.missed":    {"mqtt.pubrel.missed"},
	"packets.pubcomp.received": {"mqtt.pubcomp.received"}, "packets.pubcomp.sent": {"mqtt.pubcomp.sent"},
	"packets.pubcomp.missed":     {"mqtt.pubcomp.missed"},
	"packets.subscribe.received": {"mqtt.subscribe.received"}, "packets.subscribe.error": {"mqtt.subscribe.error"},
	"packets.subscribe.auth_error": {"mqtt.subscribe.auth_error"}, "packets.suback.sent": {"mqtt.suback.sent"},
	"packets.unsubscribe.received": {"mqtt.unsubscribe.received"}, "packets.unsubscribe.error": {"mqtt.unsubscribe.error"},
	"packets.unsuback.sent":    {"mqtt.unsuback.sent"},
	"packets.pingreq.received": {"mqtt.pingreq.received"}, "packets.pingresp.sent": {"mqtt.pingresp.sent"},
	"packets.disconnect.received": {"mqtt.disconnect.received"}, "packets.disconnect.sent": {"mqtt.disconnect.sent"},
	"packets.auth.received": {"mqtt.auth.received"}, "packets.auth.sent": {"mqtt.auth.sent"},

	"messages.received": {"mqtt.publish.received"}, "messages.sent": {"mqtt.publish.sent"},
	"messages.qos0.received": {"mqtt.publish.received.qos0"}, "messages.qos0.sent": {"mqtt.publish.sent.qos0"},
	"messages.qos1.received": {"mqtt.publish.received.qos1"}, "messages.qos1.sent": {"mqtt.publish.sent.qos1"},
	"messages.qos2.received": {"mqtt.publish.received.qos2"}, "messages.qos2.sent": {"mqtt.publish.sent.qos2"},
	"messages.publish": {"messages.published"}, "messages.persisted": {"messages.stored"},
	"messages.delivered": {"mqtt.publish.sent"}, "messages.acked": {"mqtt.acked"},
	"messages.retained": {"messages.retained"}, "messages.delayed": {"messages.delayed"},
	"messages.forward":                 {"messages.forwarded"},
	"messages.dropped":                 append([]string{"messages.unmatched"}, notPublished...),
	"messages.dropped.no_subscribers":  {"messages.unmatched"},
	"messages.dropped.quota_exceeded":  {"mqtt.publish.quota"},
	"messages.dropped.receive_maximum": {"mqtt.publish.receive_maximum"},

	"delivery.dropped": {
		"mqtt.unwanted.own", "sessions.own", "mqtt.dropped.too_large", "mqtt.dropped.shed", "mqtt.dropped.backlog", "sessions.overflowed",
		"mqtt.dropped.expired", "sessions.expired",
	},
	"delivery.dropped.no_local":   {"mqtt.unwanted.own", "sessions.own"},
	"delivery.dropped.too_large":  {"mqtt.dropped.too_large"},
	"delivery.dropped.qos0_msg":   {"mqtt.dropped.shed"},
	"delivery.dropped.queue_full": {"mqtt.dropped.backlog", "sessions.overflowed"},
	"delivery.dropped.expired":    {"mqtt.dropped.expired", "sessions.expired"},

	"client.connect":        {"mqtt.connect.received"},
	"client.connack":        {"mqtt.connack.sent"},
	"client.connected":      {"mqtt.clients.connected"},
	"client.disconnected":   {"mqtt.clients.disconnected"},
	"client.authenticate":   {"mqtt.login.accepted", "mqtt.login.refused"},
	"client.auth.anonymous": {"mqtt.login.anonymous"},
	"client.authorize":      {"mqtt.access.asked"},
	"client.subscribe":      {"mqtt.subscribe.received"},
	"client.unsubscribe":    {"mqtt.unsubscribe.received"},
	"session.created":       {"mqtt.sessions.created"},
	"session.resumed":       {"mqtt.sessions.resumed"},
	"session.takenover":     {"mqtt.sessions.taken_over"},
	"session.discarded":     {"mqtt.sessions.discarded"},
	"session.terminated":    {"mqtt.sessions.ended"},

	"authentication.success":           {"mqtt.login.accepted"},
	"authentication.success.anonymous": {"mqtt.login.anonymous"},
	"authentication.failure":           {"mqtt.login.refused"},
	"authorization.allow":              {"mqtt.access.allowed"},
	"authorization.deny":               {"mqtt.access.denied"},
}

// notPublished are the PUBLISH packets that went no further.
var notPublished = []string{
	"mqtt.refused.publish", "mqtt.dropped.reserved", "mqtt.dropped.payload_format", "mqtt.publish.quota", "mqtt.publish.receive_maximum",
}

// never says of the other counters that dashboards and exporters of EMQX read
// why they are 0 here, and stay so: those tools take one that is missing for a
// fault. What EMQX counts besides is of parts that do not exist here, and left out.
var never = map[string]string{
	"packets.puback.inuse":                  "an acknowledgement under the wrong id is missed, and one of the wrong kind ends the connection",
	"packets.pubrec.inuse":                  "the same",
	"packets.pubcomp.inuse":                 "the same",
	"messages.dropped.await_pubrel_timeout": "a QoS 2 publish waits for its PUBREL as long as the session lasts",
	"authorization.cache_hit":               "decisions come from memory, without a cache",
	"authorization.cache_miss":              "the same",
}

// metrics are EMQX's counters.
func (a *api) metrics() map[string]int64 {
	ours, n := a.counters(), make(map[string]int64, len(sources)+len(never))
	for name := range never {
		n[name] = 0
	}
	for name, parts := range sources {
		n[name] = 0
		for _, part := range parts {
			n[name] += ours[part]
		}
	}
	return n
}
