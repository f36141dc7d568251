// Package certstest makes certificates for tests: an authority, and what it
// signs, valid for a day.
package certstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Pair is a certificate with its key.
type Pair struct {
	Leaf *x509.Certificate
	key  *ecdsa.PrivateKey
}

// CA is an authority.
type CA struct{ Pair }

// NewCA makes an authority that signs itself.
func NewCA(tb testing.TB, name string) *CA {
	tb.Helper()
	t := template(name)
	t.IsCA, t.BasicConstraintsValid = true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	ca := &CA{}
	ca.Pair = *sign(tb, t, nil)
	return ca
}

// Server is a template for a server of the names, hosts or IP addresses.
func Server(names ...string) *x509.Certificate {
	t := template(names[0])
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	return t
}

// Client is a template for a client with a common name and alternative names:
// those with a colon are URIs, the others DNS names.
func Client(cn string, names ...string) *x509.Certificate {
	t := template(cn)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for _, n := range names {
		if strings.Contains(n, ":") {
			u, err := url.Parse(n)
			if err != nil {
				panic(err) // the test has a mistake
			}
			t.URIs = append(t.URIs, u)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	return t
}

func template(cn string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{Subject: pkix.Name{CommonName: cn}, NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(24 * time.Hour)}
}

// Issue signs a template.
func (ca *CA) Issue(tb testing.TB, t *x509.Certificate) *Pair {
	tb.Helper()
	return sign(tb, t, &ca.Pair)
}

// sign makes a key for t and signs it, by itself when there is no parent.
func sign(tb testing.TB, t *x509.Certificate, parent *Pair) *Pair {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	if t.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		tb.Fatal(err)
	}
	by, signer := t, key
	if parent != nil {
		by, signer = parent.Leaf, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, t, by, &key.PublicKey, signer)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return &Pair{leaf, key}
}

// TLS is p for a tls.Config.
func (p *Pair) TLS() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{p.Leaf.Raw}, PrivateKey: p.key, Leaf: p.Leaf}
}

// Chain is p as a peer shows it.
func (p *Pair) Chain() []*x509.Certificate { return []*x509.Certificate{p.Leaf} }

// Pool holds the authority alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	return pool
}

// Write writes NAME.pem and NAME.key into dir.
func (p *Pair) Write(tb testing.TB, dir, name string) {
	tb.Helper()
	p.WriteCert(tb, dir, name)
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		tb.Fatal(err)
	}
	write(tb, filepath.Join(dir, name+".key"), "PRIVATE KEY", der)
}

// WriteCert writes NAME.pem alone.
func (p *Pair) WriteCert(tb testing.TB, dir, name string) {
	tb.Helper()
	write(tb, filepath.Join(dir, name+".pem"), "CERTIFICATE", p.Leaf.Raw)
}

// WriteCRL writes NAME.crl, which takes the certificates back.
func (ca *CA) WriteCRL(tb testing.TB, dir, name string, revoked ...*Pair) {
	tb.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(24 * time.Hour)}
	for _, p := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: p.Leaf.SerialNumber, RevocationTime: time.Now(),
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, ca.Leaf, ca.key)
	if err != nil {
		tb.Fatal(err)
	}
	write(tb, filepath.Join(dir, name+".crl"), "X509 CRL", der)
}

func write(tb testing.TB, path, kind string, der []byte) {
	tb.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		tb.Fatal(err)
	}
}
