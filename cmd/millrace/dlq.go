package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

// newDLQ is about what failed for good: the parked messages of a queue.
func newDLQ() *cobra.Command {
	a := &api{}
	c := &cobra.Command{
		Use:   "dlq",
		Short: "Look at messages that failed for good, and give them back",
		Example: `  millrace dlq ls work
  millrace dlq redrive work --dry-run
  millrace dlq redrive work --rate 50`,
	}
	a.register(c)
	c.AddCommand(dlqList(a), moveCommand(a, "redrive QUEUE",
		"Give dead messages back to their queue, attempts forgotten, or publish them to a topic", "/dead/redrive"))
	return c
}

func dlqList(a *api) *cobra.Command {
	var limit, offset int
	c := &cobra.Command{
		Use: "ls QUEUE", Aliases: []string{"list", "show"}, Short: "Show the dead messages of a queue", Args: cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			path := fmt.Sprintf("%s/dead?limit=%d&offset=%d", queuePath(args[0]), limit, offset)
			data, err := a.call(c.Context(), http.MethodGet, path, nil)
			if err != nil {
				return err
			}
			return a.show(c, data, "messages", "message_id", "topic", "reason", "attempts", "dead_since", "payload")
		}),
	}
	c.Flags().IntVar(&limit, "limit", 50, "at most so many, up to 100")
	c.Flags().IntVar(&offset, "offset", 0, "leave out so many first")
	return c
}

// queueMove moves what waits in a queue.
func queueMove(a *api) *cobra.Command {
	return moveCommand(a, "move QUEUE", "Publish waiting messages to a topic, or give dead letters back to the queues they came from", "/move")
}

// moveCommand is a call that takes messages out of a queue and puts them elsewhere.
func moveCommand(a *api, use, short, path string) *cobra.Command {
	var to, match string
	var limit, rate int
	var dry bool
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			body := map[string]any{"dry_run": dry}
			for name, set := range map[string]any{"to": to, "topic_filter": match, "limit": limit, "rate": rate} {
				if set != "" && set != 0 {
					body[name] = set
				}
			}
			data, err := a.call(c.Context(), http.MethodPost, queuePath(args[0])+path, body)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
	c.Flags().StringVar(&to, "to", "", "topic to publish to; without it, back to where they came from")
	c.Flags().StringVar(&match, "match", "", "filter of the topic they were first published to")
	c.Flags().IntVar(&limit, "limit", 0, "at most so many")
	c.Flags().IntVar(&rate, "rate", 0, "so many a second")
	c.Flags().BoolVar(&dry, "dry-run", false, "count, and move nothing")
	return c
}

// queueHold is pause or resume.
func queueHold(a *api, verb, short string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " QUEUE", Short: short, Args: cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			_, err := a.call(c.Context(), http.MethodPost, queuePath(args[0])+"/"+verb, nil)
			return err
		}),
	}
}
