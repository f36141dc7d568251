package jetstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace/broker"
)

// oldest is the API level of a server that delays messages and ends single
// ones; oldestVersion is the first release that has it.
const (
	oldest        = 2
	oldestVersion = "2.12"
)

// errLeaderless is JetStream's code for a cluster that has no leader.
const errLeaderless = 10008

// Errors of Open that a caller tells apart; the text says more.
var (
	ErrUnreachable = errors.New("not reachable") // no server, or none that lets us in, in time
	ErrUnfit       = errors.New("not fit")       // the servers, or what is on them, cannot be used
	ErrInUse       = errors.New("in use")        // another node holds the prefix
)

// openError is one of them with its text.
type openError struct {
	kind error
	text error
}

func (e *openError) Error() string   { return e.text.Error() }
func (e *openError) Unwrap() []error { return []error{e.kind, e.text} }

// noRoom says what to do where err is that the servers are full: a start has to write
// a little, and there they refuse every write.
func noRoom(err error) error {
	full := errors.Is(err, broker.ErrFull)
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		full = (&apiError{ErrCode: int(api.ErrorCode)}).Is(broker.ErrFull)
	}
	if !full {
		return err
	}
	return &openError{broker.ErrFull, fmt.Errorf("the nats servers are full, and take not even the little that a start writes: %w; "+
		"raise their max_file_store, or the limits of our account, or make room there (nats stream ls, nats stream purge)", err)}
}

// connect waits for a server and returns a connection to it, as who is in creds.
func connect(ctx context.Context, o *Options, creds string) (*nats.Conn, error) {
	opts, err := o.dial(creds)
	if err != nil {
		return nil, &openError{ErrUnfit, err}
	}
	for {
		nc, err := opts.Connect()
		if err == nil {
			return nc, nil
		}
		if why := refusal(err); why != "" {
			return nil, &openError{ErrUnfit, fmt.Errorf("nats %s does not let us in: %w; %s", o.hosts(), err, why)}
		}
		select {
		case <-time.After(reconnectWait):
		case <-ctx.Done():
			return nil, &openError{ErrUnreachable, fmt.Errorf("no nats server at %s within %s: %w; "+
				"start the servers, or name others with --store; --nats-wait says how long they are waited for", o.hosts(), o.Wait, err)}
		}
	}
}

// refusal says what to do about an error that another try would not mend; it is
// empty for one of a server that is away.
func refusal(err error) string {
	_, unknown := errors.AsType[*tls.CertificateVerificationError](err)
	_, plaintext := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		strings.Contains(err.Error(), "Authorization Violation"):
		return "see the user and password in the store's URL, or the credentials (--nats-creds, --nats-nkey)"
	case unknown:
		return "name the authority that signs the servers' certificates with --nats-tls-ca, and the servers as the certificates do"
	case strings.Contains(err.Error(), "remote error: tls:"):
		return "the servers want a certificate from us that they trust: --nats-tls-cert and --nats-tls-key"
	case errors.Is(err, nats.ErrSecureConnWanted), plaintext:
		return "the servers speak no TLS: take nats:// without the options of TLS, or have them use it"
	}
	return ""
}

// hosts is URL without the passwords in it.
func (o *Options) hosts() string {
	var all []string
	for u := range strings.SplitSeq(o.URL, ",") {
		scheme, rest, ok := strings.Cut(u, "://")
		if !ok {
			scheme, rest = "nats", u
		}
		if i := strings.LastIndex(rest, "@"); i >= 0 {
			rest = rest[i+1:]
		}
		all = append(all, scheme+"://"+rest)
	}
	return strings.Join(all, ",")
}

// check is fit with its kind of error: ErrUnfit unless it says otherwise.
func check(ctx context.Context, js jetstream.JetStream, o *Options) error {
	err := fit(ctx, js, o)
	if _, ok := errors.AsType[*openError](err); ok || err == nil {
		return err
	}
	return &openError{ErrUnfit, err}
}

// fit asks the servers for what the store needs, and settles the number of
// replicas.
func fit(ctx context.Context, js jetstream.JetStream, o *Options) error {
	var info *jetstream.AccountInfo
	ask := func(ctx context.Context) (err error) {
		info, err = js.AccountInfo(ctx)
		if denied := js.Conn().LastError(); err != nil && errors.Is(denied, nats.ErrPermissionViolation) {
			return denied
		}
		return err
	}
	err := again(ctx, ask)
	for leaderless(err) && ctx.Err() == nil {
		err = again(ctx, ask)
	}
	switch {
	case o.Domain != "" && (errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, nats.ErrNoResponders)):
		return fmt.Errorf("no jetstream domain %q is known at nats %s: see --nats-domain, and the domain in the servers' configuration", o.Domain, o.hosts())
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("jetstream is off at nats %s: start its servers with -js, or in their configuration with jetstream {}", o.hosts())
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("jetstream is off for our account at nats %s: enable it in the account's settings", o.hosts())
	case errors.Is(err, nats.ErrPermissionViolation):
		return fmt.Errorf("nats %s denies us what we need: %w; permit our user to publish to %s.>, $KV.>, %s> and $JS.ACK.>, and to subscribe to _INBOX.> and %s.n.>",
			o.hosts(), err, o.Prefix, o.api(), o.Prefix)
	case err != nil:
		return &openError{ErrUnreachable, fmt.Errorf("jetstream at nats %s does not answer within %s: %w; more than half of its servers must run, and reach each other", o.hosts(), o.Wait, err)}
	}
	nc := js.Conn()
	if level := info.API.Level; level < oldest {
		return fmt.Errorf("nats server %s is version %s: %s or newer is needed, which delays messages and ends single ones; upgrade the servers",
			nc.ConnectedServerName(), nc.ConnectedServerVersion(), oldestVersion)
	}
	cluster := nc.ConnectedClusterName() != ""
	if o.Replicas == 0 {
		o.Replicas = 1
		if cluster {
			o.Replicas = 3
		}
	}
	if o.Replicas > 1 && !cluster {
		return fmt.Errorf("%d copies of each stream are wished (nats replicas), and nats %s is a lone server: take 1, or better the embedded store", o.Replicas, o.hosts())
	}
	return nil
}

// leaderless reports whether err is that of servers of which too few are there.
func leaderless(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.ErrorCode == errLeaderless
}

// checkStream compares a stream that is there already with what it must be.
func checkStream(have, want jetstream.StreamConfig) error {
	wrong := func(what string, is, must any) error {
		return &openError{ErrUnfit, fmt.Errorf("stream %s has %s %v, and must have %v: it is not ours (another nats prefix avoids it), or it was changed (nats stream edit puts it right)", want.Name, what, is, must)}
	}
	switch {
	case have.Retention != want.Retention:
		return wrong("retention", have.Retention, want.Retention)
	case have.Storage != want.Storage:
		return wrong("storage", have.Storage, want.Storage)
	case strings.Join(have.Subjects, " ") != strings.Join(want.Subjects, " "):
		return wrong("subjects", have.Subjects, want.Subjects)
	case have.Discard != want.Discard:
		return wrong("discard", have.Discard, want.Discard)
	case have.Replicas != want.Replicas:
		return wrong("replicas", strconv.Itoa(have.Replicas), strconv.Itoa(want.Replicas))
	}
	return nil
}
