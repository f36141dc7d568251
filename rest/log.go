package rest

import (
	"log" //nolint:depguard // http.Server reports the faults of connections to a log.Logger only

	"github.com/rs/zerolog"

	"millrace/rest/internal/httpx"
)

// errorLog passes on what net/http says about single connections: bad TLS
// handshakes, broken requests. Clients cause it, so it is no more than debug.
func errorLog(to zerolog.Logger, listener string) *log.Logger {
	return log.New(connectionLog{to.With().Str("listener", listener).Logger()}, "", 0)
}

type connectionLog struct{ to zerolog.Logger }

// Write takes one line.
func (l connectionLog) Write(line []byte) (int, error) {
	l.to.Debug().Str("what", httpx.Clip(string(line))).Msg("connection failed")
	return len(line), nil
}
