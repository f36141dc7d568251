package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// How long the servers may take to show their settings, and how far the clocks
// of node and servers may be apart before somebody is told.
const (
	showWithin  = 2 * time.Second
	clocksApart = time.Second
)

// readSync asks every server, through the system account, how it syncs its disk:
// what they show counts, and the operator's word must not say more.
func (o *Options) readSync(ctx context.Context) error {
	if o.SysCreds == "" {
		return nil
	}
	nc, err := connect(ctx, o, o.SysCreds)
	if err != nil {
		return fmt.Errorf("the system account of nats (--nats-sys-creds): %w", err)
	}
	defer nc.Close()
	lax, err := lazyServer(ctx, nc)
	switch {
	case err != nil:
		return &openError{ErrUnfit, fmt.Errorf("nats %s does not show its settings: %w; --nats-sys-creds must be of a user of the system account", o.hosts(), err)}
	case lax == "":
		o.Sync = SyncAlways
	case o.Sync == SyncAlways:
		return &openError{ErrUnfit, fmt.Errorf("nats server %s does not sync every write, although --nats-sync says always: set sync_interval: always in its jetstream section", lax)}
	default:
		o.Sync = SyncInterval
	}
	return nil
}

// lazyServer names one that does not sync every write, or none. Every server
// with JetStream has to answer.
func lazyServer(ctx context.Context, nc *nats.Conn) (name string, err error) {
	sub, err := nc.SubscribeSync(nc.NewRespInbox())
	if err != nil {
		return "", err
	}
	if err := nc.PublishRequest("$SYS.REQ.SERVER.PING.JSZ", sub.Subject, nil); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, showWithin)
	defer cancel()
	for heard, all := 0, 1; heard < all; {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return "", fmt.Errorf("%d of %d servers answered: %w", heard, all, errors.Join(err, nc.LastError()))
		}
		var answer struct {
			Server struct {
				Name string `json:"name"`
			} `json:"server"`
			Data struct {
				Disabled bool `json:"disabled"`
				Config   struct {
					Always bool `json:"sync_always"`
				} `json:"config"`
				Meta struct {
					Size int `json:"cluster_size"`
				} `json:"meta_cluster"`
			} `json:"data"`
		}
		if err := json.Unmarshal(m.Data, &answer); err != nil {
			return "", err
		}
		if answer.Data.Disabled {
			continue
		}
		heard++
		all = max(all, answer.Data.Meta.Size)
		if !answer.Data.Config.Always {
			name = answer.Server.Name
		}
	}
	return name, nil
}

// compareClocks tells of a clock that is wrong, here or there: delays and ends of
// leases are judged by that of the servers.
func (s *Store) compareClocks(ctx context.Context) error {
	var answer struct {
		Time time.Time `json:"ts"`
	}
	began := time.Now()
	if err := s.request(ctx, "STREAM.INFO."+s.defs.stream, nil, &answer); err != nil {
		return err
	}
	if by := ahead(answer.Time, began, time.Now()); by.Abs() >= clocksApart {
		s.log.Warn().Stringer("ahead", by.Round(time.Millisecond)).
			Msg("the clocks of the nats servers and of this machine differ: delayed messages come early or late by that; set them, for instance with NTP")
	}
	return nil
}

// ahead is by how much a time that was read between two others is outside them.
func ahead(t, began, ended time.Time) time.Duration {
	switch {
	case t.Before(began):
		return t.Sub(began)
	case t.After(ended):
		return t.Sub(ended)
	}
	return 0
}
