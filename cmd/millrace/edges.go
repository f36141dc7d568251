package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"millrace/cmd/millrace/config"
	"millrace/cmd/millrace/metrics"
	"millrace/mqtt"
	"millrace/rest"
	"millrace/rest/fastqueue"
)

func (a *app) openMQTT() error {
	addr := a.cfg.MQTT.Listen
	if addr == config.None {
		return nil
	}
	host, _, _ := net.SplitHostPort(addr) // it was validated
	c := a.cfg.MQTT
	s, err := mqtt.Listen(mqtt.Options{
		Broker: a.broker, Log: a.log,
		Listeners: []mqtt.Listener{{
			Address:        addr,
			AllowAnonymous: a.cfg.AllowAnonymous == config.Any || a.cfg.AllowAnonymous == config.On && config.Loopback(host),
		}},
		MaxPayload: int(a.cfg.Limits.Payload), MaxPacket: int(c.MaxPacketSize),
		ReceiveMaximum: c.ReceiveMaximum, MaxInflight: c.MaxInflight, MaxInflightV3: min(c.MaxInflight, mqtt.DefaultMaxInflightV3),
		MaxOutput: int(c.MaxOutput), MaxTopicBytes: a.cfg.Limits.TopicBytes, MaxTopicLevels: a.cfg.Limits.TopicLevels,
		MaxPerAddress: a.cfg.Limits.PerAddress, MaxKeepAlive: time.Duration(c.MaxKeepalive),
		BacklogMessages: c.MaxSessionQueue, CloseOnDeny: c.DenyAction == "close",
	})
	if err != nil {
		return listenFailure([]opened{{"mqtt", addr}}, err)
	}
	a.mqtt = s
	a.stack.push("MQTT", s.Close)
	for _, at := range s.Addrs() {
		a.open = append(a.open, opened{"mqtt", at.String()})
	}
	return nil
}

// metrics shows the figures of all parts.
func (a *app) metrics() http.Handler {
	return metrics.Handler(metrics.Registry(metrics.Source{
		Version: build().Short(), Broker: a.broker, Store: a.store,
		MQTT: func() *mqtt.Server { return a.mqtt },
		HTTP: func() *rest.Server { return a.http },
		// Each scrape reads the lists as the server itself.
		Context: asSystem(context.Background(), "metrics"),
	}))
}

// native are the listeners of one dialect at its own port.
var native = map[string]rest.Dialect{"emqx": rest.EMQX, "fastqueue": rest.FastQueue, "memfifo": rest.Memfifo}

func (a *app) openHTTP(ctx context.Context) error {
	var listeners []rest.Listener
	var wanted []opened
	for _, l := range []opened{{"http", a.cfg.HTTP.Listen}, {"emqx", a.cfg.EMQX.Listen}, {"fastqueue", a.cfg.FastQueue.Listen}, {"memfifo", a.cfg.Memfifo.Listen}} {
		if l.addr == config.None || a.skipBusy(ctx, l) {
			continue
		}
		dialects := []rest.Dialect{rest.FlowMQ, rest.EMQX, rest.FastQueue, rest.Pulsar}
		if d, ok := native[l.name]; ok {
			dialects = []rest.Dialect{d}
		}
		wanted = append(wanted, l)
		listeners = append(listeners, rest.Listener{Name: l.name, Address: l.addr, Dialects: dialects})
	}
	notice := ""
	if a.cfg.Dev != config.Off {
		notice = "development mode"
	}
	s, err := rest.Listen(ctx, rest.Options{
		Broker: a.broker, Log: a.log, Listeners: listeners, Origins: a.cfg.HTTP.AllowedOrigins, Notice: notice,
		MemfifoOpen: !a.cfg.Memfifo.Auth, Metrics: a.metrics(),
		FastQueue: fastqueue.Options{Registration: a.cfg.FastQueue.Registration},
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
