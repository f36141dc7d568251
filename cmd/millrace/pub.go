package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/spf13/cobra"
)

// pubFlags are those of mosquitto_pub.
type pubFlags struct {
	mqttFlags
	topic, message, file       string
	null, lines, stdin, retain bool
}

func newPub() *cobra.Command {
	var f pubFlags
	c := &cobra.Command{
		Use:   "pub -t TOPIC -m MESSAGE",
		Short: "Publish over MQTT, with the flags of mosquitto_pub",
		Example: `  millrace pub -t demo/hello -m hello -q 1
  ls | millrace pub -t demo/files -l`,
		Args: cobra.NoArgs,
		RunE: action(func(c *cobra.Command, _ []string) error { return f.run(c) }),
	}
	f.register(c)
	c.Flags().StringVarP(&f.topic, "topic", "t", "", "topic to publish to")
	c.Flags().StringVarP(&f.message, "message", "m", "", "the message")
	c.Flags().StringVarP(&f.file, "file", "f", "", "send a file as one message")
	c.Flags().BoolVarP(&f.null, "null-message", "n", false, "send an empty message")
	c.Flags().BoolVarP(&f.lines, "stdin-line", "l", false, "send each line of standard input")
	c.Flags().BoolVarP(&f.stdin, "stdin-file", "s", false, "send standard input as one message")
	c.Flags().BoolVarP(&f.retain, "retain", "r", false, "let the broker keep it for new subscribers")
	return c
}

func (f *pubFlags) run(c *cobra.Command) error {
	if err := f.check(); err != nil {
		return err
	}
	if f.topic == "" {
		return usage("-t is missing: name the topic to publish to")
	}
	next, err := f.messages(c)
	if err != nil {
		return err
	}
	s, err := f.connect(c.Context(), nil)
	if err != nil {
		return err
	}
	for {
		m, err := next()
		if errors.Is(err, io.EOF) {
			return s.leave()
		}
		if err == nil {
			err = f.publish(c.Context(), s, m)
		}
		if err != nil {
			return errors.Join(err, s.leave())
		}
	}
}

// messages returns the source of what to send; it ends with io.EOF.
func (f *pubFlags) messages(c *cobra.Command) (func() ([]byte, error), error) {
	if f.lines {
		r := bufio.NewReader(c.InOrStdin())
		return func() ([]byte, error) {
			line, err := r.ReadBytes('\n')
			if len(line) == 0 {
				return nil, err
			}
			if line[len(line)-1] == '\n' {
				line = line[:len(line)-1]
			}
			return line, nil
		}, nil
	}
	var m []byte
	var err error
	switch {
	case c.Flags().Changed("message"):
		m = []byte(f.message)
	case f.file != "":
		m, err = os.ReadFile(f.file)
	case f.stdin:
		m, err = io.ReadAll(c.InOrStdin())
	case !f.null:
		return nil, usage("nothing to send: give -m MESSAGE, -f FILE, -l, -s or -n")
	}
	sent := false
	return func() ([]byte, error) {
		if sent {
			return nil, io.EOF
		}
		sent = true
		return m, err
	}, nil
}

func (f *pubFlags) publish(ctx context.Context, s *mqttSession, m []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := s.Publish(ctx, &paho.Publish{Topic: f.topic, QoS: byte(f.qos), Retain: f.retain, Payload: m})
	if r != nil && r.ReasonCode >= 0x80 {
		code := exitFailed
		if r.ReasonCode == packets.PubackNotAuthorized {
			code = exitNotAllowed
		}
		text := oneLine((&packets.Puback{ReasonCode: r.ReasonCode}).Reason())
		if r.Properties != nil && r.Properties.ReasonString != "" {
			text = r.Properties.ReasonString
		}
		return &failure{code: code, err: fmt.Errorf("%s was not taken: %s (0x%02X)", f.topic, text, r.ReasonCode)}
	}
	if err == nil {
		return nil
	}
	select {
	case lost := <-s.lost:
		err = lost
	default:
	}
	return &failure{code: exitUnreachable, err: fmt.Errorf("%s may not have arrived: %w", f.topic, err)}
}
