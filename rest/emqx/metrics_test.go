package emqx_test

import (
	"maps"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"millrace/rest/emqx"
)

func TestEveryCounterIsCountedOrSaysWhyNot(t *testing.T) {
	d := open(t)
	there := maps.Collect(d.Broker.Counters)
	for name, n := range d.start(t).Counters {
		if _, twice := there[name]; twice {
			t.Errorf("%s comes twice", name)
		}
		there[name] = n
	}
	for name, parts := range emqx.Sources {
		if len(parts) == 0 {
			t.Errorf("%s is counted by nobody", name)
		}
		for _, part := range parts {
			if _, ok := there[part]; !ok {
				t.Errorf("%s is made of %s, which nobody counts", name, part)
			}
		}
	}
	for name, why := range emqx.Never {
		if _, counted := emqx.Sources[name]; counted || why == "" {
			t.Errorf("%s is always 0, and why is %q", name, why)
		}
	}
}

// TestNoCounterOfDashboardsIsMissing lists what EMQX's dashboards and exporters
// read.
func TestNoCounterOfDashboardsIsMissing(t *testing.T) {
	for name := range strings.FieldsSeq(`
		bytes.received bytes.sent packets.received packets.sent
		packets.connect.received packets.connack.sent packets.connack.error packets.connack.auth_error
		packets.publish.received packets.publish.sent packets.publish.error packets.publish.auth_error packets.publish.dropped
		packets.publish.inuse packets.publish.quota_exceeded
		packets.puback.received packets.puback.sent packets.puback.missed packets.puback.inuse
		packets.pubrec.received packets.pubrec.sent packets.pubrec.missed packets.pubrec.inuse
		packets.pubrel.received packets.pubrel.sent packets.pubrel.missed
		packets.pubcomp.received packets.pubcomp.sent packets.pubcomp.missed packets.pubcomp.inuse
		packets.subscribe.received packets.subscribe.error packets.subscribe.auth_error packets.suback.sent
		packets.unsubscribe.received packets.unsubscribe.error packets.unsuback.sent
		packets.pingreq.received packets.pingresp.sent packets.disconnect.received packets.disconnect.sent packets.auth.received packets.auth.sent
		messages.received messages.sent messages.publish messages.delivered messages.acked messages.forward messages.retained messages.delayed
		messages.persisted messages.qos0.received messages.qos0.sent messages.qos1.received messages.qos1.sent messages.qos2.received messages.qos2.sent
		messages.dropped messages.dropped.no_subscribers messages.dropped.await_pubrel_timeout messages.dropped.quota_exceeded
		messages.dropped.receive_maximum
		delivery.dropped delivery.dropped.no_local delivery.dropped.too_large delivery.dropped.qos0_msg delivery.dropped.queue_full
		delivery.dropped.expired
		client.connect client.connack client.connected client.disconnected client.authenticate client.auth.anonymous client.authorize
		client.subscribe client.unsubscribe session.created session.resumed session.takenover session.discarded session.terminated
		authentication.success authentication.success.anonymous authentication.failure
		authorization.allow authorization.deny authorization.cache_hit authorization.cache_miss`) {
		_, never := emqx.Never[name]
		if _, counted := emqx.Sources[name]; !counted && !never {
			t.Errorf("%s is missing", name)
		}
	}
}

// TestPrometheusReadsTheFigures has Prometheus' own parser read them, of this
// machine and so without credentials.
func TestPrometheusReadsTheFigures(t *testing.T) {
	d := open(t)
	for mode, line := range map[string]string{
		"node":                   "emqx_connections_count 0",
		"all_nodes_aggregated":   "emqx_messages_dropped_expired 0",
		"all_nodes_unaggregated": `emqx_packets_connect{node="millrace@127.0.0.1"} 0`,
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", emqx.Prefix+"/prometheus/stats?mode="+mode, nil)
		r.RemoteAddr = "127.0.0.1:4711"
		text := d.Send(r).Body.String()
		if _, err := promlint.New(strings.NewReader(text)).Lint(); err != nil {
			t.Error(mode, err)
		}
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("%s: there is no %s", mode, line)
		}
	}
}
