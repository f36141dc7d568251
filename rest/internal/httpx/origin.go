package httpx

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"millrace/broker"
)

// checkOrigin lets through what no browser sent for a page, and pages of our
// own host and of the configured origins; those may also read the answer.
func (s *Shared) checkOrigin(h http.Header, r *http.Request) error {
	v := r.Header["Origin"]
	if len(v) == 0 {
		return nil
	}
	if len(v) == 1 {
		if slices.Contains(s.Origins, v[0]) {
			h.Set("Access-Control-Allow-Origin", v[0])
			h.Set("Access-Control-Expose-Headers", headerID+", "+headerDurability)
			h.Add("Vary", "Origin")
			return nil
		}
		if u, err := url.Parse(v[0]); err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host) {
			return nil
		}
	}
	return &broker.Error{
		Kind:    broker.Forbidden,
		Message: "requests from this origin are not allowed: add it to http.allowed_origins",
	}
}

// preflight completes the answer to OPTIONS for an origin that was let through.
func preflight(h http.Header, r *http.Request) {
	if h.Get("Access-Control-Allow-Origin") == "" || r.Header.Get("Access-Control-Request-Method") == "" {
		return
	}
	h.Set("Access-Control-Allow-Methods", h.Get("Allow"))
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, "+headerID)
	h.Set("Access-Control-Max-Age", "600")
}
