package certs_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"math/big"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"millrace/cmd/millrace/certs"
	"millrace/cmd/millrace/certs/certstest"
)

// served is a server with a certificate, and what its clients trust.
func served(t *testing.T, auth certs.ClientAuth, change func(*certs.Files, string)) (*certs.Owner, *tls.Config, *tls.Config) {
	t.Helper()
	dir := t.TempDir()
	ca := certstest.NewCA(t, "authority")
	ca.Issue(t, certstest.Server("localhost")).Write(t, dir, "server")
	f := files(dir)
	if change != nil {
		change(&f, dir)
	}
	o, err := certs.Open(f, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return o, o.Server(auth, "mqtt"), &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
}

func TestOnlyForwardSecretAEADSuitesAreSpoken(t *testing.T) { // D34
	_, server, client := served(t, certs.NoClientAuth, nil)
	taken := 0
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if suite.SupportedVersions[0] == tls.VersionTLS13 {
			continue // its suites are not negotiable, and all are
		}
		c := client.Clone()
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{suite.ID}
		_, state, serverErr, _ := shake(server, c)
		want := strings.HasPrefix(suite.Name, "TLS_ECDHE_") && (strings.Contains(suite.Name, "_GCM_") || strings.Contains(suite.Name, "_POLY1305_"))
		if got := serverErr == nil; got && !want {
			t.Errorf("%s is spoken", suite.Name)
		} else if got && state.CipherSuite == suite.ID {
			taken++
		}
	}
	if taken < 3 { // those of the other kind of key are refused
		t.Errorf("only %d suites are spoken", taken)
	}
	if _, state, serverErr, clientErr := shake(server, client); serverErr != nil || clientErr != nil || state.Version != tls.VersionTLS13 {
		t.Errorf("a client of today speaks %s: %v, %v", tls.VersionName(state.Version), serverErr, clientErr)
	}
}

// lastSession is what a client was given to resume its session with.
type lastSession struct{ *tls.ClientSessionState }

func (*lastSession) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (l *lastSession) Put(_ string, cs *tls.ClientSessionState) { l.ClientSessionState = cs }

func TestKeysOfTicketsChangeEachDay(t *testing.T) { // D34
	_, server, client := served(t, certs.NoClientAuth, nil)
	today := time.Now()
	synctest.Test(t, func(t *testing.T) {
		client.Time, client.MaxVersion = func() time.Time { return today }, tls.VersionTLS12
		ticket := func() []byte {
			cache := new(lastSession)
			client.ClientSessionCache = cache
			if _, _, serverErr, clientErr := shake(server, client); serverErr != nil || clientErr != nil {
				t.Fatal(serverErr, clientErr)
			}
			b, _, err := cache.ResumptionState()
			if err != nil || len(b) == 0 {
				t.Fatalf("no ticket: %v", err)
			}
			return b
		}
		good := func(b []byte) bool {
			s, err := server.DecryptTicket(b, tls.ConnectionState{})
			if err != nil {
				t.Fatal(err)
			}
			return s != nil
		}
		first := ticket()
		<-time.After(25 * time.Hour)
		second := ticket()
		if !good(first) || !good(second) {
			t.Error("a ticket of yesterday is of no use")
		}
		<-time.After(6*24*time.Hour - time.Minute) // a key opens tickets for seven days
		if good(first) || !good(second) {
			t.Errorf("after seven days: the first %t, that of the second day %t", good(first), good(second))
		}
	})
}

// shakeTCP is shake where both sides may have to write at once.
func shakeTCP(t *testing.T, server, client *tls.Config) (serial *big.Int, state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return shakeOver(a, b, server, client)
}

func TestATicketDoesNotOutliveTheAuthorityOfItsClient(t *testing.T) {
	clients, others := certstest.NewCA(t, "clients"), certstest.NewCA(t, "others")
	var dir string
	o, server, client := served(t, certs.RequireClientAuth, func(f *certs.Files, d string) {
		dir, f.ClientCA = d, filepath.Join(d, "ca.pem")
		clients.Write(t, d, "ca")
	})
	pair := clients.Issue(t, certstest.Client("pump7")).TLS()
	client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client.MaxVersion = version
		for _, resumed := range []bool{false, true} {
			_, state, serverErr, clientErr := shakeTCP(t, server, client)
			if serverErr != nil || clientErr != nil || state.DidResume != resumed {
				t.Fatalf("%s: resumed %t, want %t: %v, %v", tls.VersionName(version), state.DidResume, resumed, serverErr, clientErr)
			}
		}
		others.Write(t, dir, "ca")
		if err := o.Reload(); err != nil {
			t.Fatal(err)
		}
		if _, state, serverErr, _ := shakeTCP(t, server, client); serverErr == nil {
			t.Errorf("%s: let in by an authority that is no longer trusted (resumed %t)", tls.VersionName(version), state.DidResume)
		}
		clients.Write(t, dir, "ca")
		if err := o.Reload(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRenegotiationIsRefused has openssl ask for it, in the only version that
// has it.
func TestRenegotiationIsRefused(t *testing.T) { // D34
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl here")
	}
	_, server, _ := served(t, certs.NoClientAuth, nil)
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { // ends with the client
		c, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		_, err = io.Copy(io.Discard, c)
		_ = c.Close()
		ended <- err
	}()
	t.Cleanup(func() { _ = l.Close() })
	cmd := exec.CommandContext(t.Context(), openssl, "s_client", "-connect", l.Addr().String(), "-tls1_2")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "Extended master secret") { // the last line about the handshake
			if _, err := io.WriteString(in, "R\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "unexpected handshake message") {
		t.Errorf("the connection ended with %v", err)
	}
	_ = cmd.Wait() // how it ends is its own
}
