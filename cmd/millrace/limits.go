package main

import (
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/cmd/millrace/config"
	"millrace/mqtt"
)

// The limits that can change while the broker runs, part by part.

func rates(c *config.Config) auth.Rates {
	return auth.Rates{Requests: c.Limits.KeyRate, Messages: c.Limits.KeyMessages, Bytes: int(c.Limits.KeyBytes)}
}

func brokerLimits(c *config.Config) broker.Limits {
	return broker.Limits{
		MaxWaiting: c.Limits.Waiting, SessionMessages: int64(c.MQTT.MaxSessionQueue), SessionBytes: int64(c.MQTT.MaxSessionBytes),
		SessionPolicy: broker.SessionPolicy(c.MQTT.SessionOverflow),
		Queues:        c.Limits.Queues, Streams: c.Limits.Streams, Retained: c.Limits.Retained, Stored: int64(c.Limits.Stored),
	}
}

func mqttLimits(c *config.Config) mqtt.Limits {
	return mqtt.Limits{
		MaxWaiting: c.Limits.Connecting, MaxPerAddress: c.Limits.PerAddress, MaxPerIdentity: c.Limits.PerIdentity,
		AcceptRate: c.Limits.AcceptRate, MaxKeepAlive: time.Duration(c.MQTT.MaxKeepalive),
		MaxFilters: c.MQTT.MaxFilters, MaxSubs: c.MQTT.MaxSubscriptions,
		BacklogMessages: c.MQTT.MaxSessionQueue, BacklogBytes: int(c.MQTT.MaxSessionBytes),
	}
}

// applyLimits has the parts use the limits of cfg from now on, which were checked.
func (a *app) applyLimits(cfg *config.Config) error {
	a.broker.Auth().SetRates(rates(cfg))
	if err := a.broker.SetLimits(brokerLimits(cfg)); err != nil || a.mqtt == nil {
		return err
	}
	return a.mqtt.SetLimits(mqttLimits(cfg))
}
