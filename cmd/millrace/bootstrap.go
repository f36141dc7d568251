package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/rs/zerolog"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/cmd/millrace/config"
	"millrace/rest/flowmq"
)

// bootstrap is the content of --bootstrap-file. Entries of queues and streams
// are the bodies of POST /api/v1/queues and /api/v1/streams.
type bootstrap struct {
	APIKeys []struct {
		ID     string   `yaml:"id"`
		Secret string   `yaml:"secret"`
		Name   string   `yaml:"name"`
		Role   string   `yaml:"role"`
		Scopes []string `yaml:"scopes"`
	} `yaml:"api_keys"`
	Users []struct {
		Username  string `yaml:"username"`
		Password  string `yaml:"password"`
		Superuser bool   `yaml:"superuser"`
	} `yaml:"users"`
	Rules []struct {
		Effect string   `yaml:"effect"`
		Who    string   `yaml:"who"`
		Do     []string `yaml:"do"`
		Filter string   `yaml:"filter"`
	} `yaml:"rules"`
	Queues  []map[string]any `yaml:"queues"`
	Streams []map[string]any `yaml:"streams"`

	queues  []broker.QueueConfig
	streams []broker.StreamConfig
}

// readBootstrap reads and checks the whole file before anything of it is done.
func readBootstrap(path string) (*bootstrap, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, &failure{code: exitConfig, err: fmt.Errorf("cannot read the bootstrap file: %w", err)}
	}
	b := &bootstrap{}
	err = config.Strict(path, text, b, true)
	if err == nil {
		err = b.decode(path)
	}
	if err != nil {
		return nil, &failure{code: exitConfig, err: err}
	}
	return b, nil
}

func (b *bootstrap) decode(path string) error {
	var errs []error
	for i, q := range b.Queues {
		c, err := decodeEntry(q, flowmq.DecodeQueue)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: queues[%d]: %w", path, i, err))
		}
		b.queues = append(b.queues, c)
	}
	for i, s := range b.Streams {
		c, err := decodeEntry(s, flowmq.DecodeStream)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: streams[%d]: %w", path, i, err))
		}
		b.streams = append(b.streams, c)
	}
	for i, k := range b.APIKeys {
		if k.ID == "" || k.Secret == "" {
			errs = append(errs, fmt.Errorf("%s: api_keys[%d]: id and secret are both needed: a made-up one would be told to nobody", path, i))
		}
	}
	return errors.Join(errs...)
}

func decodeEntry[T any](entry map[string]any, decode func([]byte) (T, error)) (T, error) {
	text, err := json.Marshal(entry)
	if err != nil {
		var none T
		return none, err
	}
	return decode(text)
}

// apply creates what is missing, and changes nothing that is there.
func (b *bootstrap) apply(ctx context.Context, path string, br *broker.Broker, log zerolog.Logger) error {
	made := map[string]int{}
	note := func(kind, name string, err error, exists bool) error {
		switch {
		case err == nil:
			made[kind]++
			return nil
		case exists:
			return nil
		}
		f := &failure{code: exitConfig, err: fmt.Errorf("%s: %s %q: %w", path, kind, name, err)}
		if kind := broker.KindOf(err); kind == broker.Unavailable || kind == broker.Unknown || kind == broker.Full {
			f.code = exitFailed
		}
		return f
	}
	var errs []error
	ctx = asSystem(ctx, "bootstrap")
	a := br.Auth()
	for _, k := range b.APIKeys {
		_, _, err := a.AddKey(ctx, auth.KeySpec{ID: k.ID, Secret: k.Secret, Name: k.Name, Role: k.Role, Scopes: k.Scopes})
		errs = append(errs, note("api key", k.ID, err, errors.Is(err, auth.ErrExists)))
	}
	for _, u := range b.Users {
		err := a.AddUser(ctx, auth.UserSpec{Username: u.Username, Password: u.Password, Superuser: u.Superuser})
		errs = append(errs, note("user", u.Username, err, errors.Is(err, auth.ErrExists)))
	}
	if n, err := b.addRules(ctx, a); err != nil || n > 0 {
		errs = append(errs, note("rules", "", err, false))
	}
	for i, err := range createQueues(ctx, br, b.queues) {
		errs = append(errs, note("queue", b.queues[i].Name, err, broker.KindOf(err) == broker.Conflict))
	}
	for _, s := range b.streams {
		_, err := br.CreateStream(ctx, s)
		errs = append(errs, note("stream", s.Name, err, broker.KindOf(err) == broker.Conflict))
	}
	log.Info().Str("file", path).Interface("created", made).Msg("bootstrap file applied")
	return errors.Join(errs...)
}

// createQueues makes queues, some at a time: a store of several machines takes its time
// for each. It returns what came of each.
func createQueues(ctx context.Context, br *broker.Broker, list []broker.QueueConfig) []error {
	const atOnce = 8
	errs := make([]error, len(list))
	turn := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i := range list {
		turn <- struct{}{}
		all.Go(func() {
			_, errs[i] = br.CreateQueue(ctx, list[i])
			<-turn
		})
	}
	all.Wait()
	return errs
}

// addRules adds the rules that are not in force yet, and answers how many.
func (b *bootstrap) addRules(ctx context.Context, a *auth.Auth) (int, error) {
	rules, n := a.Rules(), 0
	for _, r := range b.Rules {
		rule := auth.Rule{Effect: r.Effect, Who: r.Who, Do: r.Do, Filter: r.Filter}
		same := func(o auth.Rule) bool {
			return o.Effect == rule.Effect && o.Who == rule.Who && o.Filter == rule.Filter && slices.Equal(o.Do, rule.Do)
		}
		if !slices.ContainsFunc(rules, same) {
			rules, n = append(rules, rule), n+1
		}
	}
	if n == 0 {
		return 0, nil
	}
	return n, a.SetRules(ctx, rules)
}
