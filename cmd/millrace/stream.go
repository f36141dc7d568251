package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newStream() *cobra.Command {
	a := &api{}
	c := &cobra.Command{
		Use:   "stream",
		Short: "Look after streams, their cursors and subscriptions, and read them, over HTTP",
		Example: `  millrace stream add events --topic-filter 'events/#' --partition-count 4
  millrace stream read events --offset earliest
  millrace stream subscription receive events billing --wait 20s`,
	}
	a.register(c)
	path := func(args []string) string { return streamPath(args[0]) }
	c.AddCommand(
		listCommand(a, "", "the streams", "streams", func([]string) string { return "/streams" },
			"name", "topic_filter", "partition_count", "message_count", "size_bytes"),
		infoCommand(a, "STREAM", "settings of a stream, and what it holds", path),
		addCommand(a, "STREAM", "a stream", streamSettings, `  millrace stream add events --topic-filter 'events/#'`,
			func(args []string) (string, string) { return "/streams", args[0] }),
		editCommand(a, "STREAM", "a stream", streamSettings, `  millrace stream edit events --retention-days 30`, path),
		removeCommand(a, "STREAM", "a stream with all its messages, cursors and subscriptions", func(args []string) (string, string) {
			return path(args), "delete stream " + args[0] + " with all its messages, cursors and subscriptions"
		}),
		streamRead(a), newCursor(a), newSubscription(a))
	return c
}

func streamPath(name string) string { return "/streams/" + url.PathEscape(name) }

var streamSettings = []setting{
	{"topic_filter", "string", "topics that feed it, for example events/#"},
	{"retention_days", "int", "how long messages are kept"},
	{"max_size_gb", "int", "most gigabytes of all partitions together"},
	{"partition_count", "int", "partitions; they only grow"},
}

func streamRead(a *api) *cobra.Command {
	var partition, limit int
	var offset, since string
	var wait time.Duration
	c := &cobra.Command{
		Use: "read STREAM", Short: "Read messages of one partition; nothing is taken away", Args: cobra.ExactArgs(1),
		Example: `  millrace stream read events --offset latest --wait 20s
  millrace stream read events --timestamp 2026-01-31T12:00:00Z -o json`,
		RunE: action(func(c *cobra.Command, args []string) error {
			q := url.Values{"limit": {strconv.Itoa(limit)}, "timeout_seconds": {strconv.FormatInt(wholeSeconds(wait), 10)}}
			if since != "" {
				q.Set("timestamp", since)
			} else {
				q.Set("offset", offset)
			}
			data, err := a.call(c.Context(), http.MethodGet, fmt.Sprintf("%s/partitions/%d/messages?%s", streamPath(args[0]), partition, q.Encode()), nil)
			if err != nil {
				return err
			}
			return a.show(c, data, "messages", "partition", "offset", "topic", "key", "payload")
		}),
	}
	c.Flags().IntVar(&partition, "partition", 0, "which one")
	c.Flags().StringVar(&offset, "offset", "earliest", "a number, earliest or latest")
	c.Flags().StringVar(&since, "timestamp", "", "the first message not older than this, RFC 3339 or Unix milliseconds")
	c.Flags().IntVar(&limit, "limit", 100, "at most so many")
	c.Flags().DurationVar(&wait, "wait", 0, "how long to wait for the first, for example 20s")
	c.MarkFlagsMutuallyExclusive("offset", "timestamp")
	return c
}

func newCursor(a *api) *cobra.Command {
	c := &cobra.Command{Use: "cursor", Short: "Look after the cursors of a stream"}
	path := func(args []string) string { return streamPath(args[0]) + "/cursors/" + url.PathEscape(args[1]) }
	c.AddCommand(
		listCommand(a, "STREAM", "the cursors of a stream", "cursors", func(args []string) string { return streamPath(args[0]) + "/cursors" },
			"name", "offsets", "updated_at"),
		infoCommand(a, "STREAM CURSOR", "where a cursor stands", path),
		cursorSet(a, path),
		removeCommand(a, "STREAM CURSOR", "a cursor", func(args []string) (string, string) { return path(args), "delete cursor " + args[1] }))
	return c
}

