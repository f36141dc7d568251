package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// received are the messages of an answer.
type received struct {
	Messages []struct {
		ID      string `json:"message_id"`
		Receipt string `json:"receipt_handle"`
	} `json:"messages"`
}

var messageColumns = []string{"message_id", "receive_count", "content_type", "payload", "receipt_handle"}

// leaser is what messages are leased from: a queue, or a subscription.
type leaser struct {
	args    string // on the command line
	n       int    // how many these are
	path    func(args []string) string
	example string
}

var fromQueue = leaser{args: "QUEUE", n: 1, path: func(args []string) string { return queuePath(args[0]) }, example: "queue receive demo"}

func (l *leaser) message(args []string, id string) string {
	return l.path(args) + "/messages/" + url.PathEscape(id)
}

// leaseCommands are those that work on messages.
func leaseCommands(a *api, l *leaser) []*cobra.Command {
	return []*cobra.Command{leaseReceive(a, l), leaseAck(a, l), leaseNack(a, l), leasePeek(a, l)}
}

func leaseReceive(a *api, l *leaser) *cobra.Command {
	var most int
	var wait, lease time.Duration
	var ack bool
	c := &cobra.Command{
		Use: "receive " + l.args, Short: "Take messages; they come back unless they are acknowledged", Args: cobra.ExactArgs(l.n),
		Example: "  millrace " + l.example + " --wait 20s\n  millrace " + l.example + " --max 10 --ack -o json",
		RunE: action(func(c *cobra.Command, args []string) error {
			body := map[string]any{"max_messages": most}
			if wait > 0 {
				body["timeout_seconds"] = wholeSeconds(wait)
			}
			if c.Flags().Changed("lease") {
				body["visibility_timeout_seconds"] = wholeSeconds(lease)
			}
			data, err := a.call(c.Context(), http.MethodPost, l.path(args)+"/messages/consume", body)
			if err != nil {
				return err
			}
			var got received
			if err := json.Unmarshal(data, &got); err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			if len(got.Messages) == 0 {
				return &failure{code: exitNothing, err: errors.New("no message in " + strings.Join(args, " "))}
			}
			if err := a.show(c, data, "messages", messageColumns...); err != nil || !ack {
				return err
			}
			for _, m := range got.Messages {
				if _, err := a.call(c.Context(), http.MethodPost, l.message(args, m.ID)+"/ack", map[string]any{"receipt_handle": m.Receipt}); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	c.Flags().IntVar(&most, "max", 1, "at most so many")
	c.Flags().DurationVar(&wait, "wait", 0, "how long to wait for the first, for example 20s")
	c.Flags().DurationVar(&lease, "lease", 0, "how long they are yours; default: as is set there")
	c.Flags().BoolVar(&ack, "ack", false, "acknowledge them once they are printed")
	return c
}

func leaseAck(a *api, l *leaser) *cobra.Command {
	return &cobra.Command{
		Use: "ack " + l.args + " MESSAGE RECEIPT", Short: "Acknowledge a message: it is done with", Args: cobra.ExactArgs(l.n + 2),
		RunE: action(func(c *cobra.Command, args []string) error {
			data, err := a.call(c.Context(), http.MethodPost, l.message(args, args[l.n])+"/ack", map[string]any{"receipt_handle": args[l.n+1]})
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
}

func leaseNack(a *api, l *leaser) *cobra.Command {
	var delay time.Duration
	c := &cobra.Command{
		Use: "nack " + l.args + " MESSAGE RECEIPT", Short: "Give a message back, for another attempt", Args: cobra.ExactArgs(l.n + 2),
		RunE: action(func(c *cobra.Command, args []string) error {
			body := map[string]any{"receipt_handle": args[l.n+1]}
			if c.Flags().Changed("delay") {
				body["delay_seconds"] = wholeSeconds(delay)
			}
			data, err := a.call(c.Context(), http.MethodPost, l.message(args, args[l.n])+"/nack", body)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
	c.Flags().DurationVar(&delay, "delay", 0, "wait before the next attempt; default: as is set there")
	return c
}

func leasePeek(a *api, l *leaser) *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "peek " + l.args, Short: "Look at messages without taking them", Args: cobra.ExactArgs(l.n),
		RunE: action(func(c *cobra.Command, args []string) error {
			data, err := a.call(c.Context(), http.MethodGet, fmt.Sprintf("%s/messages?limit=%d", l.path(args), limit), nil)
			if err != nil {
				return err
			}
			return a.show(c, data, "messages", messageColumns[:4]...)
		}),
	}
	c.Flags().IntVar(&limit, "limit", 10, "at most so many")
	return c
}

// wholeSeconds rounds up: a wait that was asked for is never cut to none.
func wholeSeconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}
