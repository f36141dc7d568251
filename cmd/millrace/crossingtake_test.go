package main_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/eclipse/paho.golang/paho"
)

// flowMessage is one of /api/v1.
type flowMessage struct {
	MessageID   string            `json:"message_id"`
	Payload     string            `json:"payload"`
	Encoding    string            `json:"payload_encoding"`
	ContentType string            `json:"content_type"`
	Properties  map[string]string `json:"properties"`
	Receipt     string            `json:"receipt_handle"`
}

func (m *flowMessage) goods(c *crossing) goods {
	g := goods{[]byte(m.Payload), m.ContentType, m.Properties, strings.TrimPrefix(m.MessageID, "msg_")}
	if m.Encoding == "base64" {
		g.payload = c.unbase64(m.Payload)
	}
	return g
}

func (c *crossing) unbase64(text string) []byte {
	c.t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		c.t.Fatalf("%q: %v", text, err)
	}
	return b
}

type flowMessages struct {
	Data struct{ Messages []flowMessage }
}

// one is the only message of an answer.
func one[T any](c *crossing, all []T) *T {
	c.t.Helper()
	if len(all) != 1 {
		c.t.Fatalf("%d messages, want one: %+v", len(all), all)
	}
	return &all[0]
}

func (c *crossing) takeFlowMQ() goods {
	path := "/api/v1/queues/" + crossQueue + "/messages/"
	m := one(c, ask[flowMessages](c, "POST", path+"consume", map[string]any{"max_messages": 10}).Data.Messages)
	ask[any](c, "POST", path+m.MessageID+"/ack", map[string]any{"receipt_handle": m.Receipt})
	return m.goods(c)
}

type fastMessage struct {
	MessageID     string `json:"MessageId"`
	Body          string
	BodyEncoding  string
	Attributes    map[string]string
	ReceiptHandle string
}

func (c *crossing) takeFastQueue() goods {
	path := "/v1/queue/" + crossQueue
	m := one(c, ask[struct{ Messages []fastMessage }](c, "POST", path, map[string]any{"Action": "ReceiveMessage", "MaxNumberOfMessages": 10}).Messages)
	ask[any](c, "POST", path, map[string]any{"Action": "DeleteMessage", "ReceiptHandle": m.ReceiptHandle})
	g := goods{[]byte(m.Body), "", m.Attributes, m.MessageID}
	if m.BodyEncoding != "" {
		g.payload = c.unbase64(m.Body)
	}
	return g
}

func (c *crossing) takeMemfifo() goods {
	h, body := c.call("GET", "memfifo", "/queues/"+crossQueue+"/messages", nil, "")
	return goods{body, h.Get("Content-Type"), nil, h.Get("Message-Id")}
}

func (c *crossing) takeMQTT() goods {
	return c.takeOver("", "$queue/"+crossQueue)
}

// takeOver takes by an MQTT client that comes for one message and leaves.
func (c *crossing) takeOver(id, filter string) goods {
	c.t.Helper()
	got := make(chan *paho.Publish, 10)
	m := c.client(id, got)
	c.subscribe(m, filter)
	var p *paho.Publish
	select {
	case p = <-got:
	case <-time.After(10 * time.Second):
		c.t.Fatalf("nothing came over MQTT from %s", filter)
	}
	if _, err := m.Unsubscribe(c.t.Context(), &paho.Unsubscribe{Topics: []string{filter}}); err != nil {
		c.t.Fatal(err)
	}
	if n := len(got); n > 0 {
		c.t.Fatalf("%d messages more than the one came over MQTT from %s", n, filter)
	}
	_ = m.Disconnect(&paho.Disconnect{})
	g := goods{p.Payload, p.Properties.ContentType, map[string]string{}, ""}
	for _, u := range p.Properties.User {
		if g.properties[u.Key] = u.Value; u.Key == "message-id" {
			g.id = u.Value
		}
	}
	return g
}

const crossStream = "/api/v1/streams/public%2Fdefault%2Fmx%2F1"

func (c *crossing) readFlowMQ() goods {
	type info struct {
		Data struct {
			Partitions []struct {
				Next int `json:"next_offset"`
			}
		}
	}
	next := ask[info](c, "GET", crossStream, nil).Data.Partitions[0].Next
	all := ask[flowMessages](c, "GET", fmt.Sprintf("%s/partitions/0/messages?offset=%d", crossStream, next-1), nil)
	return one(c, all.Data.Messages).goods(c)
}

func (c *crossing) subscribedFlowMQ() goods {
	path := crossStream + "/subscriptions/flow/messages/"
	m := one(c, ask[flowMessages](c, "POST", path+"consume", map[string]any{"max_messages": 10}).Data.Messages)
	ask[any](c, "POST", path+m.MessageID+"/ack", map[string]any{"receipt_handle": m.Receipt})
	return m.goods(c)
}

type pulsarMessage struct {
	MessageID     string
	Value         json.RawMessage
	ValueEncoding string `json:"value_encoding"`
	Properties    map[string]string
	SchemaVersion *int `json:"schema_version"`
}

type pulsarMessages struct {
	Messages []pulsarMessage
	Next     int `json:"next_offset"`
	Latest   int
}

func (m *pulsarMessage) goods(c *crossing) goods {
	g := goods{m.Value, "", m.Properties, m.MessageID}
	var text string
	if m.SchemaVersion == nil {
		if err := json.Unmarshal(m.Value, &text); err != nil {
			c.t.Fatalf("%s: %v", m.Value, err)
		}
		g.payload = []byte(text)
	}
	if m.ValueEncoding != "" {
		g.payload = c.unbase64(text)
	}
	return g
}

func (c *crossing) readPulsar() goods {
	path := crossPath + "/partitions/0/messages"
	last := ask[pulsarMessages](c, "GET", path+"?position=latest&timeout=0", nil).Latest
	return one(c, ask[pulsarMessages](c, "GET", fmt.Sprintf("%s?offset=%d", path, last-1), nil).Messages).goods(c)
}

func (c *crossing) consumePulsar() goods {
	subscription := crossPath + "/subscription/pulsar"
	base := ask[struct {
		Base string `json:"base_uri"`
	}](c, "POST", subscription, map[string]any{}).Base
	at := strings.TrimPrefix(base, c.s.url())
	m := one(c, ask[pulsarMessages](c, "GET", at+"/messages", nil).Messages)
	ask[any](c, "POST", subscription+"/cursor", map[string]any{"type": "individual", "messageIds": []string{m.MessageID}})
	c.call("DELETE", "http", at, nil, "")
	return m.goods(c)
}

// followMQTT always has the same client id, so that each goes on where the one
// before it has acknowledged.
func (c *crossing) followMQTT() goods {
	return c.takeOver("crossing", "$stream/public%2Fdefault%2Fmx%2F1/@first")
}
