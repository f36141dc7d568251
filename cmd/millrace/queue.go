package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func newQueue() *cobra.Command {
	a := &api{}
	c := &cobra.Command{
		Use:   "queue",
		Short: "Look after queues, and work on their messages, over HTTP",
		Example: `  millrace queue ls
  millrace queue receive demo --wait 20s`,
	}
	a.register(c)
	c.AddCommand(queueList(a), queueInfo(a), queueAdd(a), queueEdit(a), queueRemove(a),
		queuePurge(a), queueMove(a), queueSend(a),
		queueHold(a, "pause", "Hand out nothing until it is resumed; publishes still go in"),
		queueHold(a, "resume", "Hand out again"))
	c.AddCommand(leaseCommands(a, &fromQueue)...)
	return c
}

func queuePath(name string) string { return "/queues/" + url.PathEscape(name) }

func queueList(a *api) *cobra.Command {
	return listCommand(a, "", "the queues", "queues", func([]string) string { return "/queues" },
		"name", "topic_filter", "driver", "message_count", "in_flight_count", "size_bytes")
}

// listCommand lists a collection by some of its members.
func listCommand(a *api, args, what, member string, path func(args []string) string, columns ...string) *cobra.Command {
	var limit, offset int
	c := &cobra.Command{
		Use: strings.TrimSpace("ls " + args), Aliases: []string{"list"}, Short: "List " + what, Args: cobra.ExactArgs(len(strings.Fields(args))),
		RunE: action(func(c *cobra.Command, args []string) error {
			data, err := a.call(c.Context(), http.MethodGet, fmt.Sprintf("%s?limit=%d&offset=%d", path(args), limit, offset), nil)
			if err != nil {
				return err
			}
			return a.show(c, data, member, columns...)
		}),
	}
	c.Flags().IntVar(&limit, "limit", 1000, "at most so many")
	c.Flags().IntVar(&offset, "offset", 0, "leave out so many first")
	return c
}

func queueInfo(a *api) *cobra.Command {
	return infoCommand(a, "QUEUE", "settings and counts of a queue", func(args []string) string { return queuePath(args[0]) })
}

