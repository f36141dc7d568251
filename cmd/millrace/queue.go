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
		queueReceive(a), queueAck(a), queueNack(a), queuePeek(a), queuePurge(a), queueMove(a), queueSend(a),
		queueHold(a, "pause", "Hand out nothing until it is resumed; publishes still go in"),
		queueHold(a, "resume", "Hand out again"))
	return c
}

func queuePath(name string) string { return "/queues/" + url.PathEscape(name) }

func queueList(a *api) *cobra.Command {
	var limit, offset int
	c := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List the queues", Args: cobra.NoArgs,
		RunE: action(func(c *cobra.Command, _ []string) error {
			data, err := a.call(c.Context(), http.MethodGet, fmt.Sprintf("/queues?limit=%d&offset=%d", limit, offset), nil)
			if err != nil {
				return err
			}
			return a.show(c, data, "queues", "name", "topic_filter", "driver", "message_count", "in_flight_count", "size_bytes")
		}),
	}
	c.Flags().IntVar(&limit, "limit", 1000, "at most so many")
	c.Flags().IntVar(&offset, "offset", 0, "leave out so many first")
	return c
}

func queueInfo(a *api) *cobra.Command {
	return &cobra.Command{
		Use: "info QUEUE", Short: "Show settings and counts of a queue", Args: cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			data, err := a.call(c.Context(), http.MethodGet, queuePath(args[0]), nil)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
}

// queueSettings are the members of a queue's definition, typed as flags with
// dashes instead of underscores.
var queueSettings = []struct{ name, kind, help string }{
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

func registerSettings(c *cobra.Command) {
	for _, s := range queueSettings {
		flag := strings.ReplaceAll(s.name, "_", "-")
		c.Flags().String(flag, "", s.help)
		if s.kind != "string" {
			c.Flags().Lookup(flag).Usage += " (" + s.kind + ")"
		}
	}
	c.Flags().String("json", "", "more settings, as a JSON object")
}

// settingsOf makes the body of a definition from the flags that were given.
func settingsOf(c *cobra.Command) (map[string]any, error) {
	body := map[string]any{}
	if text, _ := c.Flags().GetString("json"); text != "" {
		if err := json.Unmarshal([]byte(text), &body); err != nil {
			return nil, usage("--json: %w", err)
		}
	}
	for _, s := range queueSettings {
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
	c := &cobra.Command{
		Use: "add QUEUE", Short: "Make a queue", Args: cobra.ExactArgs(1),
		Example: `  millrace queue add orders --topic-filter 'orders/#' --dead-letter-topic failed/orders`,
		RunE: action(func(c *cobra.Command, args []string) error {
			body, err := settingsOf(c)
			if err != nil {
				return err
			}
			body["name"] = args[0]
			data, err := a.call(c.Context(), http.MethodPost, "/queues", body)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
	registerSettings(c)
	return c
}

func queueEdit(a *api) *cobra.Command {
	c := &cobra.Command{
		Use: "edit QUEUE", Short: "Change settings of a queue", Args: cobra.ExactArgs(1),
		Example: `  millrace queue edit orders --max-retries 10`,
		RunE: action(func(c *cobra.Command, args []string) error {
			body, err := settingsOf(c)
			if err != nil {
				return err
			}
			if len(body) == 0 {
				return usage("nothing to change: give at least one setting")
			}
			data, err := a.call(c.Context(), http.MethodPatch, queuePath(args[0]), body)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
	registerSettings(c)
	return c
}

func queueRemove(a *api) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "rm QUEUE", Short: "Delete a queue with all its messages", Args: cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			if err := confirm(c, yes, "delete queue "+args[0]+" with all its messages"); err != nil {
				return err
			}
			_, err := a.call(c.Context(), http.MethodDelete, queuePath(args[0]), nil)
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
