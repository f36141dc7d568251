package httpx

import (
	"net"
	"net/http"

	"millrace/broker"
	"millrace/broker/auth"
)

// MayScrape lets the figures be read by this machine, and by whoever may view
// the server: by a key, or by a token of that audience. Credentials that are
// there are looked at, whoever sends them.
func MayScrape(b *broker.Broker, audience string, r *Request) error {
	if FromLoopback(r.Request) && r.Header.Get("Authorization") == "" {
		return nil
	}
	p, err := KeyOrToken(b.Auth(), audience, r)
	if err != nil {
		return err
	}
	return b.May(auth.WithPrincipal(r.Context(), p), auth.View, auth.Server)
}

// FromLoopback reports whether a request comes from this machine, and not by
// way of a proxy on it.
func FromLoopback(r *http.Request) bool {
	if r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "" {
		return false
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	return err == nil && net.ParseIP(host).IsLoopback()
}
