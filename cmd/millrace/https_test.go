package main_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"millrace/cmd/millrace/certs/certstest"
)

// secured is a broker with HTTP over TLS, and the authority of its certificates.
type secured struct {
	*server
	t   *testing.T
	ca  *certstest.CA
	dir string
}

func startSecured(t *testing.T, args ...string) *secured {
	t.Helper()
	s := &secured{t: t, dir: t.TempDir(), ca: certstest.NewCA(t, "authority")}
	s.ca.Write(t, s.dir, "ca")
	s.renew()
	boot := bootstrapFile(t, testKeyYAML+"users: [{username: ann, password: long enough 1}, {username: sue, password: long enough 2, superuser: true}]\n")
	s.server = startServer(t, append([]string{
		"--data", t.TempDir(), "--bootstrap-file", boot, "--http-tls-listen", "127.0.0.1:0",
		"--tls-cert", filepath.Join(s.dir, "server.pem"), "--tls-key", filepath.Join(s.dir, "server.key"), "--tls-client-ca", filepath.Join(s.dir, "ca.pem"),
	}, args...)...)
	return s
}

// renew writes another certificate of the server.
func (s *secured) renew() {
	s.ca.Issue(s.t, certstest.Server("127.0.0.1")).Write(s.t, s.dir, "server")
}

// client trusts the authority, and shows a certificate of the user, "" for none.
func (s *secured) client(user string) *http.Client {
	s.t.Helper()
	conf := &tls.Config{RootCAs: s.ca.Pool()}
	if user != "" {
		conf.Certificates = []tls.Certificate{*s.ca.Issue(s.t, certstest.Client(user)).TLS()}
	}
	tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// get asks for a path; status 0 is a handshake that failed.
func (s *secured) get(c *http.Client, path, authorization string) (status int, body string, w *http.Response) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), "GET", "https://"+s.ports["https"]+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w, err = c.Do(r)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer func() { _ = w.Body.Close() }()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return w.StatusCode, string(text), w
}

