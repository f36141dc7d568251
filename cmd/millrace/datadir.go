package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"millrace/persistence/journal"
	"millrace/persistence/local"
)

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

// storeFailure says for people why the store in dir cannot be opened.
func storeFailure(dir string, err error) error {
	if locked, ok := errors.AsType[*journal.LockedError](err); ok {
		who := "another process"
		if locked.PID != 0 {
			who = fmt.Sprintf("process %d", locked.PID)
		}
		return &failure{code: exitBusy, err: fmt.Errorf("the data directory %s is in use by %s", dir, who), hint: "stop that one, or name another directory with --data"}
	}
	f := &failure{code: exitFailed, err: fmt.Errorf("open the store in %s: %w", dir, err)}
	if _, ok := errors.AsType[*journal.DamageError](err); ok {
		f.hint = "nothing was changed; restore a backup, or give up what is damaged with --accept-loss"
	}
	if errors.Is(err, fs.ErrPermission) {
		f.code = exitConfig
		f.hint = fmt.Sprintf("%s, and this is user %d: chown it, or name another directory with --data", ownerOf(dir), os.Getuid())
	}
	_, open := errors.AsType[*local.PermissionError](err)
	_, foreign := errors.AsType[*local.FormatError](err)
	if open || foreign {
		f.code, f.err = exitConfig, errors.Unwrap(f.err)
	}
	return f
}

// ownerOf names the owner of dir, or of the folder that is there above it.
func ownerOf(dir string) string {
	for {
		info, err := os.Stat(dir)
		if err == nil {
			return fmt.Sprintf("%s belongs to %s", dir, owner(info))
		}
		if up := filepath.Dir(dir); up != dir {
			dir = up
			continue
		}
		return dir + " cannot be looked at"
	}
}
