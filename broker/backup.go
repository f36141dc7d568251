package broker

import (
	"context"
	"io"

	"millrace/broker/auth"
)

// Archive is a Store that can write a copy of itself while it works.
type Archive interface {
	// Backup writes everything that was answered before the call, in a form
	// that the store's own tools restore. What breaks off is not a backup, and
	// can be told from one.
	Backup(ctx context.Context, w io.Writer) error
}

// Backup writes a backup of the store, for those who manage the server: it holds
// every message and the hashes of every secret.
func (b *Broker) Backup(ctx context.Context, w io.Writer) error {
	if err := b.May(ctx, auth.Manage, auth.Server); err != nil {
		return err
	}
	a, ok := b.store.(Archive)
	if !ok || b.durability == DurabilityMemory {
		return &Error{Kind: NotFound, Message: "this store has nothing to back up: it keeps nothing on disk"}
	}
	err := a.Backup(ctx, w)
	b.auth.Audit(ctx, auth.Event{What: auth.BackupTaken, Err: err})
	return storeError(err)
}

// ForgetReceipts has the broker that opens s next make another key for receipts,
// so that none from before is genuine. Who restores a backup does that: the
// store goes on from an earlier time, and what was handed out since then must not
// be mistaken for what it hands out from now on.
func ForgetReceipts(ctx context.Context, s Store) error {
	return NewKeys(s, SpaceSystem).Delete(ctx, receiptKeyName)
}
