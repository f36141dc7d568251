package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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

func queueReceive(a *api) *cobra.Command {
	var most int
	var wait, lease time.Duration
	var ack bool
	c := &cobra.Command{
		Use: "receive QUEUE", Short: "Take messages; they come back unless they are acknowledged", Args: cobra.ExactArgs(1),
		Example: `  millrace queue receive demo --wait 20s
  millrace queue receive demo --max 10 --ack -o json`,
		RunE: action(func(c *cobra.Command, args []string) error {
			body := map[string]any{"max_messages": most}
			if wait > 0 {
				body["timeout_seconds"] = wholeSeconds(wait)
			}
			if c.Flags().Changed("lease") {
				body["visibility_timeout_seconds"] = wholeSeconds(lease)
			}
			data, err := a.call(c.Context(), http.MethodPost, queuePath(args[0])+"/messages/consume", body)
			if err != nil {
				return err
			}
			var got received
			if err := json.Unmarshal(data, &got); err != nil {
				return fmt.Errorf("read the answer: %w", err)
			}
			if len(got.Messages) == 0 {
				return &failure{code: exitNothing, err: errors.New("no message in queue " + args[0])}
			}
			if err := a.show(c, data, "messages", messageColumns...); err != nil || !ack {
				return err
			}
			for _, m := range got.Messages {
				if _, err := a.call(c.Context(), http.MethodPost, messagePath(args[0], m.ID)+"/ack", map[string]any{"receipt_handle": m.Receipt}); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	c.Flags().IntVar(&most, "max", 1, "at most so many")
	c.Flags().DurationVar(&wait, "wait", 0, "how long to wait for the first, for example 20s")
	c.Flags().DurationVar(&lease, "lease", 0, "how long they are yours; default: as the queue says")
	c.Flags().BoolVar(&ack, "ack", false, "acknowledge them once they are printed")
	return c
}

func messagePath(queue, id string) string {
	return queuePath(queue) + "/messages/" + url.PathEscape(id)
}

func queueAck(a *api) *cobra.Command {
	return &cobra.Command{
		Use: "ack QUEUE MESSAGE RECEIPT", Short: "Acknowledge a message: it is done with", Args: cobra.ExactArgs(3),
		RunE: action(func(c *cobra.Command, args []string) error {
			data, err := a.call(c.Context(), http.MethodPost, messagePath(args[0], args[1])+"/ack", map[string]any{"receipt_handle": args[2]})
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
}

func queueNack(a *api) *cobra.Command {
	var delay time.Duration
	c := &cobra.Command{
		Use: "nack QUEUE MESSAGE RECEIPT", Short: "Give a message back, for another attempt", Args: cobra.ExactArgs(3),
		RunE: action(func(c *cobra.Command, args []string) error {
			body := map[string]any{"receipt_handle": args[2]}
			if c.Flags().Changed("delay") {
				body["delay_seconds"] = wholeSeconds(delay)
			}
			data, err := a.call(c.Context(), http.MethodPost, messagePath(args[0], args[1])+"/nack", body)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
	c.Flags().DurationVar(&delay, "delay", 0, "wait before the next attempt; default: as the queue says")
	return c
}

func queuePeek(a *api) *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "peek QUEUE", Short: "Look at messages without taking them", Args: cobra.ExactArgs(1),
		RunE: action(func(c *cobra.Command, args []string) error {
			data, err := a.call(c.Context(), http.MethodGet, fmt.Sprintf("%s/messages?limit=%d", queuePath(args[0]), limit), nil)
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
