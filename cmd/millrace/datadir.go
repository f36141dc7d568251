package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/rs/zerolog"
)

// openDataDir makes the data directory if need be, and refuses one that others
// could write to or that we cannot.
func openDataDir(dir string, log zerolog.Logger) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &failure{code: exitConfig, err: fmt.Errorf("cannot make the data directory %s: %w", dir, err), hint: "name another with --data, or give it to this user"}
	}
	link, err := os.Lstat(dir)
	if err != nil {
		return &failure{code: exitConfig, err: fmt.Errorf("cannot use the data directory: %w", err)}
	}
	if link.Mode()&fs.ModeSymlink != 0 {
		log.Warn().Str("data", dir).Msg("the data directory is a link")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return &failure{code: exitConfig, err: fmt.Errorf("cannot use the data directory: %w", err)}
	}
	switch perm := info.Mode().Perm(); {
	case perm&0o002 != 0:
		return &failure{code: exitConfig, err: fmt.Errorf("every user of this machine can write to the data directory %s (mode %04o, owner %s)", dir, perm, owner(info)), hint: "chmod o-w " + dir}
	case perm&0o020 != 0:
		log.Warn().Str("data", dir).Msg("the group of the data directory can write to it")
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return &failure{code: exitConfig, err: fmt.Errorf("cannot write to the data directory %s (mode %04o, owner %s; we are user %d): %w", dir, info.Mode().Perm(), owner(info), os.Getuid(), errors.Unwrap(err)), hint: fmt.Sprintf("chown %d %s", os.Getuid(), dir)}
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// temporaryData makes a folder that is gone when the server stops.
func (a *app) temporaryData() error {
	dir, err := os.MkdirTemp("", "millrace-dev-")
	if err != nil {
		return fmt.Errorf("make a temporary data directory: %w", err)
	}
	a.cfg.Data, a.temporary = dir, true
	a.stack.push("temporary data", func(context.Context) error { return os.RemoveAll(dir) })
	return nil
}
