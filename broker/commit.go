package broker

import (
	"context"
	"sync"
)

// commit is a Batch whose submitter waits for it.
type commit struct {
	Batch
	done chan struct{}
}

var commits = sync.Pool{New: func() any { return new(commit) }}

// newCommit returns an empty commit. Release it after the results were read.
func newCommit() *commit {
	c := commits.Get().(*commit)
	// Never pooled: a channel belongs to the bubble of fake time it was made in.
	c.done = make(chan struct{}, 1)
	return c
}

// Done implements Completion.
func (c *commit) Done(*Batch) { c.done <- struct{}{} }

// submit hands the batch over and waits. When ctx ends first the batch is left
// to the store, must not be touched again, and the outcome is unknown.
func (c *commit) submit(ctx context.Context, s Store) error {
	s.Submit(&c.Batch, Durable, c)
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ErrUnknown
	}
}

// store submits a batch of one unit, waits for its outcome and words it.
func (c *commit) store(ctx context.Context, s Store, l Level) error {
	c.hand(s, l)
	return c.outcome(ctx)
}

// hand submits a batch of one unit, whose outcome has to be waited for.
func (c *commit) hand(s Store, l Level) {
	c.End()
	s.Submit(&c.Batch, l, c)
}

// outcome waits for the outcome of what was handed over, and words it.
func (c *commit) outcome(ctx context.Context) error {
	select {
	case <-c.done:
	case <-ctx.Done():
		return storeError(ErrUnknown)
	}
	err := c.Units[0].Result.Err
	c.release()
	return storeError(err)
}

// release gives the commit back to the pool.
func (c *commit) release() {
	c.Reset()
	commits.Put(c)
}

// one submits a batch of one unit and returns its result.
func (c *commit) one(ctx context.Context, s Store) (Result, error) {
	c.End()
	if err := c.submit(ctx, s); err != nil {
		return Result{}, err
	}
	r := c.Units[0].Result
	c.release()
	return r, r.Err
}
