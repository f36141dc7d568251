package main_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"millrace/cmd/millrace/wire"
)

// pulsarTopics are streams with a topic each; the last takes others as well, so
// that who produces needs the right to the stream besides.
var pulsarTopics = []string{"m/a/x", "m/b/x", "m/ann/x", "m/cat/x", "wide"}

// cells are the questions that an identity asks one by one.
func cells(i *identity) (all []question) {
	all = overMQTT(i)
	if i.bearer == "" && i.tls == nil {
		return all
	}
	for _, topic := range matrixTopics {
		all = append(all, question{door: "rest", action: "publish", kind: "topic", subject: topic})
	}
	for _, action := range []string{"consume", "manage", "view"} {
		for _, queue := range []string{"qa", "qb"} {
			all = append(all, question{door: "rest", action: action, kind: "queue", subject: queue})
		}
		for _, stream := range []string{"sa", "tb"} {
			all = append(all, question{door: "rest", action: action, kind: "stream", subject: stream})
		}
	}
	all = append(all, question{door: "rest", action: "view", kind: "server"}, question{door: "rest", action: "manage", kind: "server"})
	all = append(all, atPulsar()...)
	if i.tls == nil && strings.HasPrefix(i.who, "user:") {
		return all // tokens of /api/v1 are not taken by the other dialects
	}
	for _, topic := range matrixTopics[:4] {
		all = append(all, question{door: "emqx", action: "publish", kind: "topic", subject: topic})
	}
	all = append(all, question{door: "emqx", action: "view", kind: "server"}, question{door: "emqx", action: "manage", kind: "server"})
	if i.tls != nil {
		return all // fastqueue takes no certificate, memfifo is not served over TLS
	}
	for _, action := range []string{"publish", "consume", "view"} {
		all = append(all, question{door: "fastqueue", action: action, kind: "queue", subject: "qf"},
			question{door: "memfifo", action: action, kind: "queue", subject: "qm"})
	}
	return all
}

func overMQTT(i *identity) (all []question) {
	for _, topic := range matrixTopics {
		all = append(all, question{door: "mqtt", action: "publish", kind: "topic", subject: topic, client: i.client},
			question{door: "mqtt", action: "subscribe", kind: "topic", subject: topic, client: i.client},
			question{door: "mqtt", action: "subscribe", kind: "topic", subject: topic, client: i.client, path: "$share/one/"})
	}
	for _, queue := range []string{"qa", "qb"} {
		all = append(all, question{door: "mqtt", action: "consume", kind: "queue", subject: queue, client: i.client, path: "$queue/"},
			question{door: "mqtt", action: "consume", kind: "queue", subject: queue, client: i.client, path: "$q/"})
	}
	for _, stream := range []string{"sa", "tb", pulsarStream("m/a/x"), pulsarStream("wide")} {
		all = append(all, question{door: "mqtt", action: "consume", kind: "stream", subject: stream, client: i.client, path: "$stream/"},
			question{door: "mqtt", action: "consume", kind: "stream", subject: stream, client: i.client, path: "$share/one/$stream/"})
	}
	return all
}

func atPulsar() (all []question) {
	for _, topic := range pulsarTopics {
		stream := pulsarStream(topic)
		produce := question{door: "pulsar", action: "publish", kind: "topic", subject: topic}
		if topic == "wide" {
			produce.also = &question{action: "publish", kind: "stream", subject: stream}
		}
		all = append(all, produce)
		for _, action := range []string{"view", "manage"} {
			all = append(all, question{door: "pulsar", action: action, kind: "stream", subject: stream})
		}
		for _, path := range []string{"read", "subscription", "cursor"} {
			all = append(all, question{door: "pulsar", action: "consume", kind: "stream", subject: stream, path: path})
		}
	}
	return all
}

// pulsarStream is the stream of a topic of public/default.
func pulsarStream(topic string) string { return "public/default/" + topic }

