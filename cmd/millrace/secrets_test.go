package main_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"millrace/cmd/millrace/wire"
)

// plants makes secrets that are easy to find again.
type plants struct {
	*doors
	n     int
	known []string // those that are good for something
}

// plant makes one that nobody knows: it must stand nowhere.
func (p *plants) plant() string {
	p.n++
	s := fmt.Sprintf("planted-%02d-Zq7xV", p.n)
	p.secrets = append(p.secrets, s)
	return s
}

// ask makes a request with a secret in it that nobody is to see again.
func (p *plants) ask(base, authorization, method, path, body string, header ...string) int {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, base+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	for n := 0; n+1 < len(header); n += 2 {
		r.Header.Set(header[n], header[n+1])
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w, err := p.client.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = w.Body.Close() }()
	if _, err := p.answers.ReadFrom(w.Body); err != nil {
		p.t.Fatal(err)
	}
	_ = w.Header.Write(&p.answers)
	return w.StatusCode
}

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

// overHTTP sends secrets, right and wrong, in every place of a request.
func (p *plants) overHTTP(key, password string) {
	p.t.Helper()
	bases := []string{p.s.url(), p.s.url(), p.s.url(), p.s.url() + "/", "http://" + p.s.ports["memfifo"]}
	for n, path := range []string{"/api/v1/queues", "/v1/queues", "/api/v5/clients", "admin/v2/clusters", "/queues"} {
		base := bases[n]
		p.ask(base, "Bearer app."+key, "GET", path, "")
		p.ask(base, basic("app", key), "GET", path, "")
		p.ask(base, "Bearer app."+p.plant(), "GET", path, "")
		p.ask(base, "Bearer "+p.plant(), "GET", path, "")
		p.ask(base, basic("app", p.plant()), "GET", path, "")
		p.ask(base, basic(p.plant(), "x"), "GET", path, "")
		p.ask(base, p.plant(), "GET", path, "")
		p.ask(base, "", "GET", path+"?access_token="+p.plant(), "", "Cookie", "session="+p.plant(), "X-Api-Key", p.plant())
	}
	api := p.s.url() + "/api/v1"
	for _, body := range []string{
		`{"username":"ann","password":%q}`, `{"username":%q,"password":"x"}`, `{"username":"ann","password":[%q]}`,
		`{"username":"ann","passwort":%q}`, `{"username":"ann","password":%q`, `{"username":"ann","password":%q} {}`,
	} {
		p.ask(api, "", "POST", "/login", fmt.Sprintf(body, p.plant()))
		p.ask(p.s.url(), "", "POST", "/v1/auth/login", fmt.Sprintf(body, p.plant()))
		p.ask(p.s.url(), "", "POST", "/v1/auth/register", fmt.Sprintf(strings.Replace(body, "ann", "", 1), p.plant()))
	}
	p.ask(api, "", "POST", "/login/refresh", fmt.Sprintf(`{"refresh_token":%q}`, p.plant()))
	p.ask(api, "", "POST", "/logout", fmt.Sprintf(`{"refresh_token":%q}`, p.plant()))
	p.ask(api, "", "POST", "/login/password", fmt.Sprintf(`{"username":"ann","password":%q,"new_password":%q}`, p.plant(), p.plant()))
	root := "Bearer " + testKey
	fresh := p.plant()
	p.known = append(p.known, fresh)
	if status := p.ask(api, "", "POST", "/login/password", fmt.Sprintf(`{"username":"ann","password":%q,"new_password":%q}`, password, fresh)); status != 200 {
		p.t.Errorf("own password: status %d", status)
	}
	for _, made := range []string{`{"username":"bob","password":%q}`, `{"username":"","password":%q}`, `{"username":"eve","password":%q,"role":"x"}`} {
		p.ask(api, root, "POST", "/users", fmt.Sprintf(made, p.plant()))
	}
	p.ask(api, root, "PATCH", "/users/bob", fmt.Sprintf(`{"password":%q}`, p.plant()))
	if status, _ := p.call(root, "POST", "/keys", fmt.Sprintf(`{"id":"k1","secret":%q}`, p.plant()), true); status != 201 { // the one answer that tells it
		p.t.Errorf("make a key: status %d", status)
	}
	for _, made := range []string{`{"id":"?","secret":%q}`, `{"id":"k2","secret":%q,"role":"x"}`, `{"id":"app","secret":%q}`} {
		p.ask(api, root, "POST", "/keys", fmt.Sprintf(made, p.plant()))
	}
	status, text := p.call(root, "POST", "/keys/k1/secrets", "", true)
	var second struct{ Data struct{ Secret string } }
	if err := json.Unmarshal(text, &second); err != nil || status/100 != 2 || len(second.Data.Secret) != 43 {
		p.t.Fatalf("%d, %v", status, err)
	}
	p.secrets = append(p.secrets, second.Data.Secret)
	p.login("ann", fresh)
}

// overMQTT logs in with them, rightly and wrongly.
func (p *plants) overMQTT(key, password string) {
	p.t.Helper()
	for _, l := range []wire.Login{
		{ClientID: "d1", User: "app", Password: key},
		{ClientID: "d2", User: "ann", Password: password},
		{ClientID: "d3", User: "app", Password: p.plant()},
		{ClientID: "d4", User: "ann", Password: p.plant()},
		{ClientID: "d5", User: p.plant(), Password: "x"}, // typed one field too early
		{ClientID: "d6", User: "app", Password: key, WillTopic: "$SYS/x", WillPayload: p.plant()},
	} {
		if c, err := wire.Dial(p.t.Context(), p.s.ports["mqtt"], l); err == nil {
			_, _ = c.Write(wire.AppendPublish(nil, "$SYS/y", 1, 1, []byte(p.plant()))) // refused and logged
			_, _ = c.Read1()
			_ = c.Close()
		}
	}
}

