package certs_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"millrace/cmd/millrace/certs"
	"millrace/cmd/millrace/certs/certstest"
)

// shake makes a handshake over a pipe and returns the server's certificate and
// both errors.
func shake(server, client *tls.Config) (serial *big.Int, state tls.ConnectionState, serverErr, clientErr error) {
	a, b := net.Pipe()
	return shakeOver(a, b, server, client)
}

// shakeOver makes it over a connection, of which a is the server's end.
func shakeOver(a, b net.Conn, server, client *tls.Config) (serial *big.Int, state tls.ConnectionState, serverErr, clientErr error) {
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := s.Handshake()
		state = s.ConnectionState()
		done <- err
		_, _ = s.Close(), a.Close() // the client's read ends with it
	}()
	if clientErr = c.Handshake(); clientErr != nil {
		_ = b.Close()
	} else {
		// TLS 1.3 tells of a refused certificate after the handshake.
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			clientErr = err
		}
		serial = c.ConnectionState().PeerCertificates[0].SerialNumber
	}
	serverErr = <-done
	_ = b.Close()
	return serial, state, serverErr, clientErr
}

func files(dir string) certs.Files {
	return certs.Files{Cert: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server.key")}
}

func TestANewCertificateIsUsedByItself(t *testing.T) {
	dir := t.TempDir()
	ca := certstest.NewCA(t, "authority")
	issue := func() *certstest.Pair { return ca.Issue(t, certstest.Server("localhost")) }
	first, second, third := issue(), issue(), issue() // here: a bubble begins in the year 2000
	first.Write(t, dir, "server")
	f, today := files(dir), time.Now()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o, err := certs.Open(f, zerolog.New(&log))
		if err != nil {
			t.Fatal(err)
		}
		server, client := o.Server(certs.NoClientAuth, "mqtt"), &tls.Config{
			RootCAs: ca.Pool(), ServerName: "localhost", Time: func() time.Time { return today },
		}
		want := func(c *certstest.Pair) {
			t.Helper()
			serial, _, serverErr, clientErr := shake(server, client)
			if serverErr != nil || clientErr != nil || serial.Cmp(c.Leaf.SerialNumber) != 0 {
				t.Errorf("got certificate %v, want %v; errors %v, %v", serial, c.Leaf.SerialNumber, serverErr, clientErr)
			}
		}
		want(first)
		second.WriteCert(t, dir, "server") // the key is still the old one
		<-time.After(3 * time.Second)
		want(first)
		if !strings.Contains(log.String(), "the old ones stay in force") {
			t.Errorf("the log does not tell of the bad files: %s", &log)
		}
		second.Write(t, dir, "server")
		want(first) // looked at a moment ago
		<-time.After(3 * time.Second)
		want(second)
		if err := os.WriteFile(f.Cert, []byte("no certificate"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := o.Reload(); err == nil || !strings.Contains(err.Error(), f.Cert) {
			t.Errorf("a bad file gave %v", err)
		}
		want(second)
		third.Write(t, dir, "server")
		if err := o.Reload(); err != nil {
			t.Fatal(err)
		}
		want(third)
	})
}

func TestOldProtocolsAreRefused(t *testing.T) { // X171
	dir := t.TempDir()
	ca := certstest.NewCA(t, "authority")
	ca.Issue(t, certstest.Server("localhost")).Write(t, dir, "server")
	o, err := certs.Open(files(dir), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		_, _, serverErr, _ := shake(o.Server(certs.NoClientAuth), &tls.Config{
			RootCAs: ca.Pool(), ServerName: "localhost", MinVersion: version, MaxVersion: version,
		})
		if (serverErr == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), serverErr)
		}
	}
}

