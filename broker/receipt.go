package broker

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
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
	receiptText    = (receiptBytes*8 + 5) / 6
)

var strictBase64 = base64.RawURLEncoding.Strict()

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
		c := newCommit()
		c.Put(SpaceSystem, receiptKeyName, secret, RevNone)
		if _, err = c.one(ctx, s); errors.Is(err, ErrConflict) { // another node was faster
			secret, _, err = keys.Get(ctx, receiptKeyName)
		}
		if err != nil {
			return nil, storeError(err)
		}
	}
	return &receiptKey{macs: sync.Pool{New: func() any { return &scratch{mac: hmac.New(sha256.New, secret)} }}}, nil
}

// scratch is a MAC with the memory that a receipt takes on its way.
type scratch struct {
	mac  hash.Hash
	raw  [receiptBytes]byte
	full [sha256.Size]byte
	text []byte
}

// sum returns the MAC of the body in raw.
func (s *scratch) sum() []byte {
	s.mac.Reset()
	_, _ = s.mac.Write(s.raw[:receiptBody]) // never fails
	return s.mac.Sum(s.full[:0])[:receiptMAC]
}

// appendText appends the receipt of a delivery.
func (s *scratch) appendText(dst []byte, r receipt) []byte {
	b := append(s.raw[:0], receiptVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(r.ref.Target))
	b = binary.BigEndian.AppendUint64(b, r.ref.Seq)
	b = binary.BigEndian.AppendUint32(b, r.ref.Attempt)
	b = binary.BigEndian.AppendUint32(b, r.ref.Epoch)
	b = binary.BigEndian.AppendUint64(b, uint64(r.delivered))
	b = append(b, r.id[:]...)
	return base64.RawURLEncoding.AppendEncode(dst, append(b, s.sum()...))
}

// writeAll gives every delivery of got its receipt. The receipts are parts of
// one string.
func (k *receiptKey) writeAll(got []Received, delivered int64) {
	s := k.macs.Get().(*scratch)
	defer k.macs.Put(s)
	s.text = s.text[:0]
	for i := range got {
		s.text = s.appendText(s.text, receipt{ref: got[i].Ref, delivered: delivered, id: got[i].ID})
	}
	all := string(s.text)
	for i := range got {
		got[i].Receipt = all[i*receiptText : (i+1)*receiptText]
	}
}

// read returns what a receipt says, and whether it is genuine.
func (k *receiptKey) read(text string) (r receipt, ok bool) {
	if len(text) != receiptText {
		return receipt{}, false
	}
	s := k.macs.Get().(*scratch)
	defer k.macs.Put(s)
	s.text = append(s.text[:0], text...)
	if _, err := strictBase64.Decode(s.raw[:], s.text); err != nil || s.raw[0] != receiptVersion {
		return receipt{}, false
	}
	if !hmac.Equal(s.sum(), s.raw[receiptBody:]) {
		return receipt{}, false
	}
	body := s.raw[:receiptBody]
	r.ref.Target = Target(binary.BigEndian.Uint64(body[1:]))
	r.ref.Seq = binary.BigEndian.Uint64(body[9:])
	r.ref.Attempt = binary.BigEndian.Uint32(body[17:])
	r.ref.Epoch = binary.BigEndian.Uint32(body[21:])
	r.delivered = int64(binary.BigEndian.Uint64(body[25:]))
	copy(r.id[:], body[33:])
	return r, true
}
