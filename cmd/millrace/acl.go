package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"millrace/broker/auth"
	"millrace/cmd/millrace/config"
)

// newACL is about the access rules.
func newACL() *cobra.Command {
	a := &api{}
	c := &cobra.Command{
		Use:   "acl",
		Short: "See and set the access rules, and ask why something is refused",
		Example: `  millrace acl test user:ann publish plant/3/stop
  millrace acl ls`,
	}
	a.register(c)
	c.AddCommand(aclTest(a), aclList(a), aclSet(a))
	return c
}

func aclTest(a *api) *cobra.Command {
	var client string
	c := &cobra.Command{
		Use: "test WHO ACTION THING", Short: "Say whether somebody may do something, and which rule decides", Args: cobra.ExactArgs(3),
		Long: `Say whether somebody may do something, and which rule decides. Refused ends with 4.

WHO is user:NAME, key:ID, client:ID or anonymous; ACTION is publish, subscribe,
consume, view or manage; THING is a topic, a filter, queue:NAME or stream:NAME.`,
		Example: `  millrace acl test user:ann publish plant/3/stop
  millrace acl test key:press-7 consume queue:jobs-a --client-id panel`,
		RunE: action(func(c *cobra.Command, args []string) error {
			body := map[string]any{"who": args[0], "action": args[1]}
			if kind, name, _ := strings.Cut(args[2], ":"); kind == "queue" || kind == "stream" {
				body[kind] = name
			} else {
				body["topic"] = args[2]
			}
			if client != "" {
				body["client_id"] = client
			}
			data, err := a.call(c.Context(), http.MethodPost, "/access/explain", body)
			if err != nil {
				return err
			}
			if err := a.show(c, data, ""); err != nil {
				return err
			}
			var decision struct {
				Allowed bool
				Rule    string
			}
			if err := json.Unmarshal(data, &decision); err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			if !decision.Allowed {
				return &failure{code: exitNotAllowed, err: fmt.Errorf("%s may not %s %s: %s", args[0], args[1], args[2], decision.Rule)}
			}
			return nil
		}),
	}
	c.Flags().StringVar(&client, "client-id", "", "MQTT client id it would come with")
	return c
}

func aclList(a *api) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the access rules", Args: cobra.NoArgs,
		RunE: action(func(c *cobra.Command, _ []string) error {
			data, err := a.call(c.Context(), http.MethodGet, "/rules", nil)
			if err != nil {
				return err
			}
			return a.show(c, data, "rules", "effect", "who", "do", "filter")
		}),
	}
}

func aclSet(a *api) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "set FILE", Short: "Put the rules of a file, YAML or JSON, in the place of all rules", Args: cobra.ExactArgs(1),
		Example: `  millrace acl ls -o json >rules.json
  millrace acl set rules.json --yes`,
		RunE: action(func(c *cobra.Command, args []string) error {
			text, err := readAll(c, args[0])
			if err != nil {
				return usage("cannot read the rules: %w", err)
			}
			var file struct {
				Rules []auth.Rule `yaml:"rules" json:"rules"`
				Total int         `yaml:"total" json:"-"` // acl ls writes it
			}
			if err := config.Strict(args[0], text, &file, false); err != nil {
				return usage("%w", err)
			}
			if file.Rules == nil {
				return usage("%s has no list rules", args[0])
			}
			if err := confirm(c, yes, fmt.Sprintf("put %d rules in the place of all rules", len(file.Rules))); err != nil {
				return err
			}
			_, err = a.call(c.Context(), http.MethodPut, "/rules", file)
			return err
		}),
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// readAll reads a file, - is standard input.
func readAll(c *cobra.Command, path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(c.InOrStdin())
	}
	return os.ReadFile(path)
}