func TestClientCertificates(t *testing.T) { // X173
	dir := t.TempDir()
	ca, foreign := certstest.NewCA(t, "authority"), certstest.NewCA(t, "foreign")
	ca.Issue(t, certstest.Server("localhost")).Write(t, dir, "server")
	revoked := ca.Issue(t, certstest.Client("pump7"))
	ca.Write(t, dir, "ca")
	ca.WriteCRL(t, dir, "ca", revoked)
	f := files(dir)
	f.ClientCA, f.ClientCRL = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.crl")
	o, err := certs.Open(f, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	expired := certstest.Client("pump7")
	expired.NotAfter = time.Now().Add(-time.Hour)
	for _, row := range []struct {
		name string
		auth certs.ClientAuth
		cert *certstest.Pair
		ok   bool
	}{
		{"none", certs.RequireClientAuth, nil, false},
		{"none, optional", certs.OptionalClientAuth, nil, true},
		{"none, not asked", certs.NoClientAuth, nil, true},
		{"good", certs.RequireClientAuth, ca.Issue(t, certstest.Client("pump7")), true},
		{"good, optional", certs.OptionalClientAuth, ca.Issue(t, certstest.Client("pump7")), true},
		{"foreign", certs.RequireClientAuth, foreign.Issue(t, certstest.Client("pump7")), false},
		{"foreign, optional", certs.OptionalClientAuth, foreign.Issue(t, certstest.Client("pump7")), false},
		{"expired", certs.RequireClientAuth, ca.Issue(t, expired), false},
		{"a server's", certs.RequireClientAuth, ca.Issue(t, certstest.Server("pump7")), false},
		{"revoked", certs.RequireClientAuth, revoked, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
			if row.cert != nil { // whatever authorities the server names
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return row.cert.TLS(), nil }
			}
			_, state, serverErr, clientErr := shake(o.Server(row.auth), c)
			if (serverErr == nil) != row.ok || row.ok && clientErr != nil {
				t.Errorf("errors %v, %v", serverErr, clientErr)
			}
			if name, err := certs.CommonName.Client(state); row.ok && row.cert != nil && (row.auth != certs.NoClientAuth) && (name != "pump7" || err != nil) {
				t.Errorf("name is %q, %v", name, err)
			}
		})
	}
}

func TestNamesInCertificates(t *testing.T) {
	ca := certstest.NewCA(t, "authority")
	one := certstest.Client("cn", "one.example", "urn:pump:7")
	two := certstest.Client("", "one.example", "two.example", "urn:a", "urn:b")
	for _, row := range []struct {
		from certs.NameFrom
		cert *certstest.Pair
		want string
	}{
		{certs.CommonName, ca.Issue(t, one), "cn"},
		{certs.DNSName, ca.Issue(t, one), "one.example"},
		{certs.URIName, ca.Issue(t, one), "urn:pump:7"},
		{certs.CommonName, ca.Issue(t, two), ""},
		{certs.DNSName, ca.Issue(t, two), ""},
		{certs.URIName, ca.Issue(t, two), ""},
	} {
		got, err := row.from.Client(tls.ConnectionState{PeerCertificates: row.cert.Chain()})
		if got != row.want || errors.Is(err, certs.ErrNoName) != (row.want == "") {
			t.Errorf("%s of %s: %q, %v", row.from, row.cert.Leaf.Subject, got, err)
		}
	}
	if name, err := certs.CommonName.Client(tls.ConnectionState{}); name != "" || err != nil {
		t.Errorf("no certificate gave %q, %v", name, err)
	}
}

func TestBadFilesAreNamed(t *testing.T) {
	dir := t.TempDir()
	ca, foreign := certstest.NewCA(t, "authority"), certstest.NewCA(t, "foreign")
	ca.Issue(t, certstest.Server("localhost")).Write(t, dir, "server")
	ca.Write(t, dir, "ca")
	foreign.WriteCRL(t, dir, "foreign")
	good := files(dir)
	for name, change := range map[string]func(*certs.Files){
		"missing.pem": func(f *certs.Files) { f.Cert = filepath.Join(dir, "missing.pem") },
		"server.key":  func(f *certs.Files) { f.ClientCA = f.Key },
		"server.pem":  func(f *certs.Files) { f.ClientCA, f.ClientCRL = filepath.Join(dir, "ca.pem"), f.Cert },
		"foreign.crl": func(f *certs.Files) {
			f.ClientCA, f.ClientCRL = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "foreign.crl")
		},
	} {
		f := good
		change(&f)
		if _, err := certs.Open(f, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
