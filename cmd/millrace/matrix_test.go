package main_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// rule is one access rule as a client writes it.
type rule struct {
	Effect string   `json:"effect"`
	Who    string   `json:"who"`
	Do     []string `json:"do"`
	Filter string   `json:"filter"`
}

// identity is one who asks at the doors.
type identity struct {
	who, role string // user:ann; super is a superuser
	scopes    []string
	login     [2]string // of MQTT
	client    string    // MQTT client id
	bearer    string    // of HTTP; "" has no way in
}

// name is what %u stands for.
func (i *identity) name() string {
	_, name, _ := strings.Cut(i.who, ":")
	return name
}

// question is one cell: who asks for what at which door.
type question struct {
	door          string // mqtt or rest
	action        string
	kind, subject string // topic, queue or server
}

// oracle answers a question by the words of docs/access.md and of package auth,
// and knows nothing of how the broker decides.
func oracle(i *identity, rules []rule, q question) bool {
	client := ""
	if q.door == "mqtt" {
		client = i.client
	}
	if q.kind == "server" {
		return i.role == "super" || i.role == "administrator" || i.role == "viewer" && q.action == "view"
	}
	if i.role == "super" {
		return true
	}
	if q.action == "view" {
		denied := slices.ContainsFunc(rules, func(r rule) bool { return r.Effect == "deny" && speaks(r, i, client, "consume", q) })
		return i.role == "administrator" || i.role == "viewer" && !denied && inScope(i, q) ||
			oracle(i, rules, question{q.door, "consume", q.kind, q.subject}) || oracle(i, rules, question{q.door, "manage", q.kind, q.subject})
	}
	named, allowed := false, false
	for _, r := range rules {
		switch {
		case r.Effect == "deny":
			if speaks(r, i, client, q.action, q) {
				return false
			}
		case about(r, i, client) && (i.role != "administrator" || r.Who != "all"):
			named = true
			allowed = allowed || speaks(r, i, client, q.action, q)
		}
	}
	if named {
		return allowed
	}
	does := map[string][]string{
		"administrator": {"publish", "subscribe", "consume", "manage"}, "publisher": {"publish"},
		"client": {"publish", "subscribe", "consume"}, "anonymous": {"publish", "subscribe", "consume"},
	}[i.role]
	return slices.Contains(does, q.action) && inScope(i, q)
}

func about(r rule, i *identity, client string) bool {
	return r.Who == "all" || r.Who == i.who || client != "" && r.Who == "client:"+client
}

func speaks(r rule, i *identity, client, action string, q question) bool {
	does := slices.Contains(r.Do, action) || q.kind == "queue" && action == "consume" && slices.Contains(r.Do, "subscribe")
	return does && about(r, i, client) && covers(r.Filter, q.kind, q.subject, map[string]string{"%c": client, "%u": i.name()})
}

func inScope(i *identity, q question) bool {
	return len(i.scopes) == 0 || slices.ContainsFunc(i.scopes, func(s string) bool { return covers(s, q.kind, q.subject, nil) })
}

// covers compares level by level; queues have a star at the end at most.
func covers(filter, kind, subject string, stand map[string]string) bool {
	if glob, ok := strings.CutPrefix(filter, "queue:"); ok || kind == "queue" {
		head, _, star := strings.Cut(glob, "*")
		return ok && kind == "queue" && (glob == subject || star && strings.HasPrefix(subject, head))
	}
	levels := strings.Split(subject, "/")
	for n, f := range strings.Split(filter, "/") {
		if v, ok := stand[f]; ok {
			if f = v; v == "" {
				return false
			}
		}
		if f == "#" {
			return true
		}
		if n >= len(levels) || f != "+" && f != levels[n] {
			return false
		}
	}
	return strings.Count(filter, "/")+1 == len(levels)
}

const matrixSecret, matrixPassword = "planted-secret-of-all", "planted password of all"

// identities has one of every kind; ann's token comes from a login.
func identities() []*identity {
	key := func(id, role string, scopes ...string) *identity {
		return &identity{who: "key:" + id, role: role, scopes: scopes, login: [2]string{id, matrixSecret}, client: "dev-" + id, bearer: id + "." + matrixSecret}
	}
	return []*identity{
		key("root", "administrator"), key("view", "viewer"), key("pub", "publisher"), key("app", "client"),
		key("narrow", "client", "m/a/#", "queue:qa"),
		{who: "user:ann", role: "client", login: [2]string{"ann", matrixPassword}, client: "dev-ann"},
		{who: "user:sue", role: "super", login: [2]string{"sue", matrixPassword}, client: "dev-sue"},
		{who: "anonymous", role: "anonymous", client: "dev-nobody"},
	}
}

