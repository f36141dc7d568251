package main

import (
	"strings"

	"github.com/spf13/cobra"

	"millrace/cmd/millrace/config"
)

// serveFlags are the flags of serve: one for each setting that people type, and
// those that say where the others come from.
type serveFlags struct {
	file   string
	here   bool
	sets   []string
	values map[string]*string // by key
}

func (f *serveFlags) register(c *cobra.Command) {
	f.values = map[string]*string{}
	p := c.Flags()
	p.SortFlags = false
	p.StringVar(&f.file, "config", "", "configuration file, YAML (MILLRACE_CONFIG)")
	p.BoolVar(&f.here, "here", false, "read ./millrace.yaml")
	for _, s := range config.Settings() {
		if s.Flag == "" {
			continue
		}
		doc := s.Doc
		if before, _, ok := strings.Cut(doc, "; "); ok {
			doc = before
		}
		f.values[s.Key] = p.String(s.Flag, "", doc)
		if s.Bool() {
			p.Lookup(s.Flag).NoOptDefVal = string(config.On)
		}
	}
	p.StringArrayVar(&f.sets, "set", nil, "any setting as key=value; may be repeated")
}

// source returns where all settings come from.
func (f *serveFlags) source(c *cobra.Command) config.Source {
	s := config.System()
	if f.file != "" {
		s.File = f.file
	}
	s.Here, s.Sets, s.Flags = f.here, f.sets, map[string]string{}
	for _, setting := range config.Settings() {
		if v, ok := f.values[setting.Key]; ok && c.Flags().Changed(setting.Flag) {
			s.Flags[setting.Key] = *v
		}
	}
	return s
}
