package httpx

import (
	"bytes"
	"fmt"

	"millrace/broker"
)

// syntax reports text that is not JSON, or not JSON that we take.
func (d *Decoder) syntax(what string) error {
	return &broker.Error{
		Kind:    broker.Invalid,
		Message: fmt.Sprintf("the body is not valid JSON: it %s (at byte %d)", what, d.pos),
	}
}

// Wrong is the error of a next value that is not what was wanted.
func (d *Decoder) Wrong(want string) error {
	if len(d.data) == 0 {
		return &broker.Error{Kind: broker.Invalid, Message: "the body is empty, a JSON value is expected"}
	}
	if bytes.HasPrefix(d.data, []byte("\xef\xbb\xbf")) {
		return d.syntax("begins with a byte order mark")
	}
	switch d.Peek() {
	case '{':
		return problem("must be %s, not an object", want)
	case '[':
		return problem("must be %s, not an array", want)
	case '"':
		return problem("must be %s, not a string", want)
	case '0':
		return problem("must be %s, not a number", want)
	case 't':
		return problem("must be %s, not true or false", want)
	case 'n':
		return problem("must be %s, not null", want)
	}
	return d.syntax("has no value where one is expected")
}

// Problem is the error of the value that is being read; Object and Array put its name before the text.
func Problem(format string, args ...any) error {
	return problem(format, args...)
}

func problem(format string, args ...any) *broker.Error {
	return &broker.Error{Kind: broker.Invalid, Subject: broker.FieldSubject, Message: fmt.Sprintf(format, args...)}
}

// within puts name before the field that err is about.
func within(name string, err error) error {
	e, ok := err.(*broker.Error) //nolint:errorlint // only our own, just made, is rewritten
	if !ok || e.Subject != broker.FieldSubject {
		return err
	}
	switch {
	case e.Field == "":
		e.Field, e.Message = name, name+" "+e.Message
	case e.Field[0] == '[':
		e.Field, e.Message = name+e.Field, name+e.Message
	default:
		e.Field, e.Message = name+"."+e.Field, name+"."+e.Message
	}
	return e
}

// atRoot gives an error about the whole body its subject.
func atRoot(err error) error {
	e, ok := err.(*broker.Error) //nolint:errorlint // as in within
	if ok && e.Subject == broker.FieldSubject && e.Field == "" {
		e.Subject, e.Message = broker.NoSubject, "the body "+e.Message
	}
	return err
}

// FieldError is the error of a member or a query parameter whose value cannot
// be; the text goes on after its name.
func FieldError(field, format string, args ...any) error {
	return within(field, problem(format, args...))
}