// drawRules makes a few rules that meet each other.
func drawRules(r *rand.Rand) []rule {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	rules := make([]rule, r.IntN(5))
	for n := range rules {
		x := rule{Effect: pick("allow", "allow", "deny"), Who: pick("all", "anonymous", "user:ann", "user:sue", "key:app", "key:narrow", "key:pub", "key:view", "key:root", "client:dev-app", "client:dev-ann")}
		if r.IntN(3) == 0 {
			x.Filter, x.Do = pick("queue:*", "queue:qa", "queue:qb"), []string{pick("consume", "subscribe", "manage")}
		} else {
			x.Filter, x.Do = pick("m/#", "m/a/#", "m/a/x", "m/+/x", "m/%c/x", "m/%u/#", "#"), []string{pick("publish", "subscribe")}
		}
		if r.IntN(2) == 0 && !strings.HasPrefix(x.Filter, "queue:") {
			x.Do = []string{"publish", "subscribe"}
		}
		rules[n] = x
	}
	return rules
}

// cells are the questions that an identity asks.
func cells(i *identity) (all []question) {
	topics := []string{"m/a/x", "m/b/x", "m/b/y", "m/" + i.client + "/x"}
	if i.name() != "" {
		topics = append(topics, "m/"+i.name()+"/x")
	}
	for _, topic := range topics {
		all = append(all, question{"mqtt", "publish", "topic", topic}, question{"mqtt", "subscribe", "topic", topic}, question{"rest", "publish", "topic", topic})
	}
	for _, queue := range []string{"qa", "qb"} {
		for _, action := range []string{"consume", "manage", "view"} {
			all = append(all, question{"rest", action, "queue", queue})
		}
	}
	return append(all, question{"rest", "view", "server", ""}, question{"rest", "manage", "server", ""})
}

// ask asks at the door itself.
func (d *doors) ask(i *identity, v *device, q question) bool {
	d.t.Helper()
	switch {
	case q.door == "mqtt" && q.action == "publish":
		return d.mayPublish(v, q.subject)
	case q.door == "mqtt":
		return d.maySubscribe(v, q.subject)
	}
	method, path, body := "GET", "/keys", ""
	switch q.kind + " " + q.action {
	case "topic publish":
		method, path, body = "POST", "/topics/"+q.subject+"/messages", `{"payload":"x"}`
	case "queue consume":
		method, path, body = "POST", "/queues/"+q.subject+"/messages/consume", `{"max_messages":1}`
	case "queue manage":
		method, path, body = "PATCH", "/queues/"+q.subject, `{"max_in_flight":7}`
	case "queue view":
		path = "/queues/" + q.subject
	case "server manage":
		method, path, body = "DELETE", "/keys/nobody", ""
	}
	status, answer := d.call("Bearer "+i.bearer, method, path, body, false)
	switch {
	case status == 403:
		return false
	case status == 200, q.kind == "server" && status == 404:
		return true
	}
	d.t.Fatalf("%s asks %+v: %d %s", i.who, q, status, answer)
	return false
}

func TestEveryDoorDecidesAsTheOracle(t *testing.T) {
	var boot strings.Builder
	all := identities()
	for _, i := range all {
		if kind, id, _ := strings.Cut(i.who, ":"); kind == "key" {
			scopes, _ := json.Marshal(i.scopes)
			fmt.Fprintf(&boot, "- {id: %s, secret: %s, role: %s, scopes: %s}\n", id, matrixSecret, i.role, strings.Replace(string(scopes), "null", "[]", 1))
		}
	}
	fmt.Fprintf(&boot, "users:\n- {username: ann, password: %q}\n- {username: sue, password: %q, superuser: true}\n", matrixPassword, matrixPassword)
	boot.WriteString("queues:\n- {name: qa, topic_filter: qa/in, driver: memory}\n- {name: qb, topic_filter: qb/in, driver: memory}\n")
	d := openDoors(t, boot.String(), matrixSecret, matrixPassword)
	devices := map[*identity]*device{}
	for _, i := range all {
		if kind, name, _ := strings.Cut(i.who, ":"); kind == "user" {
			i.bearer = d.login(name, matrixPassword)
		}
		devices[i] = d.device(i.client, i.login[0], i.login[1])
	}
	const seed, sets = 7, 12
	r := rand.New(rand.NewPCG(seed, seed))
	asked, granted := 0, 0
	for set, want := 0, fromEnv(t, "MILLRACE_ACCESS_CELLS", 0); set < sets || int64(asked) < want; set++ {
		rules := drawRules(r)
		text, err := json.Marshal(map[string]any{"rules": rules})
		if err != nil {
			t.Fatal(err)
		}
		d.admin("PUT", "/rules", string(text))
		for _, i := range all {
			for _, q := range cells(i) {
				if q.door == "rest" && i.bearer == "" {
					continue
				}
				got, want := d.ask(i, devices[i], q), oracle(i, rules, q)
				if asked++; got {
					granted++
				}
				if got != want {
					t.Errorf("set %d: %s at %s: %s %s %s: got %t, want %t; rules %s", set, i.who, q.door, q.action, q.kind, q.subject, got, want, text)
				}
			}
		}
	}
	t.Logf("%d cells, %d granted", asked, granted)
	if asked < 1000 || granted*5 < asked || granted*5 > asked*4 {
		t.Errorf("%d cells, %d granted: the rules say too little", asked, granted)
	}
	d.searchSecrets()
}
