package broker

import (
	"context"

	"millrace/broker/auth"
)

// delayedScan is how many delayed messages of a queue are looked at together.
const delayedScan = 1000

// DelayedCount is how many delayed messages wait.
func (b *Broker) DelayedCount(ctx context.Context) (int, error) {
	info, err := b.store.Info(ctx, b.delayed.target)
	return int(info.Delayed), storeError(err)
}

// DelayedPage returns up to limit of the delayed messages that wait, in the
// order of their publishes, behind the first skip of them. NotBefore of each is
// when it is due. It asks for the right to view the server.
func (b *Broker) DelayedPage(ctx context.Context, skip, limit int) ([]Delivery, error) {
	if err := b.may(ctx, auth.View, auth.Server); err != nil {
		return nil, err
	}
	ds, err := b.store.Read(ctx, b.delayed.target, Pos{States: Delayed, Skip: skip}, limit, nil)
	return ds, storeError(err)
}

// DelayedMessage finds one delayed message. NotFound when none of that id waits.
func (b *Broker) DelayedMessage(ctx context.Context, id ID) (Delivery, error) {
	if err := b.may(ctx, auth.View, auth.Server); err != nil {
		return Delivery{}, err
	}
	ds, err := b.scanDelayed(ctx, b.delayed.target, func(m *Message) bool { return m.ID == id })
	if err == nil && len(ds) == 0 {
		return Delivery{}, errorf(NotFound, MessageSubject, "no delayed message has this id: it was delivered, or it never was")
	}
	if err != nil {
		return Delivery{}, storeError(err)
	}
	return ds[0], nil
}

// scanDelayed collects the delayed messages of a target that ok wants.
func (b *Broker) scanDelayed(ctx context.Context, t Target, ok func(*Message) bool) (found []Delivery, err error) {
	for skip := 0; ; skip += delayedScan {
		ds, err := b.store.Read(ctx, t, Pos{States: Delayed, Skip: skip}, delayedScan, nil)
		if err != nil {
			return nil, err
		}
		for i := range ds {
			if ok(&ds[i].Message) {
				found = append(found, ds[i])
			}
		}
		if len(ds) < delayedScan {
			return found, nil
		}
	}
}

// CancelDelayed takes back the delayed messages that ok wants, and returns how
// many. They reach no live subscriber and none of their queues; a stream that
// has one keeps it, since nothing is taken out of a stream. It asks for the
// right to manage the server, and looks at every delayed message.
func (b *Broker) CancelDelayed(ctx context.Context, ok func(*Message) bool) (int, error) {
	if err := b.may(ctx, auth.Manage, auth.Server); err != nil {
		return 0, err
	}
	ds, err := b.scanDelayed(ctx, b.delayed.target, ok)
	if err != nil || len(ds) == 0 {
		return 0, storeError(err)
	}
	ids := make(map[ID]bool, len(ds))
	for i := range ds {
		ids[ds[i].ID] = true
	}
	copies := ds
	for _, q := range b.queuesByName() {
		more, err := b.scanDelayed(ctx, q.target, func(m *Message) bool { return ids[m.ID] })
		if err != nil && !isGone(err) {
			return 0, storeError(err)
		}
		copies = append(copies, more...)
	}
	c := newCommit()
	for i := range copies {
		c.Settle(copies[i].Ref, ReasonPurged)
	}
	c.End()
	if err := c.submit(ctx, b.store); err != nil {
		return 0, storeError(err)
	}
	defer c.release()
	if err := c.Units[0].Result.Err; err != nil {
		return 0, storeError(err) // one became due meanwhile
	}
	b.auth.Audit(ctx, auth.Event{What: auth.Purged, Target: "delayed", Count: len(ds)})
	return len(ds), nil
}
