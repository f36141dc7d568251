package broker

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"sync"
)

// A receipt proves one delivery. It is opaque to clients, cannot be guessed,
// and needs no table: it carries the queue's incarnation, the message and the
// attempt under a MAC whose key is made once and kept in the store, so that
// receipts stay good over restarts.
//
//	version u8 | target u64 | seq u64 | attempt u32 | epoch u32 | delivered ms u64 | message id 16 | mac 16
//
// in base64url without padding: 87 characters.
const (
	receiptVersion = 1
	receiptBody    = 1 + 8 + 8 + 4 + 4 + 8 + 16
	receiptMAC     = 16
	receiptBytes   = receiptBody + receiptMAC
)

const receiptKeyName = "receipt-key"

// receipt is what a genuine receipt says.
type receipt struct {
	ref       Ref
	delivered int64 // Unix milliseconds
	id        ID
}

// receiptKey writes and reads receipts.
type receiptKey struct{ macs sync.Pool }

// loadReceiptKey reads the MAC key from the store, or makes it on first start.
func loadReceiptKey(ctx context.Context, s Store) (*receiptKey, error) {
	keys := NewKeys(s, SpaceSystem)
	secret, ok, err := keys.Get(ctx, receiptKeyName)
	if err != nil {
		return nil, err
	}
	if !ok {
		secret = make([]byte, sha256.Size)
		_, _ = rand.Read(secret) // never fails: crypto/rand aborts the process instead
		if err := keys.Put(ctx, receiptKeyName, secret); err != nil {
			return nil, err
		}
	}
	return &receiptKey{macs: sync.Pool{New: func() any { return hmac.New(sha256.New, secret) }}}, nil
}

// sum appends the MAC of body to dst.
func (k *receiptKey) sum(dst, body []byte) []byte {
	h := k.macs.Get().(hash.Hash)
	h.Reset()
	_, _ = h.Write(body) // never fails
	var full [sha256.Size]byte
	dst = append(dst, h.Sum(full[:0])[:receiptMAC]...)
	k.macs.Put(h)
	return dst
}

// write returns the receipt of a delivery.
func (k *receiptKey) write(r receipt) string {
	var buf [receiptBytes]byte
	b := append(buf[:0], receiptVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(r.ref.Target))
	b = binary.BigEndian.AppendUint64(b, r.ref.Seq)
	b = binary.BigEndian.AppendUint32(b, r.ref.Attempt)
	b = binary.BigEndian.AppendUint32(b, r.ref.Epoch)
	b = binary.BigEndian.AppendUint64(b, uint64(r.delivered))
	b = append(b, r.id[:]...)
	return base64.RawURLEncoding.EncodeToString(k.sum(b, b))
}

// read returns what a receipt says, and whether it is genuine.
func (k *receiptKey) read(s string) (r receipt, ok bool) {
	var buf [receiptBytes]byte
	if base64.RawURLEncoding.DecodedLen(len(s)) != receiptBytes {
		return receipt{}, false
	}
	if _, err := base64.RawURLEncoding.Strict().Decode(buf[:], []byte(s)); err != nil || buf[0] != receiptVersion {
		return receipt{}, false
	}
	body := buf[:receiptBody]
	var mac [receiptMAC]byte
	if !hmac.Equal(k.sum(mac[:0], body), buf[receiptBody:]) {
		return receipt{}, false
	}
	r.ref.Target = Target(binary.BigEndian.Uint64(body[1:]))
	r.ref.Seq = binary.BigEndian.Uint64(body[9:])
	r.ref.Attempt = binary.BigEndian.Uint32(body[17:])
	r.ref.Epoch = binary.BigEndian.Uint32(body[21:])
	r.delivered = int64(binary.BigEndian.Uint64(body[25:]))
	copy(r.id[:], body[33:])
	return r, true
}