// overCommands gives them to client commands, whose output counts as answers.
func (p *plants) overCommands() {
	p.t.Helper()
	for _, args := range [][]string{
		{"queue", "ls", "--url", p.s.url(), "--key", "app." + p.plant()},
		{"queue", "ls", "--url", p.s.url(), "--key", p.plant()},
		{"user", "add", "carl", "--password", p.plant(), "--url", p.s.url(), "--key", testKey},
		{"user", "add", "", "--password", p.plant(), "--url", p.s.url(), "--key", testKey},
		{"user", "passwd", "ann", "--old-password-file", secretFile(p.t, p.plant()), "--password", p.plant(), "--url", p.s.url()},
		{"key", "add", "app", "--secret-file", secretFile(p.t, p.plant()), "--url", p.s.url(), "--key", testKey},
		{"pub", "-t", "a", "-m", "x", "-u", "app", "-P", p.plant(), "-p", p.s.ports["mqtt"][strings.LastIndexByte(p.s.ports["mqtt"], ':')+1:]},
		{"serve", "--store", "nats://app:" + p.plant() + "@127.0.0.1:1"},
		{"serve", "--bootstrap-file", bootstrapFile(p.t, "api_keys:\n- {id: a, secret: "+p.plant()+", role: nobody}\n"), "--data", p.t.TempDir(), "--mqtt-listen", "none", "--http-listen", "127.0.0.1:0"},
		{"serve", "--bootstrap-file", bootstrapFile(p.t, "api_keys:\n- {id: a, secret: "+p.plant()+", rolle: client}\n")},
		{"serve", "--bootstrap-file", bootstrapFile(p.t, "api_keys:\n- {id: a, secret: "+p.plant()+"\nusers: x\n")},
		{"serve", "--bootstrap-file", bootstrapFile(p.t, "users:\n- {username: a, password: ["+p.plant()+"]}\n")},
		{"serve", "--config", bootstrapFile(p.t, "store:\n  url: nats://u:"+p.plant()+"@x\n  sync: [maybe]\n")},
	} {
		out, errs, _ := command(p.t, args...)
		p.answers.WriteString(out + errs)
	}
}

// onDisk looks for those that are good for something in every file of the data
// directory: of them only hashes are kept.
func (p *plants) onDisk() {
	p.t.Helper()
	files := 0
	err := filepath.WalkDir(p.data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files++
		for _, secret := range append(p.known, p.secrets...) {
			if bytes.Contains(text, []byte(secret)) {
				p.t.Errorf("the secret %q is in the file %s", secret, filepath.Base(path))
			}
		}
		return err
	})
	if err != nil || files < 2 {
		p.t.Errorf("%d files: %v", files, err)
	}
}

// inOtherForms adds what a secret looks like when it was encoded on the way.
func (p *plants) inOtherForms() {
	for _, s := range p.secrets {
		b := base64.StdEncoding.EncodeToString([]byte(s))
		p.secrets = append(p.secrets, b[:len(b)-4], hex.EncodeToString([]byte(s)))
		if e := url.QueryEscape(s); e != s {
			p.secrets = append(p.secrets, e)
		}
	}
}

func TestNoSecretIsWrittenDown(t *testing.T) {
	p := &plants{doors: &doors{}}
	key, password := p.plant(), p.plant()
	p.known = append(p.known, key, password)
	p.doors = openDoors(t, "- {id: app, secret: "+key+"}\nusers:\n- {username: ann, password: "+password+"}\n", p.secrets...)
	p.overMQTT(key, password)
	p.overHTTP(key, password)
	p.overCommands()
	if p.n < 50 {
		t.Errorf("only %d secrets were planted", p.n)
	}
	p.inOtherForms()
	p.searchSecrets()
	p.onDisk()
}

// TestADumpOfTheProcessTellsNoSecret ends the broker as an operator does who
// wants to see what it hangs on.
func TestADumpOfTheProcessTellsNoSecret(t *testing.T) {
	p := &plants{doors: &doors{t: t}}
	key, password := p.plant(), p.plant()
	boot := testKeyYAML + "- {id: app, secret: " + key + "}\nusers:\n- {username: ann, password: " + password + "}\n"
	p.s = startServer(t, "--data", t.TempDir(), "--log-level", "debug", "--bootstrap-file", bootstrapFile(t, boot)) // nobody is anonymous
	p.overMQTT(key, password)
	if c, err := wire.Dial(t.Context(), p.s.ports["mqtt"], wire.Login{ClientID: "open", User: "ann", Password: password}); err != nil {
		t.Fatal(err)
	} else {
		t.Cleanup(func() { _ = c.Close() })
	}
	if err := p.s.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-p.s.ended
	text, err := os.ReadFile(p.s.log)
	if err != nil || !bytes.Contains(text, []byte("goroutine ")) {
		t.Fatalf("no dump: %v", err)
	}
	p.inOtherForms()
	for _, secret := range p.secrets {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("the secret %q is in the dump", secret)
		}
	}
	if _, ok := p.s.err.(*exec.ExitError); !ok { //nolint:errorlint // of Wait, never wrapped
		t.Errorf("the broker ended with %v", p.s.err)
	}
}
