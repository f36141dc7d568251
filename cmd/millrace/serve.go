package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"millrace/cmd/millrace/config"
)

func newServe() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the broker",
		Example: `  millrace serve --dev
  millrace serve --data /var/lib/millrace --http-listen 0.0.0.0:8080`,
		Args: cobra.NoArgs,
		RunE: action(func(c *cobra.Command, _ []string) error { return serve(c, f.source(c)) }),
	}
	f.register(c)
	return c
}

// serve runs until a signal, or until the store fails.
func serve(c *cobra.Command, source config.Source) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	cfg, err := config.Load(source)
	if err != nil {
		return &failure{code: exitConfig, err: err}
	}

	a := newApp(cfg, newLogger(c.ErrOrStderr(), cfg.Log), c.OutOrStdout())
	ctx, cancel := context.WithCancelCause(c.Context())
	defer cancel(nil)
	started := make(chan error, 1)
	go func() { started <- a.start(ctx) }() // waited for below
	err = nil
	changed := false // while it starts, it was told to read its settings again
wait:
	for {
		select {
		case err = <-started:
			if err != nil {
				break wait
			}
			started = nil
			if changed {
				a.reload(ctx, source)
			}
		case s := <-signals:
			if s == syscall.SIGHUP {
				if changed = started != nil; !changed {
					a.reload(ctx, source)
				}
				continue
			}
			a.log.Info().Str("signal", s.String()).Msg("stopping")
			cancel(fmt.Errorf("stopped by %s", s))
			if started != nil {
				// It gives up because of ctx; what it opened is closed below.
				a.log.Debug().Err(<-started).Msg("start ended")
			}
			break wait
		case fault := <-a.failed:
			a.log.Error().Err(fault).Msg("cannot go on")
			err = fault
			break wait
		}
	}
	return a.finish(c.Context(), signals, err)
}

// finish stops everything that was started. A second signal does not wait for it.
func (a *app) finish(parent context.Context, signals <-chan os.Signal, cause error) error {
	timeout := time.Duration(a.cfg.DrainTimeout)
	if cause != nil {
		timeout = min(timeout, 5*time.Second) // nobody is to be waited for
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(parent), timeout)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- a.stack.unwind(ctx) }() // ends with ctx; a second signal leaves it to the exit
	for {
		select {
		case err := <-stopped:
			if cause != nil {
				if err != nil {
					a.log.Warn().Err(err).Msg("stopped with errors")
				}
				return cause
			}
			if err == nil {
				a.log.Info().Msg("stopped")
			}
			return err
		case s := <-signals:
			if s == syscall.SIGHUP {
				continue
			}
			return errors.Join(cause, &failure{code: exitFailed, err: fmt.Errorf("stopped at once by a second signal (%s)", s)})
		}
	}
}
