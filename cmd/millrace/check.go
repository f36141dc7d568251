package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"millrace/cmd/millrace/config"
	"millrace/persistence/journal"
	"millrace/persistence/local"
)

func newCheck() *cobra.Command {
	var data, output string
	c := &cobra.Command{
		Use:   "check",
		Short: "Verify a data directory that no broker uses; changes nothing",
		Long: `Verify a data directory that no broker uses, and change nothing in it.

Everything is read once, and all that is damaged is named. What is sound opens.
Ends with 0 when it is sound, 1 when damage was found, 75 when it is in use.`,
		Example: `  millrace check --data /var/lib/millrace
  millrace check --data backup -o json`,
		Args: cobra.NoArgs,
		RunE: action(func(c *cobra.Command, _ []string) error {
			if output != "" && output != "text" && output != "json" {
				return usage("-o %s: the output is text or json", output)
			}
			dir, err := dataDir(data)
			if err != nil {
				return err
			}
			v, err := local.Verify(c.Context(), journal.OS(), dir)
			if err != nil {
				return storeFailure(dir, err)
			}
			if output == "json" {
				err = writeJSON(c.OutOrStdout(), v)
			} else {
				err = writeVerdict(c.OutOrStdout(), v)
			}
			if err == nil && !v.Sound {
				err = &failure{
					code: exitFailed, err: fmt.Errorf("%s is damaged in %s", dir, count(len(v.Damage), "place")),
					hint: "restore a backup, or start with --accept-loss to give up what is named",
				}
			}
			return err
		}),
	}
	c.Flags().StringVar(&data, "data", "", "data directory; default: that of serve")
	c.Flags().StringVarP(&output, "output", "o", "", "text or json")
	return c
}

// dataDir is the directory that was named, or that of serve.
func dataDir(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	cfg, err := config.Load(config.System())
	if err != nil {
		return "", &failure{code: exitConfig, err: err, hint: "or name the directory with --data"}
	}
	return cfg.Data, nil
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// writeVerdict says for people what was found.
func writeVerdict(w io.Writer, v *local.Verdict) error {
	var errs []error
	say := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		errs = append(errs, err)
	}
	say("%s: %s of journal, %s in %s and %s, %s in %s", v.Dir, count(v.Segments, "segment"),
		count(v.Messages, "message"), count(v.Queues, "queue"), count(v.Sessions, "session"), count(v.StreamMessages, "message"), count(v.Streams, "stream"))
	if v.Watermark == "00000000:0" && v.Segments > 0 {
		say("warning: there is no watermark, so a lost end of the journal would not show")
	}
	for _, d := range v.Damage {
		say("damaged: %s at %d: %s", d.File, d.Offset, d.Reason)
	}
	for _, m := range v.Missing {
		switch m.Kind {
		case "stream":
			say("missing: stream %q, partition %d: %s from offset %d", m.Name, m.Partition, count(m.Messages, "message"), m.First)
		default:
			say("missing: %s %q: %s, some of which may have been acknowledged", m.Kind, m.Name, count(m.Messages, "message"))
		}
	}
	if v.Sound {
		say("sound")
	}
	return errors.Join(errs...)
}

// count is a number with its noun.
func count[T int | int64 | uint64](n T, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
