package main_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"millrace/cmd/millrace/certs/certstest"
	"millrace/persistence/jetstream/jetstreamtest"
)

// natsStart is a start over NATS servers: one that ends with a code and a text,
// or goes on.
type natsStart struct {
	name string
	url  string
	args []string
	code int // 0 = it starts
	text string
}

// play starts the program, and stops it if it goes on.
func (c natsStart) play(t *testing.T) {
	t.Helper()
	t.Run(c.name, func(t *testing.T) {
		t.Helper()
		args := append([]string{"--data", t.TempDir(), "--store", c.url}, c.args...)
		if c.code == 0 {
			s := startServer(t, args...)
			s.stop()
			if log := tail(s.log); !strings.Contains(log, c.text) {
				t.Errorf("the log does not say %q:\n%s", c.text, log)
			}
			return
		}
		_, errs, code := command(t, append([]string{"serve", "--mqtt-listen", "none", "--http-listen", "127.0.0.1:0"}, args...)...)
		if code != c.code || !strings.Contains(errs, c.text) {
			t.Errorf("it ends with code %d, want %d with %q: %s", code, c.code, c.text, errs)
		}
	})
}

// lone starts one server.
func lone(t *testing.T, configure func(*natsserver.Options)) string {
	t.Helper()
	return jetstreamtest.Start(t, jetstreamtest.Options{Servers: 1, Configure: configure}).URL()
}

func TestNATSOverTLS(t *testing.T) {
	dir := t.TempDir()
	ca := certstest.NewCA(t, "authority")
	ca.Write(t, dir, "ca")
	ca.Issue(t, certstest.Client("millrace")).Write(t, dir, "us")
	secured := func(o *natsserver.Options, auth tls.ClientAuthType) {
		o.TLS, o.TLSTimeout = true, 10
		o.TLSConfig = &tls.Config{
			Certificates: []tls.Certificate{*ca.Issue(t, certstest.Server("127.0.0.1")).TLS()}, ClientCAs: ca.Pool(), ClientAuth: auth,
		}
	}
	plain := lone(t, nil)
	with := strings.Replace(lone(t, func(o *natsserver.Options) { secured(o, tls.NoClientCert) }), "nats://", "tls://", 1)
	both := lone(t, func(o *natsserver.Options) { secured(o, tls.RequireAndVerifyClientCert); o.TLSVerify = true })
	trust := []string{"--nats-tls-ca", filepath.Join(dir, "ca.pem")}
	shown := append([]string{"--nats-tls-cert", filepath.Join(dir, "us.pem"), "--nats-tls-key", filepath.Join(dir, "us.key")}, trust...)
	for _, c := range []natsStart{
		{name: "trusted", url: with, args: trust},
		{name: "nobody trusts the authority", url: with, code: 78, text: "name the authority that signs the servers' certificates with --nats-tls-ca"},
		{name: "another name", url: strings.Replace(with, "127.0.0.1", "localhost", 1), args: trust, code: 78, text: "and the servers as the certificates do"},
		{name: "no such file", url: with, args: []string{"--nats-tls-ca", filepath.Join(dir, "none.pem")}, code: 78, text: "none.pem: no such file"},
		{name: "both show certificates", url: both, args: shown},
		{name: "no certificate of ours", url: both, args: trust, code: 78, text: "want a certificate from us that they trust: --nats-tls-cert"},
		{name: "no key", url: both, args: shown[:2], code: 78, text: "belong together"},
		{name: "no TLS there", url: strings.Replace(plain, "nats://", "tls://", 1), code: 78, text: "the servers speak no TLS: take nats://"},
	} {
		c.play(t)
	}
}

// tenants are the accounts of a server in operator mode.
type tenants struct {
	t        *testing.T
	dir      string
	operator nkeys.KeyPair
	accounts natsserver.MemAccResolver
}

