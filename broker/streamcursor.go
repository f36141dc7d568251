package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"millrace/broker/auth"
)

// Cursor is a named place in a stream: for each partition the offset of the
// next message that its reader wants.
type Cursor struct {
	Name    string
	Offsets []Offset // by partition; those never committed are left out
	Updated time.Time
}

// storedCursor is a cursor as it is on disk. Names are never changed.
type storedCursor struct {
	Offsets map[uint32]uint64 `json:"offsets"`
	Updated int64             `json:"updated"`
}

// CommitCursor moves a cursor, which it makes if needed, to the given offsets;
// partitions that are not named stay where they are. All move in one commit, or
// none. A place before the one committed needs force, or is Conflict: a reader
// that was replaced must not undo what its successor did.
//
// Errors: Invalid (also for an offset beyond the end), Forbidden, NotFound of
// the stream or a partition, Conflict.
func (b *Broker) CommitCursor(ctx context.Context, stream, name string, offsets []Offset, force bool) (Cursor, error) {
	s, err := b.lookupStream(ctx, auth.Consume, stream)
	if err != nil {
		return Cursor{}, err
	}
	if err := b.checkCommit(ctx, s, name, offsets); err != nil {
		return Cursor{}, err
	}
	for {
		c, rev, err := b.loadCursor(ctx, s, name)
		if errors.Is(err, ErrNotFound) {
			c, rev = storedCursor{Offsets: map[uint32]uint64{}}, RevNone
		} else if err != nil {
			return Cursor{}, storeError(err)
		}
		for _, o := range offsets {
			if was := c.Offsets[o.Partition]; o.Offset < was && !force {
				return Cursor{}, errorf(Conflict, OffsetSubject,
					"cursor %q stands at offset %d of partition %d; to move it back to %d send force", name, was, o.Partition, o.Offset)
			}
			c.Offsets[o.Partition] = o.Offset
		}
		c.Updated = b.Now().UnixMilli()
		value, _ := json.Marshal(c) // plain fields: cannot fail
		put := newCommit()
		put.Put(SpaceCursors, streamKey(s, name), value, rev)
		if _, err = put.one(ctx, b.store); err == nil {
			return c.cursor(name), nil
		}
		if !errors.Is(err, ErrConflict) {
			return Cursor{}, storeError(err)
		} // somebody else committed meanwhile: look again
	}
}

// checkCommit checks what a commit says against the stream as it is.
func (b *Broker) checkCommit(ctx context.Context, s *stream, name string, offsets []Offset) error {
	control := func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }
	if name == "" || len(name) > maxNameBytes || strings.ContainsFunc(name, control) {
		return fieldError("name", "%q is not a cursor name: 1 to %d bytes, no control characters", name, maxNameBytes)
	}
	if len(offsets) == 0 {
		return fieldError("offsets", "is empty; name a partition and an offset")
	}
	info, err := b.store.Info(ctx, s.target)
	if isGone(err) {
		return noStream(s.config().Name)
	}
	if err != nil {
		return storeError(err)
	}
	return checkOffsets(s, &info, offsets)
}

// Cursor shows a cursor. Errors: Forbidden, NotFound.
func (b *Broker) Cursor(ctx context.Context, stream, name string) (Cursor, error) {
	s, err := b.lookupStream(ctx, auth.Consume, stream)
	if err != nil {
		return Cursor{}, err
	}
	c, _, err := b.loadCursor(ctx, s, name)
	if errors.Is(err, ErrNotFound) {
		return Cursor{}, noCursor(stream, name)
	}
	return c.cursor(name), storeError(err)
}

// Cursors lists the cursors of a stream by name.
func (b *Broker) Cursors(ctx context.Context, stream string) ([]Cursor, error) {
	s, err := b.lookupStream(ctx, auth.Consume, stream)
	if err != nil {
		return nil, err
	}
	var all []Cursor
	prefix := streamKey(s, "")
	var bad error
	err = b.store.List(ctx, SpaceCursors, prefix, func(e Entry) bool {
		var c storedCursor
		if bad = json.Unmarshal(e.Value, &c); bad == nil {
			all = append(all, c.cursor(strings.TrimPrefix(e.Key, prefix)))
		}
		return bad == nil
	})
	return all, storeError(errors.Join(err, bad))
}

// DeleteCursor forgets a cursor. Errors: Forbidden, NotFound.
func (b *Broker) DeleteCursor(ctx context.Context, stream, name string) error {
	s, err := b.lookupStream(ctx, auth.Consume, stream)
	if err != nil {
		return err
	}
	_, rev, err := b.loadCursor(ctx, s, name)
	if err == nil {
		c := newCommit()
		c.Put(SpaceCursors, streamKey(s, name), nil, rev)
		_, err = c.one(ctx, b.store)
	}
	if errors.Is(err, ErrNotFound) {
		return noCursor(stream, name)
	}
	return storeError(err)
}

// dropKeys removes what spaces keep for a stream that was dropped. Its handle
// is never used again: what a crash leaves behind is never seen.
func (b *Broker) dropKeys(ctx context.Context, s *stream, spaces ...Space) error {
	c := newCommit()
	for _, space := range spaces {
		err := b.store.List(ctx, space, streamKey(s, ""), func(e Entry) bool {
			c.Put(space, e.Key, nil, 0)
			return true
		})
		if err != nil {
			c.release()
			return err
		}
	}
	if len(c.Ops) == 0 {
		c.release()
		return nil
	}
	_, err := c.one(ctx, b.store)
	return err
}

// streamKey is where something of a stream is kept: under its handle, so that a
// stream made anew under an old name has none.
func streamKey(s *stream, name string) string { return fmt.Sprintf("%016x/%s", uint64(s.target), name) }

func (b *Broker) loadCursor(ctx context.Context, s *stream, name string) (c storedCursor, rev uint64, err error) {
	e, err := b.store.Get(ctx, SpaceCursors, streamKey(s, name))
	if err != nil {
		return c, 0, err
	}
	return c, e.Rev, json.Unmarshal(e.Value, &c)
}

// cursor is c for callers.
func (c *storedCursor) cursor(name string) Cursor {
	shown := Cursor{Name: name, Updated: Time(c.Updated)}
	for p, o := range c.Offsets {
		shown.Offsets = append(shown.Offsets, Offset{p, o})
	}
	slices.SortFunc(shown.Offsets, func(x, y Offset) int { return cmp.Compare(x.Partition, y.Partition) })
	return shown
}

func noCursor(stream, name string) error {
	return errorf(NotFound, NoSubject, "stream %q has no cursor %q", stream, name)
}
