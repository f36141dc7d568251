// Command millrace is a message broker, MQTT for devices and HTTP for services,
// and the client commands of its public APIs.
package main

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program, and returns its exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	root := newRoot() //nolint:contextcheck // commands have the context of ExecuteContext
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	return report(errs, root.ExecuteContext(ctx))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "millrace",
		Short: "A message broker: MQTT for devices, HTTP queues and streams for services",
		Example: `  millrace serve --dev
  millrace sub -t 'demo/#' -v`,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		Version:                    build().String(),
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &failure{code: exitUsage, err: err, hint: "see " + c.CommandPath() + " --help"}
	})
	root.AddCommand(newServe(), newVersion(), newPub(), newSub(), newQueue(), newStream(), newDLQ(), newKey(), newUser(), newACL(), newAudit(), newCheck(), newBackup(), newBench())
	return root
}

// action makes a RunE whose plain errors are failures of the work; what cobra
// itself refuses stays a mistake in usage.
func action(f func(c *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		err := f(c, args)
		if _, ok := asFailure(err); err == nil || ok {
			return err
		}
		return &failure{code: exitFailed, err: err}
	}
}

// oneLine keeps an error of a client command on one line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
