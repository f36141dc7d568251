package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"millrace/cmd/millrace/certs"
	"millrace/cmd/millrace/config"
	"millrace/cmd/millrace/metrics"
	"millrace/mqtt"
	"millrace/rest"
	"millrace/rest/fastqueue"
	"millrace/rest/pulsar"
)

// mqttListeners are the listeners of MQTT alone, and beside each what it is called.
func (a *app) mqttListeners() (names []opened, listeners []mqtt.Listener) {
	c := &a.cfg.MQTT
	add := func(name, addr string, l mqtt.Listener) {
		if addr == config.None {
			return
		}
		l.Address, l.Proxy, l.Origins = addr, c.Proxies(name), a.cfg.HTTP.AllowedOrigins
		l.AllowAnonymous = a.anonymousAt(addr) && (l.Proxy == nil || a.cfg.AllowAnonymous == config.Any)
		names, listeners = append(names, opened{name, addr}), append(listeners, l)
	}
	add("mqtt", c.Listen, mqtt.Listener{})
	add("mqtt-ws", c.WSListen, mqtt.Listener{WebSocket: true})
	if a.certs != nil {
		add("mqtt-tls", c.TLSListen, a.overTLS("mqtt"))
		wss := a.overTLS("http/1.1")
		wss.WebSocket = true
		add("mqtt-wss", c.WSSListen, wss)
	}
	if c.UnixListen != config.None {
		names = append(names, opened{"mqtt-unix", c.UnixListen})
		listeners = append(listeners, mqtt.Listener{
			Address: "unix:" + c.UnixListen, Mode: fs.FileMode(c.UnixMode), AllowAnonymous: a.cfg.AllowAnonymous != config.Off,
		})
	}
	return names, listeners
}

// clientAuth are the values of settings about client certificates.
var clientAuth = map[string]certs.ClientAuth{
	"none": certs.NoClientAuth, "optional": certs.OptionalClientAuth, "require": certs.RequireClientAuth,
}

// overTLS is a listener with our certificate, and the client's where tls.client_ca is set.
func (a *app) overTLS(proto string) mqtt.Listener {
	return mqtt.Listener{TLS: a.certs.Server(clientAuth[a.cfg.TLS.ClientAuth], proto), Identity: certs.NameFrom(a.cfg.TLS.ClientName).Client}
}

// anonymousAt reports whether clients without credentials may use a listener.
func (a *app) anonymousAt(addr string) bool {
	if addr == config.None { // nobody comes that way
		return true
	}
	host, _, _ := net.SplitHostPort(addr) // it was validated
	return a.cfg.AllowAnonymous == config.Any || a.cfg.AllowAnonymous == config.On && config.Loopback(host)
}

// certifiedOverHTTP names the user of a client's certificate, nil where HTTP over TLS asks for none.
func (a *app) certifiedOverHTTP() func(tls.ConnectionState) (string, error) {
	if a.cfg.HTTP.ClientAuth == "none" {
		return nil
	}
	return certs.NameFrom(a.cfg.TLS.ClientName).Client
}

func (a *app) openMQTT() error {
	names, listeners := a.mqttListeners()
	onHTTP := a.cfg.HTTP.MQTT && (a.cfg.HTTP.Listen != config.None || a.cfg.HTTP.TLSListen != config.None)
	if len(listeners) == 0 && !onHTTP {
		return nil
	}
	c := a.cfg.MQTT
	s, err := mqtt.Listen(mqtt.Options{
		Broker: a.broker, Clients: &a.clients, Alarms: a.alarms, Log: a.log, Listeners: listeners,
		MaxPayload: int(a.cfg.Limits.Payload), MaxPacket: int(c.MaxPacketSize),
		ReceiveMaximum: c.ReceiveMaximum, MaxInflight: c.MaxInflight, MaxInflightV3: min(c.MaxInflight, mqtt.DefaultMaxInflightV3),
		MaxOutput: int(c.MaxOutput), MaxTopicBytes: a.cfg.Limits.TopicBytes, MaxTopicLevels: a.cfg.Limits.TopicLevels,
		Limits:         mqttLimits(a.cfg),
		ConnectTimeout: time.Duration(c.ConnectTimeout), StallTimeout: time.Duration(c.StallTimeout), Overloaded: a.overloaded(),
		RivalsFrom:  cmp.Or(c.RivalTakeovers, -1),
		SysInterval: time.Duration(c.SysInterval), NoEvents: !c.Events, Version: build().Version,
		MaxAliases: c.TopicAliases, ResponseInformation: c.ResponseInfo,
		LeaseGrace: time.Duration(c.LeaseGrace), SessionExpiryV3: uint32(time.Duration(c.SessionExpiry3) / time.Second), CloseOnDeny: c.DenyAction == "close",
	})
	if err != nil {
		if l, ok := errors.AsType[*mqtt.ListenError](err); ok {
			names = names[l.At : l.At+1]
		}
		return listenFailure(names, err)
	}
	a.mqtt = s
	a.stack.push("MQTT", s.Close)
	for i, at := range s.Addrs() {
		a.open = append(a.open, opened{names[i].name, at.String()})
	}
	if onHTTP {
		a.mounts = map[string]http.Handler{"/mqtt": s.WebSocket(mqtt.Listener{
			AllowAnonymous: a.anonymousAt(a.cfg.HTTP.Listen) && a.anonymousAt(a.cfg.HTTP.TLSListen), Origins: a.cfg.HTTP.AllowedOrigins,
			Identity: a.certifiedOverHTTP(),
		})}
	}
	return nil
}

