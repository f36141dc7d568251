package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"millrace/cmd/millrace/bench"
)

// newBench is hidden until its figures can be compared with those of others.
func newBench() *cobra.Command {
	var o bench.Options
	a := &api{}
	c := &cobra.Command{
		Use: "bench", Short: "Load a broker and print one JSON line", Hidden: true,
		Example: `  millrace bench mqtt --qos 1 --connections 50 --pid $(pidof millrace)
  millrace bench consume --messages 100000`,
	}
	a.register(c)
	p := c.PersistentFlags()
	p.StringVar(&o.MQTT, "mqtt", "127.0.0.1:1883", "MQTT address")
	p.StringVar(&o.Login.User, "user", "", "MQTT user")
	p.StringVar(&o.Login.Password, "password", "", "its password")
	p.StringVar(&o.Queue, "queue", "bench", "queue; made when missing, if there is a key")
	p.StringVar(&o.Topic, "topic", "bench", "first level of the topics")
	p.IntVar(&o.Connections, "connections", 8, "connections")
	p.IntVar(&o.Size, "size", 256, "payload bytes")
	p.DurationVar(&o.Warm, "warm", time.Second, "time before it counts")
	p.DurationVar(&o.Time, "duration", 5*time.Second, "time that counts")
	p.IntVar(&o.PID, "pid", 0, "process of the broker, to measure its CPU")

	var batch, bulk int
	add := func(use, short string, run func(context.Context, bench.Options) (*bench.Result, error)) *cobra.Command {
		sub := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: action(func(c *cobra.Command, _ []string) error {
			if err := a.resolve(); err != nil {
				return err
			}
			o.URL, o.Key = a.url, a.key
			if o.QoS < 0 || o.QoS > 2 || o.Connections < 1 || o.Size < 0 || o.Window < 1 || o.Window > 65535 || batch < 1 || bulk < 1 || o.Rate < 1 {
				return usage("a number is out of its range")
			}
			r, err := run(c.Context(), o)
			if err != nil {
				return err
			}
			return r.Print(c.OutOrStdout())
		})}
		c.AddCommand(sub)
		return sub
	}
	m := add("mqtt", "MQTT publishes, raw packets", bench.MQTT)
	m.Flags().IntVar(&o.QoS, "qos", 1, "quality of service")
	m.Flags().IntVar(&o.Window, "window", 200, "unacknowledged messages of one connection")
	h := add("http", "HTTP publishes", func(ctx context.Context, o bench.Options) (*bench.Result, error) {
		o.Batch = batch
		return bench.HTTP(ctx, o)
	})
	h.Flags().IntVar(&batch, "batch", 1, "messages in one request")
	k := add("consume", "fill a queue, then lease and acknowledge over HTTP", func(ctx context.Context, o bench.Options) (*bench.Result, error) {
		o.Batch = bulk
		return bench.Consume(ctx, o)
	})
	k.Flags().IntVar(&o.Messages, "messages", 100_000, "how many")
	k.Flags().IntVar(&bulk, "batch", 100, "messages in one request")
	w := add("wake", "MQTT publish to HTTP long poll: latency", bench.Wake)
	w.Flags().IntVar(&o.Rate, "rate", 200, "messages a second")
	return c
}
