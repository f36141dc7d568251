package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// readAuthorities reads every certificate of a file; a file with none, or with
// one that cannot be read, is a mistake.
func readAuthorities(name string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("client authorities: %w", err)
	}
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("client authorities %s: %w", name, err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("client authorities %s: the file has no certificate in PEM form", name)
	}
	return all, nil
}

// revoke reads the revocation lists of a file. Each must be signed by one of
// the authorities.
func (g *generation) revoke(name string, authorities []*x509.Certificate) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("revocation list: %w", err)
	}
	lists := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			continue
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return fmt.Errorf("revocation list %s: %w", name, err)
		}
		if !signedByOne(list, authorities) {
			return fmt.Errorf("revocation list %s: %s, which issued it, is not among the client authorities, or did not sign it", name, list.Issuer)
		}
		for i := range list.RevokedCertificateEntries {
			g.revoked[serial(list.RawIssuer, list.RevokedCertificateEntries[i].SerialNumber.Bytes())] = struct{}{}
		}
		lists++
	}
	if lists == 0 {
		return fmt.Errorf("revocation list %s: the file has no X509 CRL in PEM form", name)
	}
	return nil
}

func signedByOne(list *x509.RevocationList, authorities []*x509.Certificate) bool {
	for _, a := range authorities {
		if list.CheckSignatureFrom(a) == nil {
			return true
		}
	}
	return false
}

// NameFrom says which part of a client certificate is the name of a user.
type NameFrom string

const (
	// CommonName is the CN of the subject.
	CommonName NameFrom = "cn"
	// DNSName is the only DNS name among the subject's alternative names.
	DNSName NameFrom = "dns"
	// URIName is the only URI among them, whole.
	URIName NameFrom = "uri"
)

// ErrNoName refuses a certificate that does not name one user.
var ErrNoName = errors.New("client certificate does not name one user")

// Client returns the name in the verified certificate of a client, "" where it
// showed none.
func (n NameFrom) Client(state tls.ConnectionState) (string, error) {
	if len(state.PeerCertificates) == 0 {
		return "", nil
	}
	c := state.PeerCertificates[0]
	var names []string
	switch n {
	case DNSName:
		names = c.DNSNames
	case URIName:
		for _, u := range c.URIs {
			names = append(names, u.String())
		}
	default:
		names = []string{c.Subject.CommonName}
	}
	if len(names) != 1 || names[0] == "" {
		return "", fmt.Errorf("%w: %d names of the kind %s", ErrNoName, len(names), n)
	}
	return names[0], nil
}
