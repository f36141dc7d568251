package main

import (
	"context"
	"errors"
	"fmt"
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
	for i := len(s.steps) - 1; i >= 0; i-- {
		began := time.Now()
		err := s.steps[i].stop(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.steps[i].name, err))
		}
		s.log.Debug().Str("step", s.steps[i].name).Dur("took", time.Since(began)).Err(err).Msg("stopped")
	}
	s.steps = nil
	return errors.Join(errs...)
}
