package main

import (
	"context"
	"strings"

	"millrace/cmd/millrace/config"
)

// reload reads all settings again, on SIGHUP. It applies what can change in a
// running broker and names what needs a restart; a mistake changes nothing.
func (a *app) reload(ctx context.Context, source config.Source) {
	cfg, err := config.Load(source)
	if err != nil {
		a.log.Error().Err(err).Msg("reload refused, nothing changed")
		return
	}
	var boot *bootstrap
	if cfg.BootstrapFile != "" {
		if boot, err = readBootstrap(cfg.BootstrapFile); err != nil {
			a.log.Error().Err(err).Msg("reload refused, nothing changed")
			return
		}
	}
	if a.certs != nil {
		if err := a.certs.Reload(); err != nil {
			a.log.Error().Err(err).Msg("certificate files cannot be used, the old ones stay in force")
		}
	}
	var changed, restart []string
	for _, s := range config.Settings() {
		if cfg.Get(s) == a.cfg.Get(s) || s.Key == "data" && a.temporary {
			continue
		}
		switch s.Key {
		case "log.level":
			setLevel(cfg.Log.Level)
			a.cfg.Log.Level = cfg.Log.Level
			changed = append(changed, s.Key)
		case "bootstrap_file":
			a.cfg.BootstrapFile = cfg.BootstrapFile
			changed = append(changed, s.Key)
		default:
			restart = append(restart, s.Key)
		}
	}
	a.showSettings()
	if boot != nil {
		if err := boot.apply(ctx, cfg.BootstrapFile, a.broker, a.log); err != nil {
			a.log.Error().Err(err).Msg("bootstrap file applied in part")
		}
	}
	e := a.log.Info().Str("changed", strings.Join(changed, " "))
	if len(restart) > 0 {
		e = a.log.Warn().Str("changed", strings.Join(changed, " ")).Str("needs_restart", strings.Join(restart, " "))
	}
	e.Msg("reloaded")
}
