package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/alarms"
	"millrace/broker/auth"
	"millrace/broker/clients"
	"millrace/broker/history"
	"millrace/cmd/millrace/certs"
	"millrace/cmd/millrace/config"
	"millrace/cmd/millrace/memory"
	"millrace/mqtt"
	"millrace/persistence/local"
	"millrace/rest"
	"millrace/rest/emqx"
	"millrace/router"
)

// app is the running server: it builds the parts, from the store outwards, and
// knows how to end each.
type app struct {
	cfg   *config.Config
	log   zerolog.Logger
	out   io.Writer
	stack stack
	// failed gets the first fault after which the server cannot go on.
	failed chan error

	temporary bool // the data directory goes when the process goes
	store     broker.Store
	cluster   broker.Cluster // the other nodes on the store; nil if it is this one's alone
	local     *local.Store   // the store, if it is the embedded one
	broker    *broker.Broker
	memory    *memory.Watch           // nil without limits.memory
	exposed   atomic.Int64            // listeners without TLS that other machines reach
	certs     *certs.Owner            // nil without tls.cert
	mqtt      *mqtt.Server            // nil while its edge is closed
	mounts    map[string]http.Handler // of MQTT, on the HTTP listener
	http      *rest.Server
	open      []opened

	clients clients.Registry // of the MQTT edge, for those who manage it
	alarms  *alarms.Book
	losses  map[string]bool                // alarms that watchLosses raised
	shown   atomic.Pointer[[]emqx.Setting] // the settings, to the management API
	history *history.History
}

func newApp(cfg *config.Config, log zerolog.Logger, out io.Writer) *app {
	return &app{cfg: cfg, log: log, out: out, stack: stack{log: log}, failed: make(chan error, 1), alarms: alarms.NewBook(log)}
}

// start opens everything in order: store, accounts, broker, MQTT, HTTP. After
// an error the stack holds what was opened already.
func (a *app) start(ctx context.Context) error {
	began := time.Now()
	a.log.Info().Str("version", build().String()).Msg("starting")
	if n := fileLimit(); n > 0 && n < 4096 {
		a.log.Warn().Uint64("files", n).Msg("few files may be open: each connection needs one; raise the limit (ulimit -n)")
	}
	// The bootstrap file is checked before anything is touched.
	var boot *bootstrap
	var err error
	if a.cfg.BootstrapFile != "" {
		if boot, err = readBootstrap(a.cfg.BootstrapFile); err != nil {
			return err
		}
	}
	if t := a.cfg.TLS; t.Cert != "" {
		files := certs.Files{Cert: t.Cert, Key: t.Key, ClientCA: t.ClientCA, ClientCRL: t.ClientCRL}
		if a.certs, err = certs.Open(files, a.log); err != nil {
			return &failure{code: exitConfig, err: err}
		}
	}
	if limit := a.cfg.Limits.Memory; limit > 0 {
		a.memory = memory.Start(int64(limit), a.log)
		a.stack.push("memory watch", func(context.Context) error { a.memory.Close(); return nil })
	}
	if err := a.openBroker(ctx); err != nil {
		return err
	}
	login, err := a.setUp(ctx, boot)
	if err != nil {
		return err
	}
	if err := a.openMQTT(); err != nil { //nolint:contextcheck // what it opens outlives the start
		return err
	}
	a.keepHistory()
	if err := a.openHTTP(ctx); err != nil {
		return err
	}
	if a.cfg.PortsFile != "" {
		if err := writePorts(a.cfg.PortsFile, a.open); err != nil {
			return &failure{code: exitConfig, err: err}
		}
	}
	plain := exposed(a.open)
	a.exposed.Store(int64(len(plain)))
	for _, l := range plain {
		a.log.Warn().Str("listener", l.name).Str("addr", l.addr).Msg("listens without TLS on an address that others reach: passwords and keys can be read on the way; use its TLS listener, or a proxy with TLS in front")
	}
	a.log.Info().Dur("took", time.Since(began)).Msg("ready")
	if a.cfg.Dev == config.Off {
		return nil
	}
	b := banner{
		build: build(), temporary: a.temporary, open: a.open, publicURL: a.cfg.PublicURL, login: login,
		anonymous: a.cfg.AllowAnonymous != config.Off,
	}
	return b.write(a.out)
}

