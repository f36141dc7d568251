package main_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/eclipse/paho.golang/paho"
	"github.com/oklog/ulid/v2"
)

func (c *crossing) sendFlowMQ(g goods) (goods, bool) {
	got := ask[struct{ Data flowMessage }](c, "POST", "/api/v1/topics/"+crossTopic+"/messages", map[string]any{
		"payload": base64.StdEncoding.EncodeToString(g.payload), "payload_encoding": "base64", "content_type": g.kind, "properties": g.properties,
	})
	g.id = strings.TrimPrefix(got.Data.MessageID, "msg_")
	return g, true
}

func (c *crossing) sendPulsar(g goods) (goods, bool) {
	type produced struct {
		MessageIDs []struct{ MessageID string }
	}
	m := map[string]any{"properties": g.properties, "value": g.payload} // base64
	body := map[string]any{"schema_type": "BYTES", "messages": []any{m}}
	g.kind = "application/octet-stream"
	switch {
	case json.Valid(g.payload):
		m["value"], g.kind = json.RawMessage(g.payload), "application/json"
		body["schema_type"], body["value_schema"] = "JSON", "{}"
		// encoding/json would write it anew.
		g.payload, _ = json.Marshal(m["value"])
	case utf8.Valid(g.payload):
		m["value"], g.kind = string(g.payload), "text/plain; charset=utf-8"
		delete(body, "schema_type")
	}
	got := ask[produced](c, "POST", crossPath, body)
	g.id = got.MessageIDs[0].MessageID
	return g, true
}

func (c *crossing) sendEMQX(g goods) (goods, bool) {
	got := ask[struct{ ID string }](c, "POST", "/api/v5/publish", map[string]any{
		"topic": crossTopic, "qos": 1, "payload": g.payload, "payload_encoding": "base64",
		"properties": map[string]any{"content_type": g.kind, "user_properties": g.properties},
	})
	id, err := hex.DecodeString(got.ID)
	if err != nil || len(id) != len(ulid.ULID{}) {
		c.t.Fatalf("id %q is not 32 hex digits", got.ID)
	}
	g.id = ulid.ULID(id).String()
	return g, true
}

func (c *crossing) sendMQTT(g goods) (goods, bool) {
	m := c.client("", nil)
	p := &paho.Publish{Topic: crossTopic, QoS: 1, Payload: g.payload, Properties: &paho.PublishProperties{ContentType: g.kind}}
	for k, v := range g.properties {
		p.Properties.User.Add(k, v)
	}
	if _, err := m.Publish(c.t.Context(), p); err != nil {
		c.t.Fatal(err)
	}
	return g, true
}

func (c *crossing) sendFastQueue(g goods) (goods, bool) {
	if !utf8.Valid(g.payload) {
		return g, false
	}
	got := ask[fastMessage](c, "POST", "/v1/queue/"+crossQueue, map[string]any{
		"Action": "SendMessage", "MessageBody": string(g.payload), "MessageAttributes": g.properties,
	})
	g.kind, g.id = "text/plain", got.MessageID
	return g, true
}

func (c *crossing) sendMemfifo(g goods) (goods, bool) {
	h, _ := c.call("POST", "memfifo", "/queues/"+crossQueue+"/messages", http.Header{"Content-Type": {g.kind}}, string(g.payload))
	g.properties, g.id = map[string]string{}, h.Get("Message-Id")
	return g, true
}
