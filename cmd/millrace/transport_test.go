package main_test

import (
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"millrace/cmd/millrace/certs/certstest"
)

// TestEveryListenerOfMQTT has one message come in by each listener of the
// program, and out by all of them.
func TestEveryListenerOfMQTT(t *testing.T) {
	dir := t.TempDir()
	ca := certstest.NewCA(t, "authority")
	ca.Write(t, dir, "ca")
	ca.Issue(t, certstest.Server("127.0.0.1")).Write(t, dir, "server")
	sock := filepath.Join(dir, "mqtt.sock")
	s := startServer(t, "--dev",
		"--mqtt-tls-listen", "127.0.0.1:0", "--mqtt-ws-listen", "127.0.0.1:0", "--mqtt-wss-listen", "127.0.0.1:0", "--mqtt-unix-listen", sock,
		"--tls-cert", filepath.Join(dir, "server.pem"), "--tls-key", filepath.Join(dir, "server.key"))
	roots := &tls.Config{RootCAs: ca.Pool()}
	urls := []string{
		"tcp://" + s.ports["mqtt"], "ssl://" + s.ports["mqtt-tls"], "ws://" + s.ports["mqtt-ws"] + "/mqtt",
		"wss://" + s.ports["mqtt-wss"] + "/mqtt", "unix://" + sock, "ws://" + s.ports["http"] + "/mqtt",
	}
	var clients []paho.Client
	got := make(chan string, len(urls)*len(urls))
	for _, url := range urls {
		c := connectTo(t, url, roots)
		if tok := c.Subscribe("all", 1, func(_ paho.Client, m paho.Message) { got <- string(m.Payload()) }); tok.Wait() && tok.Error() != nil {
			t.Fatalf("%s: %v", url, tok.Error())
		}
		clients = append(clients, c)
	}
	for i, c := range clients {
		c.Publish("all", 1, false, urls[i])
	}
	seen := map[string]int{}
	for range len(urls) * len(urls) {
		select {
		case m := <-got:
			seen[m]++
		case <-time.After(10 * time.Second):
			t.Fatalf("got only %v", seen)
		}
	}
	if info, err := os.Stat(sock); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	text, err := os.ReadFile(s.out)
	if err != nil || !strings.Contains(string(text), "mqtts://"+s.ports["mqtt-tls"]) || !strings.Contains(string(text), "unix://"+sock) {
		t.Errorf("the banner is %s, %v", text, err)
	}
}

// connectTo connects a paho client.
func connectTo(t *testing.T, url string, conf *tls.Config) paho.Client {
	t.Helper()
	c := paho.NewClient(paho.NewClientOptions().AddBroker(url).SetTLSConfig(conf).SetAutoReconnect(false).SetConnectTimeout(10 * time.Second))
	if tok := c.Connect(); tok.Wait() && tok.Error() != nil {
		t.Fatalf("%s: %v", url, tok.Error())
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

// TestCertificatesAreReadAgain has a certificate of a client as its login, and
// new files of the server's while it runs.
func TestCertificatesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	ca := certstest.NewCA(t, "authority")
	ca.Write(t, dir, "ca")
	first, second := ca.Issue(t, certstest.Server("127.0.0.1")), ca.Issue(t, certstest.Server("127.0.0.1"))
	first.Write(t, dir, "server")
	boot := filepath.Join(dir, "boot.yaml")
	if err := os.WriteFile(boot, []byte("users: [{username: root, password: long enough 1, superuser: true}, {username: pump7, password: long enough 2}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, "--data", t.TempDir(), "--bootstrap-file", boot, "--mqtt-tls-listen", "127.0.0.1:0",
		"--tls-cert", filepath.Join(dir, "server.pem"), "--tls-key", filepath.Join(dir, "server.key"), "--tls-client-ca", filepath.Join(dir, "ca.pem"))
	conf := &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{*ca.Issue(t, certstest.Client("pump7")).TLS()}}
	connectTo(t, "ssl://"+s.ports["mqtt-tls"], conf)
	stranger := paho.NewClient(paho.NewClientOptions().AddBroker("ssl://" + s.ports["mqtt-tls"]).SetTLSConfig(&tls.Config{
		RootCAs: ca.Pool(), Certificates: []tls.Certificate{*ca.Issue(t, certstest.Client("stranger")).TLS()},
	}).SetAutoReconnect(false))
	if tok := stranger.Connect(); tok.Wait() && tok.Error() == nil {
		t.Error("a certificate of no user was let in")
	}
	serial := func() string {
		c, err := tls.Dial("tcp", s.ports["mqtt-tls"], conf)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	if got := serial(); got != first.Leaf.SerialNumber.String() {
		t.Errorf("the certificate is %s", got)
	}
	second.Write(t, dir, "server")
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !eventually(10*time.Second, func() bool { return serial() == second.Leaf.SerialNumber.String() }) {
		t.Errorf("the new certificate is not used; the log:\n%s", tail(s.log))
	}
}

func TestOtherWebPagesMayNotConnect(t *testing.T) { // X162
	s := startServer(t, "--dev", "--set", "http.allowed_origins=https://panel.example")
	for origin, want := range map[string]int{"": 101, s.url(): 101, "https://panel.example": 101, "https://evil.example": 403} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url()+"/mqtt", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
			"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-Websocket-Protocol": {"mqtt"},
		}
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("from %q: %d, want %d", origin, res.StatusCode, want)
		}
	}
}

func TestListenersThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"Use --mqtt-unix-listen or MILLRACE_MQTT_UNIX_LISTEN": {"--mqtt-unix-listen", file},
		"certificate " + file: {"--mqtt-tls-listen", "127.0.0.1:0", "--tls-cert", file, "--tls-key", file},
	} {
		cmd := exec.Command(program(t), append([]string{"serve", "--dev", "--mqtt-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"}, args...)...)
		cmd.Env = cleanEnv(dir)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 78 || !strings.Contains(string(out), want) {
			t.Errorf("%v: %v, want %q in\n%s", args, err, want, out)
		}
	}
}

func TestTheProxyIsConfigured(t *testing.T) {
	s := startServer(t, "--dev", "--mqtt-ws-listen", "127.0.0.1:0", "--set", "mqtt.proxy_from=127.0.0.0/8", "--set", "mqtt.proxy_listeners=mqtt", "--allow-anonymous=any")
	connectTo(t, "ws://"+s.ports["mqtt-ws"], nil) // is not behind the proxy
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + s.ports["mqtt"]).SetAutoReconnect(false))
	if tok := c.Connect(); tok.Wait() && tok.Error() == nil {
		t.Error("a client without a PROXY header was let in")
	}
}