func (x *tenants) try(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// key makes a key pair and its public name.
func (x *tenants) key(prefix nkeys.PrefixByte) (nkeys.KeyPair, string) {
	x.t.Helper()
	k, err := nkeys.CreatePair(prefix)
	x.try(err)
	name, err := k.PublicKey()
	x.try(err)
	return k, name
}

// add makes an account with one user, whose credentials are in the file NAME.creds.
func (x *tenants) add(name string, limits jwt.JetStreamLimits) (account string) {
	x.t.Helper()
	key, account := x.key(nkeys.PrefixByteAccount)
	a := jwt.NewAccountClaims(account)
	a.Limits.JetStreamLimits = limits
	text, err := a.Encode(x.operator)
	x.try(err)
	x.try(x.accounts.Store(account, text))
	user, id := x.key(nkeys.PrefixByteUser)
	token, err := jwt.NewUserClaims(id).Encode(key)
	x.try(err)
	seed, err := user.Seed()
	x.try(err)
	creds, err := jwt.FormatUserConfig(token, seed)
	x.try(err)
	x.try(os.WriteFile(filepath.Join(x.dir, name+".creds"), creds, 0o600))
	return account
}

func TestNATSWithAccounts(t *testing.T) {
	x := &tenants{t: t, dir: t.TempDir()}
	var id string
	x.operator, id = x.key(nkeys.PrefixByteOperator)
	app := jwt.JetStreamLimits{DiskStorage: -1, MemoryStorage: -1}
	sys := x.add("sys", jwt.JetStreamLimits{})
	x.add("app", app)
	x.add("synced", app)
	x.add("bare", jwt.JetStreamLimits{})
	file := func(name string) string { return filepath.Join(x.dir, name+".creds") }
	x.try(os.WriteFile(file("junk"), []byte("junk"), 0o600))
	operated := func(o *natsserver.Options) {
		o.TrustedOperators = []*jwt.OperatorClaims{jwt.NewOperatorClaims(id)}
		o.AccountResolver, o.SystemAccount = &x.accounts, sys
	}
	url := lone(t, operated)
	synced := lone(t, func(o *natsserver.Options) { operated(o); o.SyncAlways = true })
	for _, c := range []natsStart{
		{name: "creds", url: url, args: []string{"--nats-creds", file("app")}, text: "answers are marked relaxed"},
		{name: "none", url: url, code: 78, text: "or the credentials (--nats-creds, --nats-nkey)"},
		{name: "no file", url: url, args: []string{"--nats-creds", file("none")}, code: 78, text: "none.creds: no such file"},
		{name: "no creds in the file", url: url, args: []string{"--nats-creds", file("junk")}, code: 78, text: "no nkey seed found; name a file as nsc generate creds writes it"},
		{name: "none of the system account in the file", url: url, args: []string{"--nats-creds", file("app"), "--nats-sys-creds", file("junk")}, code: 78, text: "no nkey seed found; name a file as nsc generate creds writes it"},
		{name: "an account without jetstream", url: url, args: []string{"--nats-creds", file("bare")}, code: 78, text: "jetstream is off for our account"},
		{name: "the servers show what they do", url: synced, args: []string{"--nats-creds", file("synced"), "--nats-sys-creds", file("sys")}, text: "ready"},
		{name: "they do less than is said", url: url, args: []string{"--nats-creds", file("app"), "--nats-sys-creds", file("sys"), "--nats-sync", "always"}, code: 78, text: "does not sync every write, although --nats-sync says always"},
		{name: "not the system account", url: url, args: []string{"--nats-creds", file("app"), "--nats-sys-creds", file("app")}, code: 78, text: "--nats-sys-creds must be of a user of the system account"},
	} {
		c.play(t)
	}
}

func TestNATSUsers(t *testing.T) {
	dir := t.TempDir()
	x := &tenants{t: t, dir: dir}
	key, id := x.key(nkeys.PrefixByteUser)
	seed, err := key.Seed()
	x.try(err)
	x.try(os.WriteFile(filepath.Join(dir, "seed"), seed, 0o600))
	url := lone(t, func(o *natsserver.Options) {
		o.Nkeys = []*natsserver.NkeyUser{{Nkey: id}}
		o.Users = []*natsserver.User{
			{Username: "me", Password: "secret"},
			{Username: "few", Password: "secret", Permissions: &natsserver.Permissions{Publish: &natsserver.SubjectPermission{Deny: []string{"$JS.API.>"}}}},
		}
	})
	as := func(who string) string { return strings.Replace(url, "nats://", "nats://"+who+"@", 1) }
	for _, c := range []natsStart{
		{name: "nkey", url: url, args: []string{"--nats-nkey", filepath.Join(dir, "seed"), "--node-name", "rack-7"}},
		{name: "no file", url: url, args: []string{"--nats-nkey", filepath.Join(dir, "none")}, code: 78, text: "nkey " + filepath.Join(dir, "none")},
		{name: "user and password", url: as("me:secret")},
		{name: "wrong password", url: as("me:wrong"), code: 78, text: "see the user and password in the store's URL"},
		{name: "rights missing", url: as("few:secret"), code: 78, text: "permit our user to publish to"},
	} {
		c.play(t)
	}
}

func TestWhatNATSCannotDo(t *testing.T) {
	// A server of before schedules: all that a start asks it is what it can do.
	old := lone(t, func(o *natsserver.Options) { o.JetStreamMaxStore = -1 })
	nc, err := nats.Connect(old)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Subscribe("$JS.API.INFO", func(m *nats.Msg) { _ = m.Respond([]byte(`{"api":{"level":1}}`)) }); err != nil {
		t.Fatal(err)
	}
	domain := lone(t, func(o *natsserver.Options) { o.JetStreamDomain = "hub" })
	three := jetstreamtest.Start(t, jetstreamtest.Options{Servers: 3}).URL()
	for _, c := range []natsStart{
		{name: "an old server", url: old, code: 78, text: "2.12 or newer is needed"},
		{name: "copies on a lone server", url: domain, args: []string{"--nats-replicas", "3"}, code: 78, text: "is a lone server: take 1"},
		{name: "more copies than servers", url: three, args: []string{"--nats-replicas", "5", "--nats-wait", "10s"}, code: 78, text: "start the servers that are missing, or ask for fewer with --nats-replicas"},
		{name: "domain", url: domain, args: []string{"--nats-domain", "hub"}},
		{name: "no such domain", url: domain, args: []string{"--nats-domain", "rim"}, code: 78, text: `no jetstream domain "rim" is known`},
	} {
		c.play(t)
	}
}

// TestAPayloadThatNATSDoesNotTake is refused at once, at every door.
func TestAPayloadThatNATSDoesNotTake(t *testing.T) {
	s, api := overNATS(t, lone(t, func(o *natsserver.Options) { o.MaxPayload = 1 << 20 }))
	for size, want := range map[int]string{800 << 10: "", 1 << 20: "PAYLOAD_TOO_LARGE"} {
		err := api.publish(t.Context(), "e", strings.Repeat("x", size))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("a payload of %d bytes answers %v, want %q", size, err, want)
		}
	}
	if log := tail(s.log); !strings.Contains(log, "raise their max_payload") {
		t.Errorf("the log says nothing of it:\n%s", log)
	}
}
