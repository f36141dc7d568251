// Package certs owns the certificate files of the server: one key pair for all
// listeners with TLS, and the authorities of client certificates. It reads them
// again when they change, so that a renewed certificate needs no restart.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Files names what is read. All are PEM.
type Files struct {
	Cert, Key string // required
	ClientCA  string // signs client certificates; "" asks for none
	ClientCRL string // revoked client certificates, signed by their authority; "" = none
}

// ClientAuth says what a listener wants of a client's certificate.
type ClientAuth uint8

const (
	// NoClientAuth does not ask for one.
	NoClientAuth ClientAuth = iota
	// OptionalClientAuth checks one that is given.
	OptionalClientAuth
	// RequireClientAuth takes no client without one.
	RequireClientAuth
)

const (
	// lookEvery bounds how often a handshake looks at the files.
	lookEvery = 2 * time.Second
	// expiresSoon is when the log begins to warn.
	expiresSoon = 14 * 24 * time.Hour
)

// Owner is what was read last. Its methods may be called by any number of
// goroutines.
type Owner struct {
	files Files
	log   zerolog.Logger
	now   atomic.Pointer[generation]

	mu     sync.Mutex // one look at the files at a time
	looked time.Time
	seen   stamps // of the files as they were read last, good or bad
}

// generation is one consistent state of the files.
type generation struct {
	pair      tls.Certificate
	clients   *x509.CertPool // nil = none
	revoked   map[string]struct{}
	mu        sync.Mutex
	listeners map[*listener]*tls.Config
}

// listener is what one Server call asked for.
type listener struct {
	auth   ClientAuth
	protos []string
}

// Open reads the files. The error names the file and what is wrong with it.
func Open(files Files, log zerolog.Logger) (*Owner, error) {
	o := &Owner{files: files, log: log}
	if err := o.Reload(); err != nil {
		return nil, err
	}
	return o, nil
}

// Server returns the configuration of one listener: protos for ALPN, and what
// secured says. Every handshake uses the certificate of its time. A listener
// that wants client certificates gets none while there is no client authority.
// Its keys of session tickets are crypto/tls's: a new one each day.
func (o *Owner) Server(auth ClientAuth, protos ...string) *tls.Config {
	l := &listener{auth, protos}
	c := secured(protos)
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		o.refresh()
		return o.now.Load().config(l), nil
	}
	return c
}

// secured is TLS 1.2 and above, with suites that are forward-secret and AEAD;
// those of TLS 1.3 all are.
func secured(protos []string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protos,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
}

// config is made once for each listener and state of the files.
func (g *generation) config(l *listener) *tls.Config {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.listeners[l]; c != nil {
		return c
	}
	c := secured(l.protos)
	c.Certificates = []tls.Certificate{g.pair}
	if g.clients != nil && l.auth != NoClientAuth {
		c.ClientCAs, c.ClientAuth = g.clients, tls.VerifyClientCertIfGiven
		if l.auth == RequireClientAuth {
			c.ClientAuth = tls.RequireAndVerifyClientCert
		}
		c.VerifyConnection = g.unrevoked
	}
	g.listeners[l] = c
	return c
}

// ErrRevoked refuses a client certificate that its authority took back.
var ErrRevoked = errors.New("client certificate is revoked")

// unrevoked also sees resumed sessions, which no chain is built for.
func (g *generation) unrevoked(state tls.ConnectionState) error {
	for _, c := range state.PeerCertificates {
		if _, ok := g.revoked[serial(c.RawIssuer, c.SerialNumber.Bytes())]; ok {
			return ErrRevoked
		}
	}
	return nil
}

func serial(issuer, number []byte) string { return string(issuer) + "\x00" + string(number) }

// Reload reads the files now. After an error those read before stay in force.
func (o *Owner) Reload() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.looked, o.seen = time.Now(), o.files.stamps()
	g, err := o.files.read()
	if err != nil {
		return err
	}
	o.now.Store(g)
	if info, err := os.Stat(o.files.Key); err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		o.log.Warn().Str("file", o.files.Key).Stringer("mode", info.Mode()).Msg("the private key can be read by others than its owner: chmod 600")
	}
	leaf := g.pair.Leaf
	o.log.Info().Str("subject", leaf.Subject.String()).Time("expires", leaf.NotAfter).Msg("certificate read")
	if left := time.Until(leaf.NotAfter); left < expiresSoon {
		o.log.Warn().Str("file", o.files.Cert).Time("expires", leaf.NotAfter).Msg("certificate expires soon, or has expired: renew it, it is read again by itself")
	}
	return nil
}

// refresh reads the files again when they changed since the last look. It goes
// with handshakes: a server that nobody connects to needs no new certificate.
func (o *Owner) refresh() {
	o.mu.Lock()
	fresh := time.Since(o.looked) < lookEvery
	if !fresh {
		o.looked = time.Now()
		fresh = o.files.stamps() == o.seen
	}
	o.mu.Unlock()
	if fresh {
		return
	}
	if err := o.Reload(); err != nil {
		o.log.Error().Err(err).Msg("new certificate files cannot be used, the old ones stay in force")
	}
}

// stamps tell one state of the files from another.
type stamps [4]struct {
	size  int64
	mtime time.Time
}

func (f *Files) stamps() (s stamps) {
	for i, name := range [...]string{f.Cert, f.Key, f.ClientCA, f.ClientCRL} {
		if info, err := os.Stat(name); err == nil {
			s[i].size, s[i].mtime = info.Size(), info.ModTime()
		}
	}
	return s
}

func (f *Files) read() (*generation, error) {
	g := &generation{listeners: map[*listener]*tls.Config{}, revoked: map[string]struct{}{}}
	var err error
	if g.pair, err = tls.LoadX509KeyPair(f.Cert, f.Key); err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	if f.ClientCA == "" {
		return g, nil
	}
	authorities, err := readAuthorities(f.ClientCA)
	if err != nil {
		return nil, err
	}
	g.clients = x509.NewCertPool()
	for _, c := range authorities {
		g.clients.AddCert(c)
	}
	if f.ClientCRL != "" {
		err = g.revoke(f.ClientCRL, authorities)
	}
	return g, err
}