// request is the question in the words of a door of HTTP.
func (q question) request() (method, path, body string) {
	switch q.door + " " + q.kind + " " + q.action {
	case "rest topic publish":
		return "POST", "/api/v1/topics/" + q.subject + "/messages", `{"payload":"x"}`
	case "rest queue consume":
		return "POST", "/api/v1/queues/" + q.subject + "/messages/consume", `{"max_messages":1}`
	case "rest queue manage":
		return "PATCH", "/api/v1/queues/" + q.subject, `{"max_in_flight":7}`
	case "rest queue view":
		return "GET", "/api/v1/queues/" + q.subject, ""
	case "rest stream consume":
		return "GET", "/api/v1/streams/" + q.subject + "/partitions/0/messages", ""
	case "rest stream manage":
		return "PATCH", "/api/v1/streams/" + q.subject, `{"retention_days":7}`
	case "rest stream view":
		return "GET", "/api/v1/streams/" + q.subject, ""
	case "rest server view":
		return "GET", "/api/v1/keys", ""
	case "rest server manage":
		return "DELETE", "/api/v1/keys/nobody", ""
	case "emqx topic publish":
		return "POST", "/api/v5/publish", `{"topic":"` + q.subject + `","payload":"x","qos":1}`
	case "emqx server view":
		return "GET", "/api/v5/clients", ""
	case "emqx server manage":
		return "DELETE", "/api/v5/clients/nobody-of-that-name", ""
	case "fastqueue queue publish":
		return "POST", "/v1/queue/" + q.subject, `{"Action":"SendMessage","MessageBody":"x"}`
	case "fastqueue queue consume":
		return "POST", "/v1/queue/" + q.subject, `{"Action":"ReceiveMessage"}`
	case "fastqueue queue view":
		return "POST", "/v1/queue/" + q.subject, `{"Action":"GetQueueAttributes"}`
	case "memfifo queue publish":
		return "POST", "/queues/" + q.subject + "/messages", "x"
	case "memfifo queue consume":
		return "GET", "/queues/" + q.subject + "/messages", ""
	case "memfifo queue view":
		return "GET", "/queues/" + q.subject, ""
	default:
		return q.pulsarRequest()
	}
}

func (q question) pulsarRequest() (method, path, body string) {
	name := url.PathEscape(strings.TrimPrefix(q.subject, "public/default/"))
	at := "/topics/persistent/public/default/" + name
	switch q.action + " " + q.path {
	case "publish ":
		return "POST", at, `{"messages":[{"payload":"x"}]}`
	case "consume read":
		return "GET", at + "/partitions/0/messages?timeout=0&max_messages=1", ""
	case "consume subscription":
		return "POST", at + "/subscription/one", `{"name":"taken"}`
	case "consume cursor":
		return "GET", at + "/subscription/one/cursor", ""
	case "manage ":
		return "PUT", "/admin/v2/persistent/public/default/" + name + "/partitions", "1"
	default:
		return "GET", "/admin/v2/persistent/public/default/" + name + "/partitions", ""
	}
}

// filter is the question in the words of SUBSCRIBE.
func (q question) filter() string {
	if q.kind == "stream" {
		return q.path + url.PathEscape(q.subject)
	}
	return q.path + q.subject
}

// ask asks at the door itself.
func (d *doors) ask(i *identity, v *device, q question) bool {
	d.t.Helper()
	switch {
	case q.door == "mqtt" && q.action == "publish":
		return d.mayPublish(v, q.subject)
	case q.door == "mqtt":
		return d.maySubscribe(v, q.filter())
	}
	base, client, authorization := "http://"+d.s.ports["http"], &d.client, "Bearer "+i.bearer
	if q.door == "memfifo" {
		base = "http://" + d.s.ports["memfifo"]
	}
	if i.tls != nil {
		base, client, authorization = "https://"+d.s.ports["https"], i.web, ""
	}
	method, path, body := q.request()
	status, answer := d.requestBy(client, base, authorization, method, path, body, false)
	switch {
	case status == 403:
		return false
	case status/100 == 2, q.kind == "server" && status == 404,
		status == 409 && (q.path == "subscription" || q.action == "manage"): // there already
		return true
	}
	d.t.Fatalf("%s asks %+v: %d %s", i.who, q, status, answer)
	return false
}

// dial connects an identity in its own way, and logs in.
func (m *matrix) dial(i *identity, l wire.Login) (*wire.Conn, error) {
	m.t.Helper()
	l.User, l.Password = i.login[0], i.login[1]
	return wire.LogIn(m.socket(i), l)
}

// socket is a connection of an identity to its listener of MQTT.
func (m *matrix) socket(i *identity) net.Conn {
	m.t.Helper()
	var c net.Conn
	var err error
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if i.tls != nil {
		c, err = (&tls.Dialer{NetDialer: dialer, Config: i.tls}).DialContext(m.t.Context(), "tcp", m.s.ports["mqtt-tls"])
	} else {
		c, err = dialer.DialContext(m.t.Context(), "tcp", m.s.ports["mqtt"])
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

// show gives an identity its certificate.
func (i *identity) show(conf *tls.Config) {
	i.tls = conf
	i.web = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: conf.Clone(), ForceAttemptHTTP2: true}}
}
