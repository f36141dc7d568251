package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"millrace/broker"
	"millrace/persistence/journal"
	"millrace/persistence/local"
)

func newBackup() *cobra.Command {
	c := &cobra.Command{
		Use:   "backup",
		Short: "Copy what a running broker stores, and make a data directory of a copy",
		Example: `  millrace backup create monday.tar
  millrace backup restore monday.tar --data /var/lib/millrace`,
	}
	c.AddCommand(backupCreate(), backupRestore())
	return c
}

func backupCreate() *cobra.Command {
	a := &api{}
	c := &cobra.Command{
		Use: "create FILE", Short: "Write a backup of a running broker to a file; traffic goes on", Args: cobra.ExactArgs(1),
		Long: `Write a backup of a running broker to a file; traffic goes on.

It holds every message, queue, stream, session, cursor, user, key and rule that
was acknowledged before the command began, and is as secret as they are. It does
not hold the settings, the bootstrap file, audit.log, or queues of the driver
memory. The key must be an administrator's.`,
		RunE: action(func(c *cobra.Command, args []string) error {
			n, err := a.download(c.Context(), "/backup", args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %d bytes\n", args[0], n)
			return err
		}),
	}
	a.register(c)
	return c
}

// download writes the body of an answer to a file, which appears whole or not
// at all.
func (a *api) download(ctx context.Context, path, file string) (n int64, err error) {
	if _, err := os.Lstat(file); err == nil {
		return 0, usage("%s is there already: name a new file", file)
	}
	body, err := a.open(ctx, path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = body.Close() }() // it was read, or is of no use
	return local.KeepBackup(ctx, journal.OS(), file, answer{body})
}

// answer is the body of an answer.
type answer struct{ body io.Reader }

// Read implements io.Reader; an answer that breaks off is the server's fault.
func (a answer) Read(p []byte) (int, error) {
	n, err := a.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &failure{code: exitUnreachable, err: fmt.Errorf("the backup broke off: %w", err)}
	}
	return n, err
}

// open makes a GET request whose answer is a file.
func (a *api) open(ctx context.Context, path string) (io.ReadCloser, error) {
	resp, err := a.send(ctx, &http.Client{}, http.MethodGet, path, nil) // a large one takes its time
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }() // everything was read
	_, err = a.read(path, resp)
	return nil, err
}

func backupRestore() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use: "restore FILE --data DIR", Short: "Make a data directory of a backup; it is verified first", Args: cobra.ExactArgs(1),
		Long: `Make a data directory of a backup; it is verified first.

The directory must be empty or not there. Receipts that were handed out before are
not good any more: their messages come again. What happened after the backup was
taken is not there: start the restored broker instead of the old one, never
beside it.`,
		RunE: action(func(c *cobra.Command, args []string) error {
			if data == "" {
				return usage("--data is missing: name the directory to make")
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }() // it was only read
			if err := os.MkdirAll(filepath.Dir(filepath.Clean(data)), 0o700); err != nil {
				return err
			}
			m, err := local.Restore(c.Context(), journal.OS(), data, f)
			if err != nil {
				return restoreFailure(args[0], data, err)
			}
			if err := forgetReceipts(c.Context(), data); err != nil {
				return fmt.Errorf("begin a new time in %s: %w", data, err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: restored as of %s\n", data, m.Taken.Format("2006-01-02T15:04:05.000Z07:00"))
			return err
		}),
	}
	c.Flags().StringVar(&data, "data", "", "directory to make")
	return c
}

// forgetReceipts opens the restored store once, which begins another epoch, and
// makes old receipts worthless.
func forgetReceipts(ctx context.Context, dir string) error {
	s, err := local.Open(local.Options{Dir: dir, Log: zerolog.Nop()}) //nolint:contextcheck // it ends with its Close
	if err != nil {
		return err
	}
	return errors.Join(broker.ForgetReceipts(ctx, s), s.Close(ctx))
}

// restoreFailure says for people why a backup was not restored.
func restoreFailure(file, dir string, err error) error {
	if _, ok := errors.AsType[*local.BackupError](err); ok {
		return &failure{code: exitFailed, err: fmt.Errorf("%s is %w", file, err), hint: "nothing was written; take another backup"}
	}
	return storeFailure(dir, err)
}
