package scenario

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"millrace/broker"
)

// Core is the door that calls the broker directly.
type Core struct {
	Broker   *broker.Broker
	Ctx      context.Context // carries an administrator
	receipts Receipts
}

// Do implements Door.
func (c *Core) Do(s *Step) (string, error) {
	if len(s.Args) == 0 {
		return "", fmt.Errorf("%s needs a name", s.Verb)
	}
	switch s.Verb {
	case "publish":
		return c.publish(s)
	case "receive":
		return c.receive(s)
	case "ack", "nack", "extend":
		return c.settle(s)
	case "queue", "set", "delete", "pause", "resume":
		return c.define(s)
	case "peek", "purge", "counts", "redrive", "move":
		return c.look(s)
	}
	return "", fmt.Errorf("unknown verb %q", s.Verb)
}

func (c *Core) publish(s *Step) (string, error) {
	m := &broker.Message{Topic: s.Args[0], Payload: []byte(strings.Join(s.Args[1:], " ")), QoS: 1, Key: s.Options["key"]}
	now := c.Broker.Now()
	for name, at := range map[string]*int64{"delay": &m.NotBefore, "expires": &m.Expires} {
		if v, ok := s.Options[name]; ok {
			d, err := time.ParseDuration(v)
			if err != nil {
				return "", err
			}
			*at = now.Add(d).UnixMilli()
		}
	}
	m.Retain = s.Options["retain"] == "true"
	m.DedupKey = s.Options["once"]
	p, err := c.Broker.Publish(c.Ctx, m)
	if p.Duplicate {
		return "duplicate", nil
	}
	return word(err)
}

func (c *Core) receive(s *Step) (string, error) {
	o := broker.ReceiveOptions{Lease: broker.DefaultLease}
	var err error
	if o.Max, err = strconv.Atoi(s.Option("max", "10")); err != nil {
		return "", err
	}
	if o.Wait, err = time.ParseDuration(s.Option("wait", "0s")); err != nil {
		return "", err
	}
	if v, ok := s.Options["lease"]; ok {
		if o.Lease, err = time.ParseDuration(v); err != nil {
			return "", err
		}
	}
	got, err := c.Broker.Receive(c.Ctx, s.Args[0], o)
	if err != nil {
		return word(err)
	}
	var seen []string
	for _, g := range got {
		c.receipts.Keep(s.Args[0], string(g.Payload), int(g.Attempt), g.ID.String(), g.Receipt)
		seen = append(seen, fmt.Sprintf("%s (attempt %d)", g.Payload, g.Attempt))
	}
	return List(seen), nil
}

func (c *Core) settle(s *Step) (string, error) {
	if len(s.Args) < 2 {
		return "", fmt.Errorf("%s needs a queue and a text", s.Verb)
	}
	queue := s.Args[0]
	r, err := c.receipts.Find(queue, s.Args[1])
	if err != nil {
		return "", err
	}
	id, err := broker.ParseID(r.ID)
	if err != nil {
		return "", err
	}
	switch s.Verb {
	case "ack":
		state, err := c.Broker.Ack(c.Ctx, queue, id, r.Receipt)
		if err == nil {
			return string(state), nil
		}
		return word(err)
	case "nack":
		d := broker.Backoff
		if v, ok := s.Options["delay"]; ok {
			if d, err = time.ParseDuration(v); err != nil {
				return "", err
			}
		}
		_, err = c.Broker.Nack(c.Ctx, queue, id, r.Receipt, d)
	default:
		d, bad := time.ParseDuration(s.Args[len(s.Args)-1])
		if bad != nil {
			return "", bad
		}
		_, err = c.Broker.Extend(c.Ctx, queue, id, r.Receipt, d)
	}
	return word(err)
}

func (c *Core) define(s *Step) (string, error) {
	name := s.Args[0]
	var err error
	switch s.Verb {
	case "queue":
		q := broker.NewQueueConfig(name, s.Options["filter"])
		if err := apply(&q, s.Options); err != nil {
			return "", err
		}
		_, err = c.Broker.CreateQueue(c.Ctx, q)
	case "delete":
		err = c.Broker.DeleteQueue(c.Ctx, name)
	default:
		_, err = c.Broker.UpdateQueue(c.Ctx, name, func(q *broker.QueueConfig) error {
			switch s.Verb {
			case "pause", "resume":
				q.Paused = s.Verb == "pause"
				return nil
			}
			return apply(q, s.Options)
		})
	}
	return word(err)
}

func (c *Core) look(s *Step) (string, error) {
	name := s.Args[0]
	switch s.Verb {
	case "peek":
		states := map[string]broker.EntryState{"ready": broker.Ready, "dead": broker.Dead, "delayed": broker.Delayed, "leased": broker.Leased}
		ds, err := c.Broker.Browse(c.Ctx, name, states[s.Option("state", "ready")], 0, 100)
		if err != nil {
			return word(err)
		}
		var seen []string
		for _, d := range ds {
			seen = append(seen, string(d.Payload))
		}
		return List(seen), nil
	case "purge":
		n, err := c.Broker.Purge(c.Ctx, name, s.Options["all"] == "true")
		if err != nil {
			return word(err)
		}
		return strconv.Itoa(n), nil
	case "counts":
		i, err := c.Broker.Queue(c.Ctx, name)
		if err != nil {
			return word(err)
		}
		return fmt.Sprintf("ready=%d leased=%d delayed=%d dead=%d", i.Ready, i.Leased, i.Delayed, i.Dead), nil
	}
	return c.move(s)
}

func (c *Core) move(s *Step) (string, error) {
	o := broker.Move{States: broker.Ready, To: s.Options["to"], Filter: s.Options["filter"], DryRun: s.Options["dry_run"] == "true"}
	if s.Verb == "redrive" {
		o.States = broker.Dead
	}
	var err error
	if o.Limit, err = strconv.Atoi(s.Option("limit", "0")); err != nil {
		return "", err
	}
	m, err := c.Broker.Move(c.Ctx, s.Args[0], o)
	if err != nil {
		return word(err)
	}
	if o.DryRun {
		return fmt.Sprintf("%d matched", m.Matched), nil
	}
	return fmt.Sprintf("%d moved", m.Moved), nil
}

// word says in one word how the broker answered.
func word(err error) (string, error) {
	if err == nil {
		return "ok", nil
	}
	e, ok := err.(*broker.Error) //nolint:errorlint // the broker returns it bare
	if !ok {
		return "", err
	}
	switch {
	case e.Kind == broker.Invalid && e.Subject == broker.ReceiptSubject:
		return "stale", nil
	case e.Kind == broker.Invalid:
		return "invalid", nil
	case e.Kind == broker.NotFound:
		return "unknown", nil
	case e.Kind == broker.Conflict && e.Subject == broker.QueueSubject:
		return "exists", nil
	case e.Kind == broker.Conflict:
		return "conflict", nil
	case e.Kind == broker.Full:
		return "full", nil
	}
	return "", err
}
