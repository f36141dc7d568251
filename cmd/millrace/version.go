package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker in releases.
var version = ""

// buildInfo says which program this is.
type buildInfo struct{ Version, Commit, Date string }

// build reads what the Go tool recorded.
func build() buildInfo {
	b := buildInfo{Version: version}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value[:min(7, len(s.Value))]
		case "vcs.time":
			b.Date = s.Value
		}
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
	}
	return b
}

// Short is what the start prints.
func (b buildInfo) Short() string {
	if b.Commit == "" {
		return "millrace " + b.Version
	}
	return fmt.Sprintf("millrace %s (commit %s)", b.Version, b.Commit)
}

// String is the whole of it.
func (b buildInfo) String() string {
	s := b.Short()
	if b.Date != "" {
		s += " of " + b.Date
	}
	return fmt.Sprintf("%s, %s, %s/%s", s, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit, Go version and platform",
		Args:  cobra.NoArgs,
		RunE: action(func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), build())
			return err
		}),
	}
}
