package main

import (
	"io"
	"time"

	"github.com/rs/zerolog"

	"millrace/cmd/millrace/config"
)

// newLogger writes JSON lines, or text for a person on a terminal. The level is
// the process's, so that SIGHUP can change it for every logger at once.
func newLogger(w io.Writer, c config.Log) zerolog.Logger {
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	zerolog.TimestampFunc = func() time.Time { return time.Now().UTC() }
	zerolog.MessageFieldName = "msg"
	zerolog.ErrorFieldName = "err"
	if c.Format == "console" || c.Format == "auto" && terminal(w) {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !terminal(w)}
	}
	setLevel(c.Level)
	return zerolog.New(logLines{w}).With().Timestamp().Logger()
}

// setLevel takes a level that was validated.
func setLevel(level string) {
	l, err := zerolog.ParseLevel(level)
	if err != nil {
		l = zerolog.InfoLevel
	}
	zerolog.SetGlobalLevel(l)
}
