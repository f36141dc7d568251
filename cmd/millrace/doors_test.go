package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

// doors is a broker whose every answer, log and audit line is kept, to be
// searched for the secrets that were planted.
type doors struct {
	t       *testing.T
	s       *server
	data    string
	client  http.Client
	answers bytes.Buffer
	secrets []string
}

func openDoors(t *testing.T, bootstrap string, secrets ...string) *doors {
	t.Helper()
	return openDoorsWith(t, nil, bootstrap, secrets...)
}

// openDoorsWith starts the broker with more arguments.
func openDoorsWith(t *testing.T, args []string, bootstrap string, secrets ...string) *doors {
	t.Helper()
	data := t.TempDir()
	s := startServer(t, append([]string{
		"--data", data, "--log-level", "debug", "--allow-anonymous", "--memfifo-listen", "127.0.0.1:0", "--bootstrap-file", bootstrapFile(t, testKeyYAML+bootstrap),
	}, args...)...)
	return &doors{t: t, s: s, data: data, secrets: append(secrets, testSecret), client: http.Client{Timeout: 30 * time.Second}}
}

// call sends a request with the Authorization given; telling says that the
// answer is one of those that tell a secret.
func (d *doors) call(authorization, method, path, body string, telling bool) (status int, answer []byte) {
	d.t.Helper()
	return d.request(d.s.url(), authorization, method, "/api/v1"+path, body, telling)
}

// request is call at the listener of any dialect.
func (d *doors) request(base, authorization, method, path, body string, telling bool) (status int, answer []byte) {
	d.t.Helper()
	return d.requestBy(&d.client, base, authorization, method, path, body, telling)
}

// requestBy is request by another client.
func (d *doors) requestBy(client *http.Client, base, authorization, method, path, body string, telling bool) (status int, answer []byte) {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, base+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json") // memfifo wants it
	r.Header.Set("Client-Id", "doors")
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w, err := client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = w.Body.Close() }()
	answer, err = io.ReadAll(w.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	if !telling {
		d.answers.Write(answer)
		_ = w.Header.Write(&d.answers)
	}
	return w.StatusCode, answer
}

// admin wants a call of the administrator to succeed.
func (d *doors) admin(method, path, body string) []byte {
	d.t.Helper()
	status, answer := d.call("Bearer "+testKey, method, path, body, false)
	if status/100 != 2 {
		d.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	return answer
}

// login returns an access token, which is a secret from then on.
func (d *doors) login(name, password string) string {
	d.t.Helper()
	status, text := d.call("", "POST", "/login", fmt.Sprintf(`{"username":%q,"password":%q}`, name, password), true)
	var answer struct {
		Data struct {
			Access  string `json:"access_token"`
			Refresh string `json:"refresh_token"`
		}
	}
	if err := json.Unmarshal(text, &answer); err != nil || status != 200 {
		d.t.Fatalf("login of %s: %d %s", name, status, text)
	}
	d.secrets = append(d.secrets, answer.Data.Access, answer.Data.Refresh)
	return answer.Data.Access
}

// device is an MQTT 5 client.
type device struct {
	*paho.Client
	ended   chan byte // the reason of the server's DISCONNECT
	arrived chan string
}

func (d *doors) device(id, user, password string) *device {
	d.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(d.t.Context(), "tcp", d.s.ports["mqtt"])
	if err != nil {
		d.t.Fatal(err)
	}
	return d.deviceOn(conn, id, user, password)
}

// deviceOn is a device on a connection that is open.
func (d *doors) deviceOn(conn net.Conn, id, user, password string) *device {
	d.t.Helper()
	v := &device{ended: make(chan byte, 1), arrived: make(chan string, 100)}
	v.Client = paho.NewClient(paho.ClientConfig{
		ClientID: id, Conn: packets.NewThreadSafeConn(conn), // which TLS needs
		OnServerDisconnect: func(p *paho.Disconnect) { v.ended <- p.ReasonCode },
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			select {
			case v.arrived <- string(r.Packet.Payload):
			default: // nobody counts so many
			}
			return true, nil
		}},
	})
	c := &paho.Connect{ClientID: id, CleanStart: true, KeepAlive: 60}
	if user != "" {
		c.Username, c.UsernameFlag, c.Password, c.PasswordFlag = user, true, []byte(password), true
	}
	if _, err := v.Connect(d.t.Context(), c); err != nil {
		d.t.Fatalf("connect as %s: %v", id, err)
	}
	d.t.Cleanup(func() { _ = v.Disconnect(&paho.Disconnect{}) })
	return v
}

// may reports whether what was asked is allowed, from the reason of the answer.
func (d *doors) may(reason byte, err error) bool {
	d.t.Helper()
	switch {
	case reason == 0x87:
		return false
	case err != nil || reason >= 0x80:
		d.t.Fatalf("reason 0x%02x, %v", reason, err)
	}
	return true
}

func (d *doors) mayPublish(v *device, topic string) bool {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	defer cancel()
	r, err := v.Publish(ctx, &paho.Publish{Topic: topic, QoS: 1, Payload: []byte("x")})
	if r == nil {
		d.t.Fatalf("publish to %s: %v", topic, err)
	}
	return d.may(r.ReasonCode, err)
}

func (d *doors) maySubscribe(v *device, filter string) bool {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	defer cancel()
	r, err := v.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}})
	if r == nil || len(r.Reasons) != 1 {
		d.t.Fatalf("subscribe to %s: %v", filter, err)
	}
	return d.may(r.Reasons[0], err)
}

