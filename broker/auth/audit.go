package auth

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// What the audit log tells of.
const (
	LoggedIn      = "login"        // sampled
	LoginFailed   = "login failed" // sampled; also keys and tokens
	UserMade      = "user made"
	UserChanged   = "user changed"
	UserRemoved   = "user removed"
	Rehashed      = "password rehashed" // at a higher price; the same password
	KeyMade       = "key made"
	KeyChanged    = "key changed"
	KeyRevoked    = "key revoked"
	RulesChanged  = "rules changed"
	TokensRevoked = "tokens revoked" // all of a user
	FamilyEnded   = "token family ended"
	SignerRotated = "signing key rotated"
	ClientBanned  = "clients banned"
	BanLifted     = "ban lifted"
	Purged        = "purge"
	QueueDeleted  = "queue deleted"
	StreamDeleted = "stream deleted"
	BackupTaken   = "backup taken"
)

const (
	doneOutcome    = "done"
	failedOutcome  = "failed"  // tried, and could not be stored
	refusedOutcome = "refused" // not let in
)

const maxAuditText = 256 // bytes of one field

// Event is something for the audit log. It must hold no secret.
type Event struct {
	What   string
	Target string // user:NAME, key:ID, queue:NAME, stream:NAME
	Reason string
	Count  int   // how many, where that is said
	Err    error // nil where it was done; its text is not written
}

// line is an event as it is written.
type line struct {
	Time    string `json:"time"` // RFC 3339, UTC, milliseconds
	Who     string `json:"who"`
	Remote  string `json:"remote,omitempty"`
	What    string `json:"what"`
	Target  string `json:"target,omitempty"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason,omitempty"`
	Count   int    `json:"count,omitempty"`
}

// Audit writes one line: the event, the time, the principal of ctx (the broker
// itself where there is none) and the address of WithRemote. It never fails; a
// line that could not be written is logged and counted.
func (a *Auth) Audit(ctx context.Context, e Event) {
	l := line{Who: "system", Remote: remoteFrom(ctx), What: e.What, Target: e.Target, Outcome: doneOutcome, Reason: e.Reason, Count: e.Count}
	if p := From(ctx); p != nil {
		l.Who = p.String()
	}
	if e.Err != nil {
		l.Outcome = failedOutcome
	}
	a.audit.write(l)
}

// failed audits a change that the store did not take, and returns err.
func (a *Auth) failed(ctx context.Context, what, target string, err error) error {
	if errors.Is(err, ErrMoved) {
		return err // it is tried again
	}
	a.Audit(ctx, Event{What: what, Target: target, Err: err})
	return err
}

// AuditLost counts the lines that could not be written.
func (a *Auth) AuditLost() uint64 { return a.audit.lost.Load() }

// audit writes lines, and samples what comes in masses.
type audit struct {
	log  zerolog.Logger
	now  func() time.Time
	lost atomic.Uint64

	mu     sync.Mutex
	out    io.Writer // nil: nobody listens
	broken bool      // the last write failed

	samples samples
}

func newAudit(out io.Writer, log zerolog.Logger, now func() time.Time) *audit {
	return &audit{out: out, log: log, now: now}
}

func (l *audit) write(e line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out == nil {
		return
	}
	e.Time = l.now().UTC().Format("2006-01-02T15:04:05.000Z07:00")
	for _, text := range []*string{&e.Who, &e.Remote, &e.What, &e.Target, &e.Reason} {
		*text = plainText(*text)
	}
	b, err := json.Marshal(e)
	if err == nil {
		_, err = l.out.Write(append(b, '\n'))
	}
	if err != nil {
		l.lost.Add(1)
		if !l.broken {
			l.log.Error().Err(err).Msg("audit log not written")
		}
	}
	l.broken = err != nil
}

// plainText bounds a text and spells out what a terminal or a reader's eye
// could take for something else.
func plainText(s string) string {
	cut := len(s) > maxAuditText
	if cut {
		s = s[:maxAuditText]
	}
	if odd := func(r rune) bool { return !unicode.IsPrint(r) }; strings.ContainsFunc(s, odd) || !utf8.ValidString(s) {
		s = strings.Map(func(r rune) rune {
			if odd(r) {
				return utf8.RuneError
			}
			return r
		}, s)
	}
	if cut {
		s += "…"
	}
	return s
}
