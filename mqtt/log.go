package mqtt

import (
	"context"
	"log/slog"
	"runtime/debug"
	"strings"

	"github.com/rs/zerolog"
)

// maxLogged bounds every text from a client that reaches the log.
const maxLogged = 256

// clip makes text from a client fit for the log; zerolog escapes it.
func clip(s string) string {
	if len(s) > maxLogged {
		return strings.ToValidUTF8(s[:maxLogged], "") + "..."
	}
	return s
}

// stack is the stack of a panic: function names and lines, no packet bytes.
func stack() string { return string(debug.Stack()) }

// quiet is mochi's logger: its warnings become ours, at Debug, without any
// attribute that could hold a packet. mochi logs whole packets at Warn, among
// them the password of a second CONNECT.
type quiet struct{ log zerolog.Logger }

func newSlog(log zerolog.Logger) *slog.Logger { return slog.New(quiet{log}) }

// Enabled keeps mochi from building what would be thrown away.
func (q quiet) Enabled(_ context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.log.GetLevel() <= zerolog.DebugLevel
}

// Handle writes the message and the error, and nothing else.
func (q quiet) Handle(_ context.Context, r slog.Record) error {
	log := q.log.With()
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "error", "client", "listener":
			log = log.Str(a.Key, clip(a.Value.String()))
		}
		return true
	})
	l := log.Logger()
	l.Debug().Msg(clip(r.Message))
	return nil
}

// WithAttrs and WithGroup drop what they are given.
func (q quiet) WithAttrs([]slog.Attr) slog.Handler { return q }
func (q quiet) WithGroup(string) slog.Handler      { return q }