// searchSecrets stops the broker and looks for every secret in all it said.
func (d *doors) searchSecrets() {
	d.t.Helper()
	d.s.stop()
	said := map[string][]byte{"answers": d.answers.Bytes()}
	for _, path := range []string{d.s.log, d.s.out, filepath.Join(d.data, "audit.log")} {
		text, err := os.ReadFile(path)
		if err != nil {
			d.t.Fatal(err)
		}
		said[filepath.Base(path)] = text
	}
	for where, text := range said {
		for _, secret := range d.secrets {
			if bytes.Contains(text, []byte(secret)) {
				d.t.Errorf("the secret %q is in the %s", secret, where)
			}
		}
	}
	if len(said["log"]) == 0 || len(said["audit.log"]) == 0 || len(said["answers"]) == 0 {
		d.t.Error("something said nothing")
	}
}

func TestChangesAreFeltAtEveryDoor(t *testing.T) {
	const felt = 5 * time.Second
	const secret, password = "planted-secret-of-app", "planted password of ann"
	d := openDoors(t, `- {id: app, secret: `+secret+`}
- {id: pub, secret: `+secret+`, role: publisher}
users:
- {username: ann, password: `+password+`}
rules:
- {effect: allow, who: "key:pub", do: [subscribe], filter: felt/rule}
`, secret, password)
	app, ann, pub := d.device("app-1", "app", secret), d.device("ann-1", "ann", password), d.device("pub-1", "pub", secret)
	token := d.login("ann", password)
	if status, text := d.call("Bearer app."+secret, "GET", "/queues", "", false); status != 200 {
		t.Fatalf("%d %s", status, text)
	}

	closed := func(v *device, who string) {
		t.Helper()
		select {
		case reason := <-v.ended:
			if reason != 0x87 {
				t.Errorf("%s was sent 0x%02x", who, reason)
			}
		case <-time.After(felt):
			t.Errorf("%s is still connected after %s", who, felt)
		}
	}
	d.admin("DELETE", "/keys/app", "")
	if status, _ := d.call("Bearer app."+secret, "GET", "/queues", "", false); status != 401 {
		t.Errorf("status %d with a key that was revoked", status)
	}
	closed(app, "the revoked key")
	d.admin("PATCH", "/users/ann", `{"disabled":true}`)
	if status, _ := d.call("Bearer "+token, "GET", "/queues", "", false); status != 401 {
		t.Errorf("status %d with a token of a disabled user", status)
	}
	closed(ann, "the disabled user")

	if !d.maySubscribe(pub, "felt/rule") {
		t.Fatal("the rule gives nothing")
	}
	subscribers := func() (n int) {
		var answer struct {
			Data struct{ Matched struct{ Subscribers int } }
		}
		if err := json.Unmarshal(d.admin("POST", "/topics/felt/rule/messages", `{"payload":"x"}`), &answer); err != nil {
			t.Fatal(err)
		}
		return answer.Data.Matched.Subscribers
	}
	if n := subscribers(); n != 1 {
		t.Fatalf("%d subscribers", n)
	}
	<-pub.arrived
	d.admin("PUT", "/rules", `{"rules":[]}`)
	if !eventually(felt, func() bool { return subscribers() == 0 }) {
		t.Errorf("the subscription is there %s after the rule went", felt)
	}
	for len(pub.arrived) > 0 { // of before it was felt
		<-pub.arrived
	}
	subscribers()
	if d.maySubscribe(pub, "felt/rule") {
		t.Error("the rule that went still gives something")
	}
	if len(pub.arrived) > 0 { // the answer to SUBSCRIBE comes after it
		t.Error("a message arrived after the change was felt")
	}
	d.searchSecrets()
}

func TestWrongPasswordsAreBrakedAndNothingElse(t *testing.T) {
	const secret, password = "planted-secret-of-app", "planted password of ann"
	d := openDoors(t, `- {id: app, secret: `+secret+`}
users:
- {username: ann, password: `+password+`}
`, secret, password)
	braked := false
	for i := range 15 {
		guess := fmt.Sprintf("planted guess %02d of nobody", i)
		d.secrets = append(d.secrets, guess)
		status, _ := d.call("", "POST", "/login", fmt.Sprintf(`{"username":"ann","password":%q}`, guess), false)
		d.call("Bearer app."+strings.ReplaceAll(guess, " ", "-"), "GET", "/queues", "", false)
		d.call("", "GET", "/queues?access_token="+strings.ReplaceAll(guess, " ", "-"), "", false)
		d.call("", "POST", "/login", fmt.Sprintf(`{"username":"ann","password":[%q]}`, guess), false)
		d.call("Bearer "+testKey, "POST", "/users", fmt.Sprintf(`{"username":"","password":%q}`, guess), false)
		d.call("Bearer "+testKey, "POST", "/keys", fmt.Sprintf(`{"id":"?","secret":%q}`, guess), false)
		d.secrets = append(d.secrets, strings.ReplaceAll(guess, " ", "-"))
		if want := map[bool]int{false: 401, true: 429}[i >= 10]; status != want {
			t.Errorf("wrong password %d: status %d, want %d", i+1, status, want)
		}
		braked = braked || status == 429
	}
	if !braked || !strings.Contains(d.answers.String(), "Retry-After: ") {
		t.Error("no wait was told")
	}
	if status, _ := d.call("Bearer app."+secret, "GET", "/queues", "", false); status != 200 {
		t.Errorf("status %d with a right key", status)
	}
	d.searchSecrets()
}
