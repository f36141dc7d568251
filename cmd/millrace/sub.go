package main

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/spf13/cobra"
)

// subFlags are those of mosquitto_sub.
type subFlags struct {
	mqttFlags
	filters          []string
	verbose          bool
	count, seconds   int
	noRetained, bare bool
}

func newSub() *cobra.Command {
	var f subFlags
	c := &cobra.Command{
		Use:   "sub -t FILTER",
		Short: "Subscribe over MQTT, with the flags of mosquitto_sub",
		Example: `  millrace sub -t 'demo/#' -v
  millrace sub -t '$queue/demo' -q 1 -C 1 -W 20`,
		Args: cobra.NoArgs,
		RunE: action(func(c *cobra.Command, _ []string) error { return f.run(c) }),
	}
	f.register(c)
	c.Flags().StringArrayVarP(&f.filters, "topic", "t", nil, "topic filter; may be repeated")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "print the topic before each message")
	c.Flags().IntVarP(&f.count, "count", "C", 0, "end after that many messages")
	c.Flags().IntVarP(&f.seconds, "timeout", "W", 0, "end after that many seconds, with exit code 6 if messages are missing")
	c.Flags().BoolVarP(&f.noRetained, "no-retained", "R", false, "leave out retained messages")
	c.Flags().BoolVarP(&f.bare, "no-newline", "N", false, "print no newline after a message")
	return c
}

func (f *subFlags) run(c *cobra.Command) error {
	if err := f.check(); err != nil {
		return err
	}
	if len(f.filters) == 0 {
		return usage("-t is missing: name the topic or filter to subscribe to")
	}
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var late <-chan time.Time
	if f.seconds > 0 {
		late = time.After(time.Duration(f.seconds) * time.Second)
	}
	done := make(chan error, 1)
	s, err := f.connect(ctx, f.printer(c.OutOrStdout(), done))
	if err != nil {
		return err
	}
	if err := f.subscribe(ctx, s); err != nil {
		return err
	}
	select {
	case err := <-done:
		if err != nil {
			return err
		}
		return s.leave()
	case err := <-s.lost:
		return &failure{code: exitUnreachable, err: fmt.Errorf("connection lost: %w", err)}
	case <-late:
		if err := s.leave(); err != nil {
			return err
		}
		return &failure{code: exitNothing, err: fmt.Errorf("timed out after %d s", f.seconds)}
	case <-ctx.Done():
		return s.leave()
	}
}

// printer writes messages, and acknowledges each after it was written. It tells
// done when the last one is out, or cannot be written.
func (f *subFlags) printer(w io.Writer, done chan<- error) func(*paho.Client, *paho.Publish) {
	seen, over := 0, false
	return func(client *paho.Client, p *paho.Publish) {
		if over || f.noRetained && p.Retain {
			if !over {
				_ = client.Ack(p) // a lost connection is told elsewhere
			}
			return
		}
		var line []byte
		if f.verbose {
			line = append([]byte(p.Topic), ' ')
		}
		line = append(line, p.Payload...)
		if !f.bare {
			line = append(line, '\n')
		}
		_, err := w.Write(line)
		if err == nil {
			err = client.Ack(p)
		}
		seen++
		if err != nil || seen == f.count {
			over = true
			done <- err
		}
	}
}

func (f *subFlags) subscribe(ctx context.Context, s *mqttSession) error {
	var subs []paho.SubscribeOptions
	for _, filter := range f.filters {
		subs = append(subs, paho.SubscribeOptions{Topic: filter, QoS: byte(f.qos)})
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ack, err := s.Subscribe(ctx, &paho.Subscribe{Subscriptions: subs})
	if ack != nil {
		for i, code := range ack.Reasons {
			if code < 0x80 || i >= len(f.filters) {
				continue
			}
			exit := exitFailed
			if code == packets.SubackNotauthorized {
				exit = exitNotAllowed
			}
			text := oneLine((&packets.Suback{Reasons: []byte{code}}).Reason(0))
			if ack.Properties != nil && ack.Properties.ReasonString != "" {
				text = ack.Properties.ReasonString
			}
			return &failure{code: exit, err: fmt.Errorf("subscription to %s refused: %s (0x%02X)", f.filters[i], text, code)}
		}
	}
	if err != nil {
		return &failure{code: exitUnreachable, err: fmt.Errorf("cannot subscribe: %w", err)}
	}
	return nil
}
