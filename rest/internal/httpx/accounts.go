package httpx

import (
	"errors"

	"millrace/broker"
	"millrace/broker/auth"
)

// What an error of AccountError can be about, besides a field.
const (
	AccountSubject       broker.Subject = "account" // a user, a key or a secret
	AdministratorSubject broker.Subject = "administrator"
)

// AccountError gives the errors of auth about the account, as in "user ann",
// the kind and the words that dialects answer. The cause stays inside, for
// dialects that say more about it: a wait, a list of fields.
func AccountError(err error, account string) error {
	if err == nil {
		return nil
	}
	e := &broker.Error{Err: err}
	switch {
	case errors.Is(err, auth.ErrBusy):
		e.Kind, e.Message = broker.Unavailable, "too many logins at once, try again"
	case errors.Is(err, auth.ErrClosed):
		e.Kind, e.Message = broker.Unavailable, "the broker is shutting down; nothing was stored, try again"
	case errors.Is(err, auth.ErrExists):
		e.Kind, e.Subject, e.Message = broker.Conflict, AccountSubject, account+" exists already"
	case errors.Is(err, auth.ErrNotFound):
		e.Kind, e.Subject, e.Message = broker.NotFound, AccountSubject, account+" does not exist"
	case errors.Is(err, auth.ErrLastAdministrator):
		e.Kind, e.Subject, e.Message = broker.Conflict, AdministratorSubject, account+" is the last administrator: make another one first"
	case errors.Is(err, auth.ErrExpired):
		e.Kind, e.Message = broker.Unauthenticated, "the token has expired"
	default:
		return byType(e)
	}
	return e
}

// byType is AccountError for errors that carry values.
func byType(e *broker.Error) error {
	if _, ok := errors.AsType[*auth.DelayedError](e.Err); ok { // is ErrUnauthenticated too
		e.Kind, e.Message = broker.Full, "too many wrong passwords, wait and try again"
		return e
	}
	if errors.Is(e.Err, auth.ErrUnauthenticated) {
		e.Kind, e.Message = broker.Unauthenticated, "the credentials are unknown or wrong"
		return e
	}
	if limit, ok := errors.AsType[*auth.LimitError](e.Err); ok {
		e.Kind, e.Subject, e.Message = broker.Full, broker.LimitSubject, limit.Error()
		return e
	}
	if invalid, ok := errors.AsType[*auth.InvalidError](e.Err); ok {
		e.Kind, e.Subject, e.Field = broker.Invalid, broker.FieldSubject, invalid.Field
		e.Message = invalid.Field + ": " + invalid.Reason
		return e
	}
	return e.Err
}

// InvalidFields lists what is wrong with which field, of an error that joins
// several: the first most of them.
func InvalidFields(err error, most int) map[string]string {
	fields := map[string]string{}
	var collect func(error)
	collect = func(err error) {
		switch e := err.(type) { //nolint:errorlint // it walks the tree itself
		case *auth.InvalidError:
			if len(fields) < most {
				fields[e.Field] = e.Reason
			}
		case interface{ Unwrap() error }:
			collect(e.Unwrap())
		case interface{ Unwrap() []error }:
			for _, part := range e.Unwrap() {
				collect(part)
			}
		}
	}
	collect(err)
	return fields
}
