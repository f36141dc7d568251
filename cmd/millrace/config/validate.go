package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Validate returns every mistake in c, joined, or nil.
func (c *Config) Validate() error {
	errs := c.checkChoices()
	for _, l := range c.listeners() {
		errs = append(errs, c.checkAddress(l.key, l.addr))
	}
	errs = append(errs, c.checkDistinct(), c.checkOpen(), c.checkTLS(), c.checkProxies(), c.checkStore())
	for _, r := range []struct {
		key           string
		value, lo, hi int64
	}{
		{"mqtt.max_packet_size", int64(c.MQTT.MaxPacketSize), 1 << 10, 256 << 20},
		{"mqtt.receive_maximum", int64(c.MQTT.ReceiveMaximum), 1, 65535},
		{"mqtt.max_inflight", int64(c.MQTT.MaxInflight), 1, 65535},
		{"mqtt.max_output", int64(c.MQTT.MaxOutput), 64 << 10, 4 << 30},
		{"mqtt.max_session_queue", int64(c.MQTT.MaxSessionQueue), 1, 1 << 30},
		{"mqtt.max_session_bytes", int64(c.MQTT.MaxSessionBytes), 64 << 10, 1 << 40},
		{"mqtt.lease_grace", int64(time.Duration(c.MQTT.LeaseGrace) / time.Millisecond), 1, 40_000},
		{"mqtt.session_expiry_311", int64(time.Duration(c.MQTT.SessionExpiry3) / time.Second), 0, 1<<32 - 2},
		{"mqtt.max_keepalive", int64(time.Duration(c.MQTT.MaxKeepalive) / time.Millisecond), 0, 65_535_000},
		{"mqtt.max_subscriptions", int64(c.MQTT.MaxSubscriptions), 1, 1 << 30},
		{"mqtt.max_filters", int64(c.MQTT.MaxFilters), 1, 1 << 30},
		{"mqtt.topic_aliases", int64(c.MQTT.TopicAliases), 1, 65535},
		{"mqtt.connect_timeout", int64(time.Duration(c.MQTT.ConnectTimeout) / time.Millisecond), 100, 600_000},
		{"mqtt.rival_takeovers", int64(c.MQTT.RivalTakeovers), 0, 1 << 30},
		{"mqtt.sys_interval", int64(time.Duration(c.MQTT.SysInterval) / time.Millisecond), 0, 3_600_000},
		{"mqtt.stall_timeout", int64(time.Duration(c.MQTT.StallTimeout) / time.Millisecond), 100, 3_600_000},
		{"limits.per_address", int64(c.Limits.PerAddress), 0, 1 << 30},
		{"http.max_raw", int64(c.HTTP.MaxRaw), 0, 1 << 30},
		{"http.max_json", int64(c.HTTP.MaxJSON), 0, 1 << 30},
		{"http.max_batch", int64(c.HTTP.MaxBatch), 0, 1 << 30},
		{"limits.key_rate", int64(c.Limits.KeyRate), 0, 1 << 30},
		{"limits.key_messages", int64(c.Limits.KeyMessages), 0, 1 << 30},
		{"limits.key_bytes", int64(c.Limits.KeyBytes), 0, 1 << 40},
		{"limits.per_identity", int64(c.Limits.PerIdentity), 0, 1 << 30},
		{"limits.accept_rate", int64(c.Limits.AcceptRate), 0, 1_000_000},
		{"limits.connecting", int64(c.Limits.Connecting), 1, 1 << 30},
		{"limits.queues", int64(c.Limits.Queues), 0, 1 << 30},
		{"limits.streams", int64(c.Limits.Streams), 0, 1 << 30},
		{"limits.stored", int64(c.Limits.Stored), 0, 1 << 50},
		{"limits.retained", int64(c.Limits.Retained), 0, 1 << 30},
		{"limits.memory", int64(c.Limits.Memory), 0, 1 << 50},
		{"limits.payload", int64(c.Limits.Payload), 1, 256 << 20},
		{"limits.topic_bytes", int64(c.Limits.TopicBytes), 16, 65535},
		{"limits.topic_levels", int64(c.Limits.TopicLevels), 1, 65535},
		{"limits.waiting", int64(c.Limits.Waiting), 1, 10_000_000},
		{"nats.replicas", int64(c.NATS.Replicas), 0, 5},
		{"nats.wait", int64(time.Duration(c.NATS.Wait) / time.Millisecond), 1000, 3_600_000},
		{"nats.node_buffer", int64(c.NATS.Buffer), 64 << 10, 4 << 30},
		{"nats.look_ahead", int64(c.NATS.Ahead), 0, 100_000},
		{"audit.max_size", int64(c.Audit.MaxSize), 64 << 10, 4 << 30},
		{"audit.keep", int64(c.Audit.Keep), 1, 10_000},
		{"drain_timeout", int64(time.Duration(c.DrainTimeout) / time.Millisecond), 100, 3_600_000},
	} {
		if r.value < r.lo || r.value > r.hi {
			s, _ := find(r.key)
			errs = append(errs, fmt.Errorf("%s is %s (from %s), outside %s", r.key, c.Get(s), c.Origin(r.key), bounds(r.key, r.lo, r.hi)))
		}
	}
	if c.Limits.Payload > c.MQTT.MaxPacketSize {
		errs = append(errs, fmt.Errorf("limits.payload is %s, more than mqtt.max_packet_size, %s: raise the second as well", c.Limits.Payload, c.MQTT.MaxPacketSize))
	}
	if t := c.MQTT.ResponseInfo; len(t) > 256 || strings.ContainsAny(t, "+#\x00") || !utf8.ValidString(t) {
		errs = append(errs, fmt.Errorf("mqtt.response_information is %q (from %s): it is a topic of at most 256 bytes, without wildcards", t, c.Origin("mqtt.response_information")))
	}
	if u, err := url.Parse(c.PublicURL); c.PublicURL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		errs = append(errs, fmt.Errorf("public_url is %q, not an http:// or https:// URL", c.PublicURL))
	} else if c.PublicURL != "" && u.User != nil {
		errs = append(errs, fmt.Errorf("public_url (from %s) names a user, and it is printed: take the part before @ away", c.Origin("public_url")))
	}
	return errors.Join(errs...)
}

