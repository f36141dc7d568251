package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"millrace/broker"
	"millrace/cmd/millrace/config"
	"millrace/persistence/cluster"
	"millrace/persistence/jetstream"
	"millrace/persistence/local"
	"millrace/rest"
)

// openStore opens the store that the settings name: the embedded one in the
// data directory, or a NATS JetStream.
func (a *app) openStore(ctx context.Context) error {
	if a.cfg.Data == "" {
		if err := a.temporaryData(); err != nil {
			return err
		}
	}
	if a.cfg.Store.URL != "" {
		return a.openJetStream(ctx)
	}
	store, err := local.Open(local.Options{ //nolint:contextcheck // it ends with its Close
		Dir: a.cfg.Data, Log: a.log,
		Relaxed: a.cfg.Store.Sync == "interval", AcceptLoss: a.cfg.Store.AcceptLoss == config.On,
		LowDisk: int64(a.cfg.Store.LowDisk), CompactRate: int64(a.cfg.Store.Compact),
		Progress: a.reportRecovery,
		Failed: func(err error) {
			a.fail(&failure{code: exitDisk, err: fmt.Errorf("the store cannot write: %w", err), hint: "look at the disk, then start again: everything acknowledged is there"})
		},
	})
	if err != nil {
		return storeFailure(a.cfg.Data, err)
	}
	a.local, a.store = store, store
	a.stack.push("store", store.Close)
	return nil
}

// openJetStream opens the store over NATS. The data directory holds what
// belongs to this machine: the audit log, and the first administrator's secret.
func (a *app) openJetStream(ctx context.Context) error {
	if err := os.MkdirAll(a.cfg.Data, 0o700); err != nil {
		return &failure{code: exitConfig, err: fmt.Errorf("make the data directory: %w", err)}
	}
	n := a.cfg.NATS
	if n.Node == "" {
		var err error
		if n.Node, err = ownName(a.cfg.Data); err != nil {
			return &failure{code: exitConfig, err: err, hint: "name it with --node-name"}
		}
	}
	stop, err := a.saysItStarts(ctx)
	if err != nil {
		return err
	}
	defer stop()
	store, err := cluster.Open(ctx, cluster.Options{Version: build().Version, MQTT: n.Advert, Store: jetstream.Options{
		URL: a.cfg.Store.URL, Creds: n.Creds, NKey: n.NKey, CA: n.CA, Cert: n.Cert, Key: n.Key, SysCreds: n.SysCreds,
		Domain: n.Domain, Prefix: n.Prefix, Replicas: n.Replicas, Sync: jetstream.Sync(n.Sync), Wait: time.Duration(n.Wait), LookAhead: n.Ahead, Node: n.Node, Log: a.log,
		AcceptLoss: a.cfg.Store.AcceptLoss == config.On,
		Failed: func(err error) {
			f := &failure{code: exitBusy, err: fmt.Errorf("the store takes no more work: %w", err)}
			if !errors.Is(err, broker.ErrDamaged) {
				f.hint = "start again: everything acknowledged is there"
			}
			a.fail(f)
		},
	}})
	if err != nil {
		return natsFailure(err)
	}
	a.store, a.cluster = store, store
	a.stack.push("store", store.Close)
	if most := store.MaxPayload(); most < int64(a.cfg.Limits.Payload) {
		a.cfg.Limits.Payload = config.Size(most)
		a.log.Warn().Stringer("limit", a.cfg.Limits.Payload).Msg("the nats servers take no larger payloads, although limits.payload does: raise their max_payload")
	}
	return nil
}

// saysItStarts answers /livez and /readyz of the HTTP listener until stop is called: the
// servers may be waited for as long as --nats-wait.
func (a *app) saysItStarts(ctx context.Context) (stop func(), err error) {
	l := opened{"http", a.cfg.HTTP.Listen}
	if l.addr == config.None {
		return func() {}, nil
	}
	stop, err = rest.Starting(ctx, l.addr, "starting: waiting for the store at the nats servers")
	if err != nil {
		return nil, listenFailure([]opened{l}, err)
	}
	return stop, nil
}

// ownName returns the name of this node: that of the machine, and four letters
// that are kept in dir.
func ownName(dir string) (string, error) {
	file := filepath.Join(dir, "node")
	name, err := os.ReadFile(file)
	if err == nil {
		return strings.TrimSpace(string(name)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the name of this node: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("the name of this machine: %w", err)
	}
	made := host + "-" + strings.ToLower(rand.Text()[:4])
	if err := os.WriteFile(file, []byte(made+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("the name of this node: %w", err)
	}
	return made, nil
}

// natsFailure says how the start ends that found no store.
func natsFailure(err error) error {
	f := &failure{code: exitFailed, err: fmt.Errorf("open the store: %w", err)}
	switch {
	case errors.Is(err, jetstream.ErrUnreachable):
		f.code = exitUnreachable
	case errors.Is(err, cluster.ErrNamesake):
		f.code, f.hint = exitBusy, "name this one otherwise with --node-name"
	case errors.Is(err, broker.ErrFull):
		f.code = exitDisk
	case errors.Is(err, jetstream.ErrUnfit):
		f.code = exitConfig
	}
	return f
}
