package auth

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrUnauthenticated answers every wrong credential alike, so that nobody
	// learns which part was wrong.
	ErrUnauthenticated = errors.New("wrong credentials")
	// ErrExists refuses to add what is already there.
	ErrExists = errors.New("exists already")
	// ErrNotFound is said of a user or key that is not there.
	ErrNotFound = errors.New("not found")
	// ErrBusy refuses a password check because too many are waiting.
	ErrBusy = errors.New("too many password checks are waiting")
	// ErrClosed refuses changes after Close.
	ErrClosed = errors.New("auth is closed")
	// ErrLastAdministrator refuses a change that would leave nobody to
	// administer the broker.
	ErrLastAdministrator = errors.New("this is the last administrator")
	// ErrExpired answers a token that was good until its time was over. It
	// counts as ErrUnauthenticated for callers who do not care.
	ErrExpired error = expiredError{}
)

type expiredError struct{}

func (expiredError) Error() string { return "the token has expired" }

// Is makes errors.Is(err, ErrUnauthenticated) true.
func (expiredError) Is(target error) bool { return target == ErrUnauthenticated }

// LimitError refuses to keep more of something than the configuration allows.
type LimitError struct {
	What string // users, keys, secrets, logins
	Max  int
}

func (e *LimitError) Error() string { return fmt.Sprintf("%s: there may be at most %d", e.What, e.Max) }

// InvalidError says what is wrong with one input, never its value.
type InvalidError struct {
	Field  string
	Reason string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Reason }

// DelayedError refuses a password attempt because too many before it were
// wrong. It counts as ErrUnauthenticated for callers who do not care.
type DelayedError struct {
	Retry time.Duration // when the next attempt will be looked at
}

func (e *DelayedError) Error() string {
	return fmt.Sprintf("too many wrong passwords, try again in %s", e.Retry.Round(time.Second))
}

// Is makes errors.Is(err, ErrUnauthenticated) true.
func (e *DelayedError) Is(target error) bool { return target == ErrUnauthenticated }