// metrics shows the figures of all parts.
func (a *app) metrics() http.Handler {
	return metrics.Handler(metrics.Registry(metrics.Source{
		Version: build().Version, Broker: a.broker, Store: a.local,
		MQTT:    func() *mqtt.Server { return a.mqtt },
		HTTP:    func() *rest.Server { return a.http },
		Exposed: func() int { return int(a.exposed.Load()) },
		// Each scrape reads the lists as the server itself.
		Context: asSystem(context.Background(), "metrics"),
	}))
}

// native are the listeners of one dialect at its own port.
var native = map[string]rest.Dialect{"emqx": rest.EMQX, "fastqueue": rest.FastQueue, "memfifo": rest.Memfifo}

func (a *app) openHTTP(ctx context.Context) error {
	var listeners []rest.Listener
	var wanted []opened
	for _, l := range []opened{{"http", a.cfg.HTTP.Listen}, {"https", a.cfg.HTTP.TLSListen}, {"emqx", a.cfg.EMQX.Listen}, {"fastqueue", a.cfg.FastQueue.Listen}, {"memfifo", a.cfg.Memfifo.Listen}} {
		if l.addr == config.None || a.skipBusy(ctx, l) {
			continue
		}
		dialects := []rest.Dialect{rest.FlowMQ, rest.EMQX, rest.FastQueue, rest.Pulsar}
		if d, ok := native[l.name]; ok {
			dialects = []rest.Dialect{d}
		}
		wanted = append(wanted, l)
		at := rest.Listener{Name: l.name, Address: l.addr, Dialects: dialects}
		if l.name == "https" {
			at.TLS, at.Sockets = a.certs.Server(clientAuth[a.cfg.HTTP.ClientAuth], "h2", "http/1.1"), mqtt.Sockets
		}
		listeners = append(listeners, at)
	}
	notice := ""
	if a.cfg.Dev != config.Off {
		notice = "development mode"
	}
	s, err := rest.Listen(ctx, rest.Options{
		Broker: a.broker, Log: a.log, Listeners: listeners, Origins: a.cfg.HTTP.AllowedOrigins, Notice: notice, Mounts: a.mounts,
		Bodies: a.bodies(), MaxNewcomers: a.cfg.Limits.Connecting, Identity: a.certifiedOverHTTP(), HSTS: time.Duration(a.cfg.HTTP.HSTS),
		MemfifoOpen: !a.cfg.Memfifo.Auth, Metrics: a.metrics(),
		FastQueue: fastqueue.Options{Registration: a.cfg.FastQueue.Registration}, EMQX: a.management(),
		Pulsar: pulsar.Options{CreateTopics: a.cfg.Pulsar.AutoCreateTopics, PublicURL: a.cfg.PublicURL},
	})
	if err != nil {
		return listenFailure(wanted, err)
	}
	a.http = s
	served := make(chan struct{})
	go func() { // ends with Close below, which waits for it
		defer close(served)
		if err := s.Serve(); err != nil {
			a.fail(&failure{code: exitFailed, err: fmt.Errorf("HTTP ended: %w", err)})
		}
	}()
	a.stack.push("HTTP", func(ctx context.Context) error {
		err := s.Close(ctx)
		<-served
		return err
	})
	for _, l := range wanted {
		a.open = append(a.open, opened{l.name, s.Addr(l.name).String()})
	}
	return nil
}

// bodies are the limits of request bodies, which follow that of payloads.
func (a *app) bodies() rest.Bodies {
	h, payload := a.cfg.HTTP, a.cfg.Limits.Payload
	return rest.Bodies{
		Raw: int(cmp.Or(h.MaxRaw, payload)), JSON: int(cmp.Or(h.MaxJSON, 2*payload)), Batch: int(cmp.Or(h.MaxBatch, 4*payload)),
	}
}

// skipBusy reports, and warns, that the port of a listener which --dev would
// open besides is taken: nobody asked for it by name.
func (a *app) skipBusy(ctx context.Context, l opened) bool {
	if _, ok := native[l.name]; !ok || a.cfg.Dev == config.Off || a.cfg.Given(l.name+".listen") {
		return false
	}
	var lc net.ListenConfig
	probe, err := lc.Listen(ctx, "tcp", l.addr)
	if err == nil {
		_ = probe.Close() // nothing was accepted
		return false
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return false // opening it will tell
	}
	a.log.Warn().Str("listener", l.name).Str("addr", l.addr).Msg("port in use" + inUseBy(l.addr) + "; this listener stays closed, --" + l.name + "-listen moves it")
	return true
}