func cursorSet(a *api, path func([]string) string) *cobra.Command {
	var partition, offset int
	var force bool
	c := &cobra.Command{
		Use: "set STREAM CURSOR", Short: "Move a cursor, which is made if needed", Args: cobra.ExactArgs(2),
		RunE: action(func(c *cobra.Command, args []string) error {
			body := map[string]any{"offsets": []any{map[string]int{"partition": partition, "offset": offset}}, "force": force}
			data, err := a.call(c.Context(), http.MethodPost, path(args), body)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
	c.Flags().IntVar(&partition, "partition", 0, "which one")
	c.Flags().IntVar(&offset, "offset", 0, "of the next message that its reader wants")
	c.Flags().BoolVar(&force, "force", false, "move it back too")
	return c
}

// subscriptionSettings are those of a queue that concern delivery.
var subscriptionSettings = []setting{
	{"visibility_timeout_seconds", "int", "lease of a message"},
	{"max_retries", "int or unlimited", "deliveries after the first"},
	{"dead_letter_topic", "string", "where a message goes after the last"},
	{"max_in_flight", "int", "most messages leased at once"},
	{"on_exhausted", "string", "after the last delivery: dead-letter or drop"},
	{"dead_retention_seconds", "int", "how long dead messages are kept; 0 has no end"},
	{"mqtt_lease_seconds", "int", "lease over MQTT; 0 is as long as the connection"},
	{"paused", "bool", "hand out nothing"},
}

// placeSettings say where a new subscription begins.
var placeSettings = []setting{
	{"position", "string", "begin at the earliest or behind the latest message"},
	{"timestamp", "string", "begin at the first message not older than this"},
}

func subscriptionPath(args []string) string {
	return streamPath(args[0]) + "/subscriptions/" + url.PathEscape(args[1])
}

func newSubscription(a *api) *cobra.Command {
	c := &cobra.Command{Use: "subscription", Aliases: []string{"sub"}, Short: "Look after the subscriptions on a stream, and work on their messages"}
	const args = "STREAM SUBSCRIPTION"
	all := func(args []string) string { return streamPath(args[0]) + "/subscriptions" }
	c.AddCommand(
		listCommand(a, "STREAM", "the subscriptions on a stream", "subscriptions", all, "name", "message_count", "in_flight_count", "dead_count"),
		infoCommand(a, args, "settings of a subscription, where it stands, and its counts", subscriptionPath),
		addCommand(a, args, "a subscription", append(placeSettings, subscriptionSettings...),
			`  millrace stream subscription add events billing --position earliest`,
			func(args []string) (string, string) { return all(args), args[1] }),
		editCommand(a, args, "a subscription", subscriptionSettings, `  millrace stream subscription edit events billing --paused true`, subscriptionPath),
		removeCommand(a, args, "a subscription; the messages stay in the stream", func(args []string) (string, string) {
			return subscriptionPath(args), "delete subscription " + args[1] + " of stream " + args[0]
		}),
		subscriptionSeek(a), subscriptionAckUpTo(a))
	c.AddCommand(leaseCommands(a, &leaser{args: args, n: 2, path: subscriptionPath, example: "stream subscription receive events billing"})...)
	return c
}

func subscriptionSeek(a *api) *cobra.Command {
	return &cobra.Command{
		Use: "seek STREAM SUBSCRIPTION earliest|latest|TIME|OFFSETS", Short: "Move a subscription, back or forth", Args: cobra.ExactArgs(3),
		Example: `  millrace stream subscription seek events billing earliest
  millrace stream subscription seek events billing 2026-01-31T12:00:00Z
  millrace stream subscription seek events billing 0:1200,1:998`,
		RunE: action(func(c *cobra.Command, args []string) error {
			body, err := placeOf(args[2])
			if err != nil {
				return err
			}
			data, err := a.call(c.Context(), http.MethodPost, subscriptionPath(args)+"/seek", body)
			if err != nil {
				return err
			}
			return a.show(c, data, "offsets", "partition", "offset")
		}),
	}
}

// placeOf reads earliest, latest, a time, or a list of PARTITION:OFFSET.
func placeOf(text string) (map[string]any, error) {
	if text == "earliest" || text == "latest" {
		return map[string]any{"position": text}, nil
	}
	if _, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return map[string]any{"timestamp": text}, nil
	}
	var offsets []map[string]json.Number
	for one := range strings.SplitSeq(text, ",") {
		partition, offset, ok := strings.Cut(one, ":")
		for _, n := range []string{partition, offset} {
			if _, err := strconv.ParseUint(n, 10, 63); err != nil || !ok {
				return nil, usage("%q is neither earliest, latest, a time as RFC 3339, nor a list of PARTITION:OFFSET", text)
			}
		}
		offsets = append(offsets, map[string]json.Number{"partition": json.Number(partition), "offset": json.Number(offset)})
	}
	return map[string]any{"offsets": offsets}, nil
}

func subscriptionAckUpTo(a *api) *cobra.Command {
	return &cobra.Command{
		Use: "ack-up-to STREAM SUBSCRIPTION PARTITION OFFSET", Short: "Acknowledge a message and all before it in its partition", Args: cobra.ExactArgs(4),
		RunE: action(func(c *cobra.Command, args []string) error {
			body := map[string]json.Number{"partition": json.Number(args[2]), "offset": json.Number(args[3])}
			for _, n := range args[2:] {
				if _, err := strconv.ParseUint(n, 10, 63); err != nil {
					return usage("%q is not a whole number", n)
				}
			}
			data, err := a.call(c.Context(), http.MethodPost, subscriptionPath(args)+"/ack-up-to", body)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
}
