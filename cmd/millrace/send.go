package main

import (
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

// queueSend publishes over HTTP, with what a queue makes of a message: delay,
// expiry, group and idempotency key. It stands with the queues because these do.
func queueSend(a *api) *cobra.Command {
	var key, once string
	var delay, expiry time.Duration
	var retain bool
	c := &cobra.Command{
		Use: "send TOPIC MESSAGE", Short: "Publish a message to the queues that a topic feeds", Args: cobra.ExactArgs(2),
		Example: `  millrace queue send orders/eu '{"n":1}' --delay 30s
  millrace queue send orders/eu '{"n":1}' --once order-1`,
		RunE: action(func(c *cobra.Command, args []string) error {
			body := map[string]any{"payload": args[1]}
			for name, set := range map[string]time.Duration{"delay_seconds": delay, "expiry_seconds": expiry} {
				if set > 0 {
					body[name] = wholeSeconds(set)
				}
			}
			if key != "" {
				body["partition_key"] = key
			}
			if retain {
				body["retain"] = true
			}
			path := "/topics/" + url.PathEscape(args[0]) + "/messages"
			if once != "" { // an entry of a batch carries its own key
				body["idempotency_key"] = once
				body, path = map[string]any{"messages": []any{body}}, path+"/batch"
			}
			data, err := a.call(c.Context(), http.MethodPost, path, body)
			if err != nil {
				return err
			}
			return a.show(c, data, "")
		}),
	}
	c.Flags().StringVar(&key, "key", "", "FIFO group, and partition of a stream")
	c.Flags().StringVar(&once, "once", "", "idempotency key: a repeat within five minutes is stored once")
	c.Flags().DurationVar(&delay, "delay", 0, "wait before it can be received")
	c.Flags().DurationVar(&expiry, "expiry", 0, "life of the message")
	c.Flags().BoolVar(&retain, "retain", false, "keep it for later MQTT subscribers")
	return c
}
