package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"text/tabwriter"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
)

// terminal reports whether w shows text to a person.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// show writes data: as JSON, or as a table of the columns, one row for each
// member of the list in data (list "" = data itself is the only row, shown as
// name and value).
func (a *api) show(c *cobra.Command, data json.RawMessage, list string, columns ...string) error {
	w := c.OutOrStdout()
	if a.output == "json" || a.output == "" && !terminal(w) {
		var b bytes.Buffer
		if err := json.Indent(&b, data, "", "  "); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		b.WriteByte('\n')
		_, err := b.WriteTo(w)
		return err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	if list == "" {
		names := make([]string, 0, len(fields))
		for name := range fields {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			_, _ = fmt.Fprintf(t, "%s\t%s\n", name, cell(fields[name])) // Flush tells the error
		}
		return t.Flush()
	}
	var rows []map[string]json.RawMessage
	if err := json.Unmarshal(fields[list], &rows); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	_, _ = fmt.Fprintln(t, strings.ToUpper(strings.Join(columns, "\t")))
	for _, row := range rows {
		cells := make([]string, len(columns))
		for i, name := range columns {
			cells[i] = cell(row[name])
		}
		_, _ = fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}

// cell is a JSON value in a table: strings without quotes, control characters
// made visible, long text cut.
func cell(v json.RawMessage) string {
	text := string(v)
	var s string
	if json.Unmarshal(v, &s) == nil {
		text = s
	}
	if text == "null" || text == "" {
		return "-"
	}
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '·'
		}
		return r
	}, text)
	if r := []rune(text); len(r) > 160 {
		text = string(r[:157]) + "..."
	}
	return text
}
