package main_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"millrace/cmd/millrace/certs/certstest"
)

const matrixSecret, matrixPassword = "planted-secret-of-all", "planted password of all"

// identities has one of every kind; ann's token comes from a login.
func identities() []*identity {
	key := func(id, role string, scopes ...string) *identity {
		return &identity{who: "key:" + id, role: role, scopes: scopes, login: [2]string{id, matrixSecret}, client: "dev-" + id, bearer: id + "." + matrixSecret}
	}
	return []*identity{
		key("root", "administrator"), key("view", "viewer"), key("pub", "publisher"), key("app", "client"),
		key("narrow", "client", "m/a/#", "wide", "queue:qa", "stream:s*", "stream:public/default/m/a/*"),
		{who: "user:ann", role: "client", login: [2]string{"ann", matrixPassword}, client: "dev-ann"},
		{who: "user:cat", role: "client", client: "dev-cat"}, // by her certificate
		{who: "user:sue", role: "super", login: [2]string{"sue", matrixPassword}, client: "dev-sue"},
		{who: "anonymous", role: "anonymous", client: "dev-nobody"},
	}
}

// matrixTopics are published to, and all retained.
var matrixTopics = []string{"m/a/x", "m/b/x", "m/b/y", "m/c", "m/ann/x", "m/app/x", "m/cat/x", "m/dev-ann-live/x", "m/dev-app-share/x", "m/$odd/x"}

// drawRules makes a few rules that meet each other.
func drawRules(r *rand.Rand) []rule {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	rules := make([]rule, r.IntN(5))
	for n := range rules {
		x := rule{Effect: pick("allow", "allow", "deny"), Who: pick("all", "anonymous", "user:ann", "user:sue", "user:cat", "key:app", "key:narrow", "key:pub", "key:view", "key:root",
			"client:dev-app", "client:dev-ann", "client:dev-cat", "client:dev-ann-live", "client:dev-nobody-share")}
		if r.IntN(3) == 0 {
			x.Filter = pick("queue:*", "queue:qa", "queue:qb", "queue:qf", "stream:*", "stream:sa", "stream:public/*", "stream:public/default/m/a/x", "stream:public/default/wide")
			x.Do = []string{pick("consume", "subscribe", "manage", "publish")}
		} else {
			x.Filter, x.Do = pick("m/#", "m/a/#", "m/a/x", "m/+/x", "m/%c/x", "m/%u/#", "wide", "#"), []string{pick("publish", "subscribe")}
			if r.IntN(2) == 0 {
				x.Do = []string{"publish", "subscribe"}
			}
		}
		rules[n] = x
	}
	return rules
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
	fmt.Fprintf(&boot, "users:\n- {username: ann, password: %[1]q}\n- {username: cat, password: %[1]q}\n- {username: sue, password: %[1]q, superuser: true}\n", matrixPassword)
	boot.WriteString("queues:\n- {name: qa, topic_filter: qa/in, driver: memory}\n- {name: qb, topic_filter: qb/in, driver: memory}\n")
	boot.WriteString("streams:\n- {name: sa, topic_filter: sa/in}\n- {name: tb, topic_filter: tb/in}\n")
	for _, topic := range pulsarTopics {
		filter := topic
		if topic == "wide" {
			filter = "wide/#"
		}
		fmt.Fprintf(&boot, "- {name: %s, topic_filter: %q}\n", pulsarStream(topic), filter)
	}
	return boot.String()
}

// withCertificates are the arguments of a broker whose doors take certificates,
// and the authority that signs them.
func withCertificates(t *testing.T) (*certstest.CA, []string) {
	t.Helper()
	dir, ca := t.TempDir(), certstest.NewCA(t, "authority")
	ca.Write(t, dir, "ca")
	ca.Issue(t, certstest.Server("127.0.0.1")).Write(t, dir, "server")
	return ca, []string{
		"--mqtt-tls-listen", "127.0.0.1:0", "--http-tls-listen", "127.0.0.1:0", "--set", "http.client_auth=optional",
		"--tls-cert", filepath.Join(dir, "server.pem"), "--tls-key", filepath.Join(dir, "server.key"), "--tls-client-ca", filepath.Join(dir, "ca.pem"),
	}
}

func TestEveryDoorDecidesAsTheOracle(t *testing.T) {
	all := identities()
	ca, args := withCertificates(t)
	d := openDoorsWith(t, args, matrixBootstrap(all), matrixSecret, matrixPassword)
	m := &matrix{doors: d, all: all, devices: map[*identity]*device{}}
	for _, i := range all {
		switch kind, name, _ := strings.Cut(i.who, ":"); {
		case name == "cat":
			i.show(&tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{*ca.Issue(t, certstest.Client(name)).TLS()}})
			t.Cleanup(i.web.CloseIdleConnections)
		case kind == "user":
			i.bearer = d.login(name, matrixPassword)
		}
		m.devices[i] = d.deviceOn(m.socket(i), i.client, i.login[0], i.login[1])
	}
	for where, made := range map[string][2]string{"http": {"/v1/queues", `{"name":"qf"}`}, "memfifo": {"/queues", `{"name":"qm","driver":"memfifo"}`}} {
		if status, text := d.request("http://"+d.s.ports[where], "Bearer "+testKey, "POST", made[0], made[1], false); status/100 != 2 {
			t.Fatalf("%d %s", status, text)
		}
	}
	for _, topic := range pulsarTopics {
		_, path, _ := question{subject: pulsarStream(topic), action: "consume", path: "subscription"}.pulsarRequest()
		if status, text := d.request(d.s.url(), "Bearer "+testKey, "POST", path, `{"name":"taken"}`, false); status/100 != 2 {
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
				if r.IntN(2) == 0 { // the others come under other rules
					m.check(i, q, d.ask(i, m.devices[i], q))
				}
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
