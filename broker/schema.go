package broker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"millrace/broker/auth"
)

// maxSchemas bounds the versions of one stream, and maxSchemaBytes each of them.
const (
	maxSchemas     = 10_000
	maxSchemaBytes = 256 << 10
)

// A stream has schemas, which are numbered from 0 in the order of their coming
// and stay for as long as it does. What they say is the business of the doors
// that use them.

// RegisterSchema records a schema of the stream, or finds the same one, and
// returns its version once that is as durable as the store promises.
//
// Errors: TooLarge, Full, Unavailable, Unknown.
func (p *StreamProducer) RegisterSchema(ctx context.Context, definition []byte) (int, error) {
	if len(definition) > maxSchemaBytes {
		return 0, errorf(TooLarge, FieldSubject, "the schema has %d bytes; it may have %d", len(definition), maxSchemaBytes)
	}
	sum := sha256.Sum256(definition)
	byHash := streamKey(p.s, "#"+hex.EncodeToString(sum[:]))
	for {
		e, err := p.b.store.Get(ctx, SpaceSchemas, byHash)
		if err == nil {
			return strconv.Atoi(string(e.Value))
		}
		if !errors.Is(err, ErrNotFound) {
			return 0, storeError(err)
		}
		version, err := p.nextSchema(ctx)
		if err != nil {
			return 0, err
		}
		c := newCommit()
		c.Put(SpaceSchemas, schemaKey(p.s, version), definition, RevNone)
		c.Put(SpaceSchemas, byHash, strconv.AppendInt(nil, int64(version), 10), RevNone)
		if _, err = c.one(ctx, p.b.store); err == nil {
			return version, nil
		}
		if !errors.Is(err, ErrConflict) {
			return 0, storeError(err)
		} // somebody else registered one meanwhile: look again
	}
}

func (p *StreamProducer) nextSchema(ctx context.Context) (n int, err error) {
	err = p.b.store.List(ctx, SpaceSchemas, streamKey(p.s, "v"), func(Entry) bool { n++; return true })
	if err == nil && n >= maxSchemas {
		return 0, errorf(Full, NoSubject, "stream %q has %d schemas, which is the limit", p.s.config().Name, maxSchemas)
	}
	return n, storeError(err)
}

// Schema returns a schema of the producer's stream. Errors: NotFound.
func (p *StreamProducer) Schema(ctx context.Context, version int) ([]byte, error) {
	return p.b.schema(ctx, p.s, version)
}

// Schema returns a schema of a stream for who reads it. Errors: Forbidden, NotFound.
func (b *Broker) Schema(ctx context.Context, stream string, version int) ([]byte, error) {
	s, err := b.lookupStream(ctx, auth.Consume, stream)
	if err != nil {
		return nil, err
	}
	return b.schema(ctx, s, version)
}

func (b *Broker) schema(ctx context.Context, s *stream, version int) ([]byte, error) {
	e, err := b.store.Get(ctx, SpaceSchemas, schemaKey(s, version))
	if errors.Is(err, ErrNotFound) {
		return nil, errorf(NotFound, NoSubject, "stream %q has no schema version %d", s.config().Name, version)
	}
	return bytes.Clone(e.Value), storeError(err)
}

func schemaKey(s *stream, version int) string { return streamKey(s, fmt.Sprintf("v%08d", version)) }
