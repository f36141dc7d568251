package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"millrace/broker/auth"
	"millrace/cmd/millrace/config"
)

// auditFile is the audit log in the data directory.
const auditFile = "audit.log"

// newAudit is about the log of who changed what.
func newAudit() *cobra.Command {
	c := &cobra.Command{
		Use:     "audit",
		Short:   "Prove that the audit log is what was written",
		Example: `  millrace audit verify --data /var/lib/millrace`,
	}
	c.AddCommand(auditVerify())
	return c
}

func auditVerify() *cobra.Command {
	var data, expect string
	c := &cobra.Command{
		Use: "verify", Args: cobra.NoArgs,
		Short: "Check the chain of hashes through audit.log and its full files; the broker may run",
		Example: `  millrace audit verify
  millrace audit verify --data /var/lib/millrace --expect 4be1...`,
		RunE: action(func(c *cobra.Command, _ []string) error {
			if data == "" {
				cfg, err := config.Load(config.System())
				if err != nil {
					return &failure{code: exitConfig, err: err}
				}
				data = cfg.Data
			}
			return verifyAudit(c, filepath.Join(data, auditFile), expect)
		}),
	}
	c.Flags().StringVar(&data, "data", "", "data directory of the broker; default as for serve")
	c.Flags().StringVar(&expect, "expect", "", "hash that must be among its lines, as an earlier verify or the log of the broker told it")
	return c
}

func verifyAudit(c *cobra.Command, path, expect string) error {
	r, err := auth.VerifyAudit(path, expect)
	if errors.Is(err, fs.ErrNotExist) {
		return &failure{code: exitNotFound, err: err, hint: "name the data directory with --data"}
	}
	if err != nil {
		return err
	}
	if expect != "" && !r.Expected {
		return &failure{code: exitFailed, err: fmt.Errorf("%s has no line with the hash %s: lines were cut off, or the log was written anew", path, expect)}
	}
	text := fmt.Sprintf("%d lines in %d files, each as it was written", r.Lines, r.Files)
	if !r.Whole {
		text += "; the oldest files are gone"
	}
	if r.Older > 0 {
		text += fmt.Sprintf("; %d from before lines were chained", r.Older)
	}
	if r.Torn > 0 {
		text += fmt.Sprintf("; %d that a crash left incomplete", r.Torn)
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s\nhead %s\n", text, r.Head)
	return err
}