// checkStore refuses settings of the store that is not used.
func (c *Config) checkStore() error {
	var errs []error
	normal := Default()
	for _, s := range settings {
		other, why := strings.HasPrefix(s.Key, "nats."), "store.url names no NATS server"
		if c.Store.URL != "" {
			other, why = strings.HasPrefix(s.Key, "store.") && s.Key != "store.url" && s.Key != "store.accept_loss", "it is about the data directory, and store.url keeps messages in NATS"
		}
		if other && c.Given(s.Key) && c.Get(s) != normal.Get(s) {
			errs = append(errs, fmt.Errorf("%s (from %s) has no effect: %s; leave it out", s.Key, c.Origin(s.Key), why))
		}
	}
	if host, port, err := net.SplitHostPort(c.NATS.Advert); c.NATS.Advert != "" {
		if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 1 || n > 65535 || host == "" || strings.ContainsAny(host, " ,") || len(host) > 253 {
			errs = append(errs, fmt.Errorf("nats.advertise is %q (from %s): write host:port, for example mqtt-1.example.org:1883", c.NATS.Advert, c.Origin("nats.advertise")))
		}
	}
	for u := range strings.SplitSeq(c.Store.URL, ",") {
		at, err := url.Parse(u)
		if c.Store.URL != "" && (err != nil || at.Host == "" || at.Scheme != "nats" && at.Scheme != "tls") {
			errs = append(errs, fmt.Errorf("store.url (from %s) has a server that is not nats://HOST:PORT or tls://HOST:PORT", c.Origin("store.url")))
		}
	}
	return errors.Join(errs...)
}

func bounds(key string, lo, hi int64) string {
	switch key {
	case "drain_timeout", "mqtt.stall_timeout":
		return "100ms to 1h"
	case "nats.wait":
		return "1s to 1h"
	case "mqtt.sys_interval":
		return "0s to 1h"
	case "mqtt.connect_timeout":
		return "100ms to 10m"
	case "mqtt.max_keepalive":
		return "0s to 65535s"
	case "mqtt.lease_grace":
		return "1ms to 40s"
	case "mqtt.session_expiry_311":
		return "0s to 4294967294s"
	case "http.max_raw", "http.max_json", "http.max_batch", "limits.key_bytes", "limits.payload", "mqtt.max_packet_size", "mqtt.max_output", "mqtt.max_session_bytes", "audit.max_size", "nats.node_buffer":
		return Size(lo).String() + " to " + Size(hi).String()
	}
	return fmt.Sprintf("%d to %d", lo, hi)
}

// checkChoices looks at settings with few permitted values.
func (c *Config) checkChoices() []error {
	var errs []error
	for _, s := range settings {
		value := c.Get(s)
		if s.One != nil && !slices.Contains(s.One, value) {
			errs = append(errs, fmt.Errorf("%s is %q (from %s); it is one of %s", s.Key, value, c.Origin(s.Key), strings.Join(s.One, ", ")))
		}
	}
	return errs
}

type listener struct{ key, addr string }

// listeners are the addresses that can be opened in this version.
func (c *Config) listeners() []listener {
	return []listener{
		{"mqtt.listen", c.MQTT.Listen},
		{"mqtt.tls_listen", c.MQTT.TLSListen},
		{"mqtt.ws_listen", c.MQTT.WSListen},
		{"mqtt.wss_listen", c.MQTT.WSSListen},
		{"http.listen", c.HTTP.Listen},
		{"http.tls_listen", c.HTTP.TLSListen},
		{"emqx.listen", c.EMQX.Listen},
		{"fastqueue.listen", c.FastQueue.Listen},
		{"memfifo.listen", c.Memfifo.Listen},
	}
}

