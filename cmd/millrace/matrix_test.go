package main_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

const matrixSecret, matrixPassword = "planted-secret-of-all", "planted password of all"

// identities has one of every kind; ann's token comes from a login.
func identities() []*identity {
	key := func(id, role string, scopes ...string) *identity {
		return &identity{who: "key:" + id, role: role, scopes: scopes, login: [2]string{id, matrixSecret}, client: "dev-" + id, bearer: id + "." + matrixSecret}
	}
	return []*identity{
		key("root", "administrator"), key("view", "viewer"), key("pub", "publisher"), key("app", "client"),
		key("narrow", "client", "m/a/#", "queue:qa", "stream:s*"),
		{who: "user:ann", role: "client", login: [2]string{"ann", matrixPassword}, client: "dev-ann"},
		{who: "user:sue", role: "super", login: [2]string{"sue", matrixPassword}, client: "dev-sue"},
		{who: "anonymous", role: "anonymous", client: "dev-nobody"},
	}
}

// matrixTopics are published to, and all retained.
var matrixTopics = []string{"m/a/x", "m/b/x", "m/b/y", "m/c", "m/ann/x", "m/app/x", "m/dev-ann-live/x", "m/dev-app-share/x", "m/$odd/x"}

// drawRules makes a few rules that meet each other.
func drawRules(r *rand.Rand) []rule {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	rules := make([]rule, r.IntN(5))
	for n := range rules {
		x := rule{Effect: pick("allow", "allow", "deny"), Who: pick("all", "anonymous", "user:ann", "user:sue", "key:app", "key:narrow", "key:pub", "key:view", "key:root",
			"client:dev-app", "client:dev-ann", "client:dev-ann-live", "client:dev-nobody-share")}
		if r.IntN(3) == 0 {
			x.Filter = pick("queue:*", "queue:qa", "queue:qb", "queue:qf", "stream:*", "stream:sa")
			x.Do = []string{pick("consume", "subscribe", "manage", "publish")}
		} else {
			x.Filter, x.Do = pick("m/#", "m/a/#", "m/a/x", "m/+/x", "m/%c/x", "m/%u/#", "#"), []string{pick("publish", "subscribe")}
			if r.IntN(2) == 0 {
				x.Do = []string{"publish", "subscribe"}
			}
		}
		rules[n] = x
	}
	return rules
}

// cells are the questions that an identity asks one by one.
func cells(i *identity) (all []question) {
	for _, topic := range matrixTopics {
		all = append(all, question{door: "mqtt", action: "publish", kind: "topic", subject: topic, client: i.client},
			question{door: "mqtt", action: "subscribe", kind: "topic", subject: topic, client: i.client},
			question{door: "mqtt", action: "subscribe", kind: "topic", subject: topic, client: i.client, path: "$share/one/"})
	}
	for _, queue := range []string{"qa", "qb"} {
		all = append(all, question{door: "mqtt", action: "consume", kind: "queue", subject: queue, client: i.client, path: "$queue/"})
	}
	if i.bearer == "" {
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
	if strings.HasPrefix(i.who, "user:") {
		return all // tokens of /api/v1 are not taken by the other dialects
	}
	for _, topic := range matrixTopics[:4] {
		all = append(all, question{door: "emqx", action: "publish", kind: "topic", subject: topic})
	}
	all = append(all, question{door: "emqx", action: "view", kind: "server"}, question{door: "emqx", action: "manage", kind: "server"})
	for _, action := range []string{"publish", "consume", "view"} {
		all = append(all, question{door: "fastqueue", action: action, kind: "queue", subject: "qf"},
			question{door: "memfifo", action: action, kind: "queue", subject: "qm"})
	}
	return all
}

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
	default:
		return "GET", "/queues/" + q.subject, ""
	}
}

