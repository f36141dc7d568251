package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

// stack holds what has been started. A start that fails half-way and a stop use
// the same one.
type stack struct {
	log   zerolog.Logger
	steps []step
}

type step struct {
	name string
	stop func(context.Context) error
}

// push registers the end of something that was just started.
func (s *stack) push(name string, stop func(context.Context) error) {
	s.steps = append(s.steps, step{name, stop})
}

// unwind ends everything, the newest first, under the one deadline of ctx.
// Every step runs, also after one that failed; their errors are joined.
func (s *stack) unwind(ctx context.Context) error {
	var errs []error
	for _, step := range slices.Backward(s.steps) {
		began := time.Now()
		err := step.stop(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", step.name, err))
		}
		s.log.Debug().Str("step", step.name).Dur("took", time.Since(began)).Err(err).Msg("stopped")
	}
	s.steps = nil
	return errors.Join(errs...)
}