func TestHTTPOverTLSKnowsItsClientsByTheirCertificates(t *testing.T) {
	s := startSecured(t, "--set", "http.client_auth=optional", "--set", "http.hsts=365d")
	sue := s.client("sue")
	status, body, w := s.get(sue, "/api/v1/users", "")
	if status != 200 || w.ProtoMajor != 2 || !strings.Contains(body, `"ann"`) || w.Header.Get("Strict-Transport-Security") != "max-age=31536000" {
		t.Fatalf("%d %s %v", status, body, w)
	}
	for _, c := range []struct {
		who, authorization, path string
		want                     int
	}{
		{"ann", "", "/api/v1/queues", 200},
		{"ann", "", "/api/v1/users", 403},
		{"ann", "Bearer " + testKey, "/api/v1/users", 200}, // who says so is the key
		{"sue", "Bearer nobody.sixteen-characters", "/api/v1/users", 401},
		{"stranger", "", "/api/v1/queues", 401},
		{"", "", "/api/v1/queues", 401},
		{"", "Bearer " + testKey, "/api/v1/users", 200},
		{"", "", "/livez", 200},
	} {
		if status, body, _ := s.get(s.client(c.who), c.path, c.authorization); status != c.want {
			t.Errorf("%+v: %d %s", c, status, body)
		}
	}
	// The change is felt at the next request of an open connection.
	if _, errs, code := command(t, "user", "rm", "sue", "--yes", "--url", s.url(), "--key", testKey); code != 0 {
		t.Fatal(errs)
	}
	if status, body, _ := s.get(sue, "/api/v1/users", ""); status != 401 {
		t.Errorf("a removed user: %d %s", status, body)
	}
	other := certstest.NewCA(t, "another authority")
	foreign := s.client("")
	foreign.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{*other.Issue(t, certstest.Client("ann")).TLS()}
	if status, body, _ := s.get(foreign, "/api/v1/queues", ""); status/100 == 2 {
		t.Errorf("a certificate of another authority: %d %s", status, body)
	}
	old := s.client("")
	old.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS11
	if status, body, _ := s.get(old, "/livez", ""); status != 0 {
		t.Errorf("TLS 1.1: %d %s", status, body)
	}
	plain, err := http.Get(s.url() + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	_ = plain.Body.Close()
	if plain.Header.Get("Strict-Transport-Security") != "" {
		t.Error("plain HTTP tells of TLS")
	}
}

func TestHTTPOverTLSMayRequireACertificateAndReadsItsOwnAgain(t *testing.T) {
	s := startSecured(t, "--set", "http.client_auth=require")
	if status, body, _ := s.get(s.client(""), "/livez", "Bearer "+testKey); status != 0 {
		t.Errorf("without a certificate: %d %s", status, body)
	}
	serial := func() string {
		_, body, w := s.get(s.client("ann"), "/livez", "")
		if w == nil {
			t.Fatal(body)
		}
		return w.TLS.PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	s.renew()
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if !eventually(10*time.Second, func() bool { return serial() != before }) {
		t.Error("the new certificate is not used")
	}
}

// mayConnect reports whether an MQTT client is let in.
func mayConnect(t *testing.T, url string, conf *tls.Config, user, password string) bool {
	t.Helper()
	o := paho.NewClientOptions().AddBroker(url).SetTLSConfig(conf).SetAutoReconnect(false).SetConnectTimeout(10 * time.Second)
	c := paho.NewClient(o.SetUsername(user).SetPassword(password).SetProtocolVersion(4))
	tok := c.Connect()
	defer c.Disconnect(0)
	if tok.Wait() && tok.Error() == nil {
		return true
	}
	if !errors.Is(tok.Error(), packets.ErrorRefusedBadUsernameOrPassword) && !errors.Is(tok.Error(), packets.ErrorRefusedNotAuthorised) {
		t.Fatalf("%s: %v", url, tok.Error())
	}
	return false
}

func TestMQTTOverHTTPSKnowsItsClientsByTheirCertificates(t *testing.T) {
	s := startSecured(t, "--set", "http.client_auth=optional")
	url := "wss://" + s.ports["https"] + "/mqtt"
	for _, c := range []struct {
		certificate, user, password string
		want                        bool
	}{
		{"ann", "", "", true},
		{"ann", "ann", "", true},
		{"ann", "sue", "long enough 2", false}, // one who is two
		{"stranger", "", "", false},
		{"", "", "", false},
		{"", "ann", "long enough 1", true},
	} {
		conf := s.client(c.certificate).Transport.(*http.Transport).TLSClientConfig
		if got := mayConnect(t, url, conf, c.user, c.password); got != c.want {
			t.Errorf("%+v: let in %t", c, got)
		}
	}
}

// TestAnonymousClientsOfTheHTTPPortAreJudgedByBothOfItsAddresses: the path
// /mqtt is one, and a client does not say by which listener it comes.
func TestAnonymousClientsOfTheHTTPPortAreJudgedByBothOfItsAddresses(t *testing.T) {
	for _, c := range []struct {
		allow, http, https string
		want               bool
	}{
		{"true", "127.0.0.1:0", "127.0.0.1:0", true},
		{"true", "127.0.0.1:0", "none", true},
		{"true", "127.0.0.1:0", "0.0.0.0:0", false},
		{"true", "0.0.0.0:0", "127.0.0.1:0", false},
		{"any", "127.0.0.1:0", "0.0.0.0:0", true},
		{"false", "127.0.0.1:0", "127.0.0.1:0", false},
	} {
		s := startSecured(t, "--set", "allow_anonymous="+c.allow, "--http-listen", c.http, "--http-tls-listen", c.https)
		for scheme, listener := range map[string]string{"ws://": "http", "wss://": "https"} {
			_, port, ok := strings.Cut(strings.TrimPrefix(s.ports[listener], "[::]"), ":")
			if !ok {
				continue // there is no such listener
			}
			conf := &tls.Config{RootCAs: s.ca.Pool(), ServerName: "127.0.0.1"}
			if got := mayConnect(t, scheme+"127.0.0.1:"+port+"/mqtt", conf, "", ""); got != c.want {
				t.Errorf("%+v: by %s let in %t", c, listener, got)
			}
		}
		s.kill()
	}
}

// TestAListenerInTheClearIsWarnedAbout, in the log and in the figures, and so
// is a private key that others can read.
func TestAListenerInTheClearIsWarnedAbout(t *testing.T) {
	for address, want := range map[string]int{"127.0.0.1:0": 0, "0.0.0.0:0": 1} {
		s := startSecured(t, "--http-listen", address, "--http-tls-listen", "0.0.0.0:0")
		if !eventually(40*time.Second, func() bool { return strings.Contains(tail(s.log), `"msg":"ready"`) }) { // it has warned by then
			t.Error("it is not ready")
		}
		log := tail(s.log)
		if got := strings.Count(log, "listens without TLS on an address that others reach"); got != want || strings.Contains(log, "chmod 600") {
			t.Errorf("%s: %d warnings", address, got)
		}
		_, port, _ := strings.Cut(strings.TrimPrefix(s.ports["http"], "[::]"), ":")
		w, err := http.Get("http://127.0.0.1:" + port + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(w.Body)
		_ = w.Body.Close()
		if !strings.Contains(string(text), fmt.Sprintf("\nmillrace_exposed_listeners %d\n", want)) {
			t.Errorf("%s: no figure of exposed listeners", address)
		}
		s.kill()
	}
	dir, ca := t.TempDir(), certstest.NewCA(t, "authority")
	ca.Issue(t, certstest.Server("127.0.0.1")).Write(t, dir, "server")
	key := filepath.Join(dir, "server.key")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, "--data", t.TempDir(), "--http-tls-listen", "127.0.0.1:0", "--tls-cert", filepath.Join(dir, "server.pem"), "--tls-key", key)
	if !strings.Contains(tail(s.log), "chmod 600") {
		t.Error("a key that others can read is not told of")
	}
}