// ask asks at the door itself.
func (d *doors) ask(i *identity, v *device, q question) bool {
	d.t.Helper()
	switch {
	case q.door == "mqtt" && q.action == "publish":
		return d.mayPublish(v, q.subject)
	case q.door == "mqtt":
		return d.maySubscribe(v, q.path+q.subject)
	}
	listener := "http"
	if q.door == "memfifo" {
		listener = "memfifo"
	}
	method, path, body := q.request()
	status, answer := d.request("http://"+d.s.ports[listener], "Bearer "+i.bearer, method, path, body, false)
	switch {
	case status == 403:
		return false
	case status/100 == 2, q.kind == "server" && status == 404:
		return true
	}
	d.t.Fatalf("%s asks %+v: %d %s", i.who, q, status, answer)
	return false
}

// matrix counts the cells and what they said.
type matrix struct {
	*doors
	all            []*identity
	devices        map[*identity]*device
	rules          []rule
	set            int
	asked, granted int
}

// check is one cell.
func (m *matrix) check(i *identity, q question, got bool) {
	m.t.Helper()
	if m.asked++; got {
		m.granted++
	}
	if want := oracle(i, m.rules, q); got != want {
		text, _ := json.Marshal(m.rules)
		m.t.Errorf("set %d: %s: %+v: got %t, want %t; rules %s", m.set, i.who, q, got, want, text)
	}
}

// matrixBootstrap makes the identities, and what they ask for.
func matrixBootstrap(all []*identity) string {
	var boot strings.Builder
	for _, i := range all {
		if kind, id, _ := strings.Cut(i.who, ":"); kind == "key" {
			scopes, _ := json.Marshal(i.scopes)
			fmt.Fprintf(&boot, "- {id: %s, secret: %s, role: %s, scopes: %s}\n", id, matrixSecret, i.role, strings.Replace(string(scopes), "null", "[]", 1))
		}
	}
	fmt.Fprintf(&boot, "users:\n- {username: ann, password: %q}\n- {username: sue, password: %q, superuser: true}\n", matrixPassword, matrixPassword)
	boot.WriteString("queues:\n- {name: qa, topic_filter: qa/in, driver: memory}\n- {name: qb, topic_filter: qb/in, driver: memory}\n")
	boot.WriteString("streams:\n- {name: sa, topic_filter: sa/in}\n- {name: tb, topic_filter: tb/in}\n")
	return boot.String()
}

func TestEveryDoorDecidesAsTheOracle(t *testing.T) {
	all := identities()
	d := openDoors(t, matrixBootstrap(all), matrixSecret, matrixPassword)
	m := &matrix{doors: d, all: all, devices: map[*identity]*device{}}
	for _, i := range all {
		if kind, name, _ := strings.Cut(i.who, ":"); kind == "user" {
			i.bearer = d.login(name, matrixPassword)
		}
		m.devices[i] = d.device(i.client, i.login[0], i.login[1])
	}
	for where, made := range map[string][2]string{"http": {"/v1/queues", `{"name":"qf"}`}, "memfifo": {"/queues", `{"name":"qm","driver":"memfifo"}`}} {
		if status, text := d.request("http://"+d.s.ports[where], "Bearer "+testKey, "POST", made[0], made[1], false); status/100 != 2 {
			t.Fatalf("%d %s", status, text)
		}
	}
	live := m.observe()
	away := &kept{observers: live, granted: map[*identity]bool{}}
	r := rand.New(rand.NewPCG(7, 7))
	for wanted := fromEnv(t, "MILLRACE_ACCESS_CELLS", 5_000); int64(m.asked) < wanted && !t.Failed(); m.set++ {
		m.rules = drawRules(r)
		text, err := json.Marshal(map[string]any{"rules": m.rules})
		if err != nil {
			t.Fatal(err)
		}
		d.admin("PUT", "/rules", string(text))
		away.comeBack()
		live.afterAChange()
		for _, i := range all {
			for _, q := range cells(i) {
				m.check(i, q, d.ask(i, m.devices[i], q))
			}
		}
		live.subscribeAnew()
		live.wills()
		away.leave()
	}
	t.Logf("%d cells in %d sets of rules, %d granted", m.asked, m.set, m.granted)
	if m.granted*5 < m.asked || m.granted*5 > m.asked*4 {
		t.Errorf("%d cells, %d granted: the rules say too little", m.asked, m.granted)
	}
	d.searchSecrets()
}