// infoCommand shows one thing.
func infoCommand(a *api, args, what string, path func(args []string) string) *cobra.Command {
	return &cobra.Command{
		Use: "info " + args, Short: "Show " + what, Args: cobra.ExactArgs(len(strings.Fields(args))),
		RunE: action(func(c *cobra.Command, args []string) error {
			data, err := a.call(c.Context(), http.MethodGet, path(args), nil)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
}

// setting is a member of a definition, typed as a flag with dashes instead of
// underscores.
type setting struct{ name, kind, help string }

var queueSettings = []setting{
	{"topic_filter", "string", "topics that feed it, for example orders/#"},
	{"driver", "string", "disk or memory"},
	{"max_size_mb", "int", "most megabytes"},
	{"max_messages", "int", "most messages"},
	{"overflow", "string", "what a full queue does: drop-oldest or reject"},
	{"message_ttl_seconds", "int", "life of a message; 0 has no end"},
	{"max_retries", "int or unlimited", "deliveries after the first"},
	{"dead_letter_topic", "string", "where a message goes after the last"},
	{"visibility_timeout_seconds", "int", "lease of a message"},
	{"delay_seconds", "int", "wait before a message can be received"},
	{"max_in_flight", "int", "most messages leased at once"},
	{"on_exhausted", "string", "after the last delivery: dead-letter or drop"},
	{"on_expired", "string", "after its life: drop or dead-letter"},
	{"dead_retention_seconds", "int", "how long dead messages are kept; 0 has no end"},
	{"fifo_groups", "bool", "one message of a key in flight"},
	{"mqtt_lease_seconds", "int", "lease over MQTT; 0 is as long as the connection"},
}

func registerSettings(c *cobra.Command, settings []setting) {
	for _, s := range settings {
		flag := strings.ReplaceAll(s.name, "_", "-")
		c.Flags().String(flag, "", s.help)
		if s.kind != "string" {
			c.Flags().Lookup(flag).Usage += " (" + s.kind + ")"
		}
	}
	c.Flags().String("json", "", "more settings, as a JSON object")
}

// settingsOf makes the body of a definition from the flags that were given.
func settingsOf(c *cobra.Command, settings []setting) (map[string]any, error) {
	body := map[string]any{}
	if text, _ := c.Flags().GetString("json"); text != "" {
		if err := json.Unmarshal([]byte(text), &body); err != nil {
			return nil, usage("--json: %w", err)
		}
	}
	for _, s := range settings {
		flag := strings.ReplaceAll(s.name, "_", "-")
		if !c.Flags().Changed(flag) {
			continue
		}
		text, _ := c.Flags().GetString(flag)
		switch n, err := strconv.ParseInt(text, 10, 64); {
		case s.kind == "string":
			body[s.name] = text
		case s.kind == "int or unlimited" && text == "unlimited":
			body[s.name] = nil
		case s.kind == "bool":
			if text != "true" && text != "false" {
				return nil, usage("--%s %q is neither true nor false", flag, text)
			}
			body[s.name] = text == "true"
		case err != nil:
			return nil, usage("--%s %q is not a whole number", flag, text)
		default:
			body[s.name] = n
		}
	}
	return body, nil
}

func queueAdd(a *api) *cobra.Command {
	return addCommand(a, "QUEUE", "a queue", queueSettings, `  millrace queue add orders --topic-filter 'orders/#' --dead-letter-topic failed/orders`,
		func(args []string) (string, string) { return "/queues", args[0] })
}

// addCommand makes something whose last argument is its name; path tells where
// it is made, and what it is called.
func addCommand(a *api, args, what string, settings []setting, example string, path func(args []string) (where, name string)) *cobra.Command {
	c := &cobra.Command{
		Use: "add " + args, Short: "Make " + what, Args: cobra.ExactArgs(len(strings.Fields(args))), Example: example,
		RunE: action(func(c *cobra.Command, args []string) error {
			body, err := settingsOf(c, settings)
			if err != nil {
				return err
			}
			where, name := path(args)
			body["name"] = name
			data, err := a.call(c.Context(), http.MethodPost, where, body)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
	registerSettings(c, settings)
	return c
}

func queueEdit(a *api) *cobra.Command {
	return editCommand(a, "QUEUE", "a queue", queueSettings, `  millrace queue edit orders --max-retries 10`,
		func(args []string) string { return queuePath(args[0]) })
}

// editCommand changes the settings of something.
func editCommand(a *api, args, what string, settings []setting, example string, path func(args []string) string) *cobra.Command {
	c := &cobra.Command{
		Use: "edit " + args, Short: "Change settings of " + what, Args: cobra.ExactArgs(len(strings.Fields(args))), Example: example,
		RunE: action(func(c *cobra.Command, args []string) error {
			body, err := settingsOf(c, settings)
			if err != nil {
				return err
			}
			if len(body) == 0 {
				return usage("nothing to change: give at least one setting")
			}
			data, err := a.call(c.Context(), http.MethodPatch, path(args), body)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
	registerSettings(c, settings)
	return c
}

func queueRemove(a *api) *cobra.Command {
	return removeCommand(a, "QUEUE", "a queue with all its messages", func(args []string) (path, what string) {
		return queuePath(args[0]), "delete queue " + args[0] + " with all its messages"
	})
}

// removeCommand deletes one thing, when it is sure.
func removeCommand(a *api, args, what string, path func(args []string) (path, what string)) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "rm " + args, Short: "Delete " + what, Args: cobra.ExactArgs(len(strings.Fields(args))),
		RunE: action(func(c *cobra.Command, args []string) error {
			at, what := path(args)
			if err := confirm(c, yes, what); err != nil {
				return err
			}
			_, err := a.call(c.Context(), http.MethodDelete, at, nil)
			return err
		}),
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func queuePurge(a *api) *cobra.Command {
	var yes, all bool
	c := &cobra.Command{
		Use: "purge QUEUE", Short: "Remove the messages of a queue that wait", Args: cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			if err := confirm(c, yes, "remove the messages of queue "+args[0]); err != nil {
				return err
			}
			path := queuePath(args[0]) + "/purge"
			if all {
				path += "?all=true"
			}
			data, err := a.call(c.Context(), http.MethodPost, path, nil)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&all, "all", false, "also those that consumers hold, and dead ones")
	return c
}

// confirm asks on a terminal, and elsewhere wants --yes.
func confirm(c *cobra.Command, yes bool, what string) error {
	if yes {
		return nil
	}
	if !terminal(c.OutOrStdout()) {
		return &failure{code: exitUsage, err: fmt.Errorf("will not %s without being sure", what), hint: "add --yes"}
	}
	_, _ = fmt.Fprintf(c.ErrOrStderr(), "%s? [y/N] ", what) // a prompt nobody sees is answered with no
	var answer string
	if _, err := fmt.Fscanln(c.InOrStdin(), &answer); err != nil || !strings.HasPrefix(strings.ToLower(answer), "y") {
		return &failure{code: exitFailed, err: fmt.Errorf("did not %s", what)}
	}
	return nil
}
