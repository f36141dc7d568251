package main

import (
	"context"
	"runtime"
	"time"

	"millrace/broker/history"
	"millrace/cmd/millrace/config"
	"millrace/mqtt"
	"millrace/rest/emqx"
)

// nodeName is what EMQX's tools know this process by where it has no name of its own.
const nodeName = "millrace@127.0.0.1"

// management is what the management API shows of the other parts.
func (a *app) management() emqx.Options {
	o := emqx.Options{
		Node: nodeName, Cluster: a.cluster, Version: build().Version, MaxPayload: int(a.cfg.Limits.Payload),
		Clients: &a.clients, Alarms: a.alarms, History: a.history, System: system, Settings: func() []emqx.Setting { return *a.shown.Load() },
	}
	a.showSettings()
	if a.cfg.MQTT.DenyAction == "close" {
		o.DenyAction = "disconnect"
	}
	if a.mqtt != nil {
		o.Listeners, o.Counters = listeners{a.mqtt}, a.mqtt.Counters
	}
	return o
}

// showSettings has the management API show the settings as they are now.
func (a *app) showSettings() {
	all := make([]emqx.Setting, 0, len(config.Settings()))
	for _, s := range config.Settings() {
		all = append(all, emqx.Setting{Key: s.Key, Value: a.cfg.Value(s)})
	}
	a.shown.Store(&all)
}

// listeners are those of the MQTT edge in the management API's words.
type listeners struct{ *mqtt.Server }

// Listeners implements emqx.Listeners.
func (l listeners) Listeners() []emqx.Listener {
	var all []emqx.Listener
	for _, s := range l.Server.Listeners() {
		all = append(all, emqx.Listener{ID: s.ID, Type: s.Type, Name: s.Name, Bind: s.Address, Running: s.Running, Connections: s.Connections})
	}
	return all
}

// clockSet is how far the wall clock may be from the clock of deadlines before
// somebody should know.
const clockSet = time.Minute

// slowAlarm is how long an alarm about slow clients stands.
const slowAlarm = time.Minute

// keepHistory begins to take samples, and to watch what only a look at the
// figures tells.
func (a *app) keepHistory() {
	if a.local != nil {
		a.reportLosses()
	}
	slow := int64(0)
	a.history = history.Start(func() history.Reading {
		if a.broker.State().Full {
			a.alarms.Raise("low_disk", "the disk is nearly full: publishes are refused until there is room", nil)
		} else {
			a.alarms.Clear("low_disk")
		}
		a.watchTotals()
		a.watchLosses()
		if a.local != nil {
			a.watchClock()
		}
		a.broker.SampleTopics()
		now, _ := a.clients.Counts()
		n := a.broker.Stats()
		r := history.Reading{
			Totals: history.Totals{Received: int64(n.Published), Persisted: int64(n.Stored), Dropped: int64(n.Unmatched)},
			Gauges: history.Gauges{
				Sessions: now.Sessions, Connections: now.Connected, Subscriptions: now.Subscriptions,
				Shared: now.SharedSubscriptions, Topics: now.Topics, Retained: a.broker.RetainedCount(),
			},
		}
		if a.mqtt != nil {
			m := a.mqtt.Stats()
			r.Sent = m.Delivered
			for _, dropped := range m.Dropped {
				r.Dropped += dropped
			}
			if m.SlowConsumers > slow {
				slow = m.SlowConsumers
				a.alarms.RaiseFor(slowAlarm, "slow_consumers", "clients were disconnected because their sockets took nothing", map[string]any{"total": slow})
			}
		}
		return r
	})
	a.stack.push("history", func(context.Context) error { a.history.Close(); return nil })
}

// system reads the machine and this process.
func system() emqx.System {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := emqx.System{MemoryUsed: m.Sys, MaxFiles: fileLimit()}
	s.Load, s.MemoryTotal = machine()
	return s
}

// reportLosses raises an alarm if the store was opened without what was damaged.
func (a *app) reportLosses() {
	if losses := a.local.Losses(); len(losses.Damage)+len(losses.Missing) > 0 {
		a.alarms.Raise("damaged_start", "the store was opened without what was damaged: read the report", map[string]any{
			"report": losses.Report, "places": len(losses.Damage), "gaps": len(losses.Missing),
		})
	}
}

// watchTotals raises an alarm while there is as much of something as there may be.
func (a *app) watchTotals() {
	for _, t := range a.broker.Totals() {
		name := "limit_reached:" + t.Name
		if t.Most > 0 && t.Now >= t.Most {
			a.alarms.Raise(name, "there is as much as limits."+t.Name+" allows, and more is refused: remove some, or raise it", map[string]any{
				"limit": t.Most, "now": t.Now, "refused": t.Refused,
			})
		} else {
			a.alarms.Clear(name)
		}
	}
}

// watchLosses raises an alarm for each part of the store that came back without something
// that was acknowledged, until that is accepted and forgotten.
func (a *app) watchLosses() {
	now := map[string]bool{}
	for _, l := range a.broker.State().Lost {
		name, what := "store_loss:"+l.Place, "acknowledged messages are missing, and no more are taken: restore them, or start with --accept-loss"
		if l.Accepted {
			what = "acknowledged messages were missing when the store was opened, and are given up"
		}
		now[name] = true
		a.alarms.Raise(name, what, map[string]any{"name": l.Name, "acked": l.Acked, "found": l.Found, "accepted": l.Accepted})
	}
	for name := range a.losses {
		if !now[name] {
			a.alarms.Clear(name)
		}
	}
	a.losses = now
}

// watchClock raises an alarm while the wall clock is not that of deadlines.
func (a *app) watchClock() {
	if ahead := a.local.Clock().Ahead(); ahead.Abs() > clockSet {
		a.alarms.Raise("clock_set", "the clock of the machine was set while the broker runs: deadlines go on as they were, times are shown by the clock of before until a restart", map[string]any{"seconds": int64(ahead.Seconds())})
	} else {
		a.alarms.Clear("clock_set")
	}
}