// openBroker opens the store, the accounts in it, and the broker over both.
func (a *app) openBroker(ctx context.Context) error {
	if err := a.openStore(ctx); err != nil {
		return err
	}
	keys := broker.NewKeys(a.store, broker.SpaceSystem)
	if a.cluster != nil {
		keys = keys.Of(a.cluster.Self()) // each has its own
	}
	if err := a.alarms.Keep(ctx, keys); err != nil {
		return err
	}
	a.stack.push("alarms", a.alarms.Close)
	accounts, err := a.openAccounts(ctx)
	if err != nil {
		return err
	}
	a.broker, err = broker.Open(ctx, broker.Options{
		Store: a.store, Cluster: a.cluster, Auth: accounts, Log: a.log, Alarms: a.alarms,
		Limits: brokerLimits(a.cfg), MaxPayload: int(a.cfg.Limits.Payload), Overloaded: a.overloaded(),
		NodeBuffer: int(a.cfg.NATS.Buffer), Topics: router.Limits{MaxBytes: a.cfg.Limits.TopicBytes, MaxLevels: a.cfg.Limits.TopicLevels},
	})
	if err != nil {
		return fmt.Errorf("open the broker: %w", err)
	}
	a.stack.push("broker", a.broker.Close)
	return nil
}

// reportRecovery logs how far the start has come that reads much.
func (a *app) reportRecovery(p local.Progress) {
	a.log.Info().Int64("bytes", p.Done).Int64("of", p.Total).Int64("percent", 100*p.Done/max(p.Total, 1)).
		Dur("took", p.Took).Dur("left", p.Left).Msg("reading the data directory")
}

// openAccounts opens users, keys and rules, and the audit log about them.
func (a *app) openAccounts(ctx context.Context) (*auth.Auth, error) {
	o := auth.Options{
		Store: broker.NewKeys(a.store, broker.SpaceAuth), AllowAnonymous: a.cfg.AllowAnonymous != config.Off, Log: a.log,
		Rates: rates(a.cfg),
	}
	if a.cfg.Audit.Enabled {
		file, err := auth.OpenAuditFile(filepath.Join(a.cfg.Data, auditFile), int64(a.cfg.Audit.MaxSize), a.cfg.Audit.Keep)
		if err != nil {
			return nil, err
		}
		// Whoever keeps this log elsewhere can tell that the end was cut off.
		a.log.Info().Str("head", file.Head()).Msg("audit log opened")
		a.stack.push("audit log", func(context.Context) error {
			a.log.Info().Str("head", file.Head()).Msg("audit log closed")
			return file.Close()
		})
		o.Audit = file
	}
	accounts, err := auth.Open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open the accounts: %w", err)
	}
	a.stack.push("accounts", accounts.Close)
	return accounts, nil
}

// asSystem is the context of what the broker itself does at its start, name is
// why. It may also change the last administrator.
func asSystem(ctx context.Context, name string) context.Context {
	return auth.WithPrincipal(ctx, &auth.Principal{Kind: auth.System, Name: name})
}

// setUp applies the bootstrap file, and makes the accounts of --dev or the
// first administrator.
func (a *app) setUp(ctx context.Context, boot *bootstrap) (login credentials, err error) {
	if boot != nil {
		if err := boot.apply(ctx, a.cfg.BootstrapFile, a.broker, a.log); err != nil {
			return login, err
		}
	}
	if a.cfg.Dev != config.Off {
		if login, err = developmentAccount(asSystem(ctx, "development"), a.broker.Auth()); err != nil {
			return login, err
		}
		return login, a.demoQueue(ctx)
	}
	if a.broker.Auth().HasAdministrator() {
		return login, nil
	}
	path, err := firstAdministrator(asSystem(ctx, "first start"), a.broker.Auth(), a.cfg.Data, a.out)
	if err == nil && path != "" {
		a.log.Warn().Str("file", path).Msg("made the first administrator; its password and API key are in the file, move it to a safe place")
	}
	return login, err
}

// demoQueue makes the queue that the commands of the banner use.
func (a *app) demoQueue(ctx context.Context) error {
	_, err := a.broker.CreateQueue(asSystem(ctx, "development"), broker.NewQueueConfig("demo", "demo/#"))
	if err != nil && broker.KindOf(err) != broker.Conflict {
		return fmt.Errorf("make the queue demo: %w", err)
	}
	return nil
}

// overloaded is what refuses work while memory is short, nil without a limit.
func (a *app) overloaded() func() bool {
	if a.memory == nil {
		return nil
	}
	return a.memory.Over
}

// fail ends the server because of a fault while it runs; the first one counts.
func (a *app) fail(err error) {
	select {
	case a.failed <- err:
	default:
	}
}