func (c *Config) checkAddress(key, addr string) error {
	if addr == None {
		return nil
	}
	host, port, ok := strings.Cut(addr, ":")
	if i := strings.LastIndexByte(addr, ':'); i >= 0 {
		host, port = addr[:i], addr[i+1:]
	}
	if n, err := strconv.Atoi(port); !ok || err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%s is %q (from %s): write address:port, for example 127.0.0.1:1883, or none", key, addr, c.Origin(key))
	}
	if c.Dev == On && !Loopback(host) {
		return fmt.Errorf("%s is %s, which other machines reach, and --dev asks nobody for credentials: use 127.0.0.1, or --dev=any in a container, or serve without --dev", key, addr)
	}
	return nil
}

// checkOpen keeps what asks nobody for credentials from other machines.
func (c *Config) checkOpen() error {
	addr := c.Memfifo.Listen
	i := strings.LastIndexByte(addr, ':')
	if c.Memfifo.Auth || c.Dev == On || i < 0 || Loopback(addr[:i]) {
		return nil
	}
	return fmt.Errorf("memfifo.listen is %s, which other machines reach, and memfifo.auth is false (from %s): use 127.0.0.1, or leave memfifo.auth true", addr, c.Origin("memfifo.auth"))
}

// checkTLS finds files that are missing beside others.
func (c *Config) checkTLS() error {
	t := &c.TLS
	switch {
	case t.Cert != "" && t.Key == "":
		return fmt.Errorf("tls.cert is %s (from %s) and tls.key is not set: name the file of its key", t.Cert, c.Origin("tls.cert"))
	case t.Cert == "" && t.Key != "":
		return fmt.Errorf("tls.key is %s (from %s) and tls.cert is not set: name the file of its certificate", t.Key, c.Origin("tls.key"))
	case t.Cert == "" && c.MQTT.WSSListen != None:
		return fmt.Errorf("mqtt.wss_listen is %s (from %s), which needs a certificate: set tls.cert and tls.key", c.MQTT.WSSListen, c.Origin("mqtt.wss_listen"))
	case t.Cert == "" && c.MQTT.TLSListen != None:
		return fmt.Errorf("mqtt.tls_listen is %s (from %s), which needs a certificate: set tls.cert and tls.key", c.MQTT.TLSListen, c.Origin("mqtt.tls_listen"))
	case t.Cert == "" && c.HTTP.TLSListen != None:
		return fmt.Errorf("http.tls_listen is %s (from %s), which needs a certificate: set tls.cert and tls.key", c.HTTP.TLSListen, c.Origin("http.tls_listen"))
	case t.ClientCA == "" && c.HTTP.ClientAuth != "none":
		return fmt.Errorf("http.client_auth is %s (from %s) and tls.client_ca is not set: name the certificates that sign client certificates", c.HTTP.ClientAuth, c.Origin("http.client_auth"))
	case t.ClientCA == "" && t.ClientCRL != "":
		return fmt.Errorf("tls.client_crl is %s (from %s) and tls.client_ca is not set: name the certificates that sign client certificates", t.ClientCRL, c.Origin("tls.client_crl"))
	case t.Cert == "" && t.ClientCA != "":
		return fmt.Errorf("tls.client_ca is %s (from %s), which needs a certificate of our own: set tls.cert and tls.key", t.ClientCA, c.Origin("tls.client_ca"))
	}
	return nil
}

// checkProxies reads the addresses of proxies, and the names of listeners.
func (c *Config) checkProxies() error {
	var errs []error
	for _, p := range c.MQTT.ProxyFrom {
		if _, err := parsePrefix(p); err != nil {
			errs = append(errs, fmt.Errorf("mqtt.proxy_from has %q (from %s): write an address or a network, for example 10.0.0.0/8", p, c.Origin("mqtt.proxy_from")))
		}
	}
	known := Default().MQTT.ProxyListeners
	for _, l := range c.MQTT.ProxyListeners {
		if !slices.Contains(known, l) {
			errs = append(errs, fmt.Errorf("mqtt.proxy_listeners has %q (from %s); it takes %s", l, c.Origin("mqtt.proxy_listeners"), strings.Join(known, ", ")))
		}
	}
	return errors.Join(errs...)
}

// Proxies returns who may send PROXY headers to the listener; nil = nobody.
func (m *MQTT) Proxies(listener string) []netip.Prefix {
	if !slices.Contains(m.ProxyListeners, listener) {
		return nil
	}
	var all []netip.Prefix
	for _, text := range m.ProxyFrom {
		if p, err := parsePrefix(text); err == nil { // they were validated
			all = append(all, p)
		}
	}
	return all
}

func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// Loopback reports whether only this machine reaches the host of an address.
func Loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// checkDistinct finds two listeners with one address.
func (c *Config) checkDistinct() error {
	seen := map[string]string{}
	var errs []error
	for _, l := range c.listeners() {
		if l.addr == None || strings.HasSuffix(l.addr, ":0") {
			continue
		}
		if other := seen[l.addr]; other != "" {
			errs = append(errs, fmt.Errorf("%s and %s are both %s: give one of them another port", other, l.key, l.addr))
		}
		seen[l.addr] = l.key
	}
	return errors.Join(errs...)
}
