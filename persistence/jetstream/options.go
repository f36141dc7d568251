package jetstream

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"millrace/broker"
)

// Sync is what the operator says, or the servers show, about their disks.
type Sync string

// The policies of a NATS server: its setting sync_interval.
const (
	SyncUnknown  Sync = "unknown"  // nobody says: answers are marked relaxed
	SyncAlways   Sync = "always"   // every write is synced before it is answered
	SyncInterval Sync = "interval" // a power cut may take what was answered
)

// Options of a store. The zero values of all but URL are good for a cluster.
type Options struct {
	// URL names the servers, separated by commas: nats:// or tls://.
	URL string
	// Creds and NKey are files that prove who we are; at most one is given.
	Creds, NKey string
	// CA, Cert and Key are files in PEM, for TLS.
	CA, Cert, Key string
	// SysCreds is a credentials file of the system account, which shows how the
	// servers sync their disks.
	SysCreds string
	// Domain is the JetStream domain to use, where we are connected to another one.
	Domain string
	// Prefix of every stream and subject: letters, digits, _ and -; "mr" if empty.
	Prefix string
	// Replicas of every stream: 1, 3 or 5; 0 = 3 in a cluster, 1 on a lone server.
	Replicas int
	// Sync is the operator's word about the servers' disks.
	Sync Sync
	// Wait is how long Open waits for the servers; 30 s if 0.
	Wait time.Duration
	// Hold is how long the prefix stays taken when this process dies, at least
	// 1 s; 5 s if 0.
	Hold time.Duration
	// LookAhead is how many messages of a queue with FIFO groups may wait for their
	// keys while it looks for one whose key is free; 20,000 if 0, at most 100,000.
	LookAhead int
	// Node names this process to others that would use the same prefix.
	Node string
	// Shared says that nodes agree among themselves which of them holds the prefix
	// (package cluster). It is held for longer then, but who could not renew it for a
	// while writes nothing; and Open does not wait for a hold to end: it takes that of
	// revision Over, whose node is given up, or ends with ErrInUse.
	Shared bool
	Over   uint64
	// AcceptLoss gives up what streams have lost that was acknowledged. Without it a
	// queue or stream that lost something takes no messages, and Open is refused where
	// that was in a stream that all share (loss.go).
	AcceptLoss bool
	// Failed is called once, when the store takes no more work for good.
	Failed func(error)
	// Log gets what an operator should know.
	Log zerolog.Logger

	// Dial are further options of the connection, for tests.
	Dial []nats.Option
}

// Defaults and limits.
const (
	defaultPrefix = "mr"
	defaultWait   = 30 * time.Second
	defaultHold   = 5 * time.Second
	defaultAhead  = 20_000
	mostAhead     = 100_000 // the rest of maxPending is for what is leased
	reconnectWait = 250 * time.Millisecond
	reconnectMax  = 2 * time.Second
	pingInterval  = 2 * time.Second
)

// complete fills in defaults and refuses what cannot be.
func (o *Options) complete() error {
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	for _, c := range []byte(o.Prefix) {
		if !plain(c) {
			return fmt.Errorf("nats prefix %q: only letters, digits, _ and - can stand in it; name another with --nats-prefix", o.Prefix)
		}
	}
	switch o.Replicas {
	case 0, 1, 3, 5:
	default:
		return fmt.Errorf("nats replicas %d: 1, 3 or 5 copies of a stream are possible; take one of them with --nats-replicas", o.Replicas)
	}
	switch o.Sync {
	case "":
		o.Sync = SyncUnknown
	case SyncUnknown, SyncAlways, SyncInterval:
	default:
		return fmt.Errorf("nats sync %q: it is always or interval, as the servers are configured; take one of them with --nats-sync", o.Sync)
	}
	for _, c := range []byte(o.Domain) {
		if !plain(c) {
			return fmt.Errorf("nats domain %q: only letters, digits, _ and - can stand in it; name it with --nats-domain as the servers do", o.Domain)
		}
	}
	if o.Creds != "" && o.NKey != "" {
		return fmt.Errorf("nats credentials %q and nkey %q are both given, and either says who we are: give one alone, --nats-creds or --nats-nkey", o.Creds, o.NKey)
	}
	if (o.Cert == "") != (o.Key == "") {
		return fmt.Errorf("nats certificate %q and key %q belong together, and one of them is not given: give both, --nats-tls-cert and --nats-tls-key, or neither", o.Cert, o.Key)
	}
	if o.Wait == 0 {
		o.Wait = defaultWait
	}
	if o.Hold == 0 {
		o.Hold = defaultHold
	}
	if o.LookAhead == 0 {
		o.LookAhead = defaultAhead
	}
	if o.LookAhead < 1 || o.LookAhead > mostAhead {
		return fmt.Errorf("looking %d messages ahead for a free key is not possible: take 1 to %d (nats.look_ahead)", o.LookAhead, mostAhead)
	}
	if o.Hold < time.Second {
		return fmt.Errorf("a hold of %s is shorter than NATS can count: take at least 1s", o.Hold)
	}
	return nil
}

// durability is what a positive answer means.
func (o *Options) durability() broker.Durability {
	if o.Sync == SyncAlways {
		return broker.DurabilityDisk
	}
	return broker.DurabilityRelaxed
}

// api begins the subjects of the JetStream API.
func (o *Options) api() string {
	if o.Domain != "" {
		return "$JS." + o.Domain + ".API."
	}
	return "$JS.API."
}

// dial returns the options of a connection that shows these credentials, after
// it has tried every file. The files are read again at each reconnect.
func (o *Options) dial(creds string) (nats.Options, error) {
	all := nats.GetDefaultOptions()
	for u := range strings.SplitSeq(o.URL, ",") {
		all.Servers = append(all.Servers, strings.TrimSpace(u))
	}
	opts := []nats.Option{
		nats.Name("millrace " + o.Node),
		nats.ReconnectBufSize(-1), // a publish of before a cut must not be sent after it
		nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(reconnectMax, reconnectMax),
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(2),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { o.Log.Warn().Err(err).Msg("nats") }),
	}
	if creds != "" {
		if _, err := os.ReadFile(creds); err != nil {
			return all, fmt.Errorf("nats credentials: %w; name a file that we may read with --nats-creds or --nats-sys-creds", err)
		}
		opts = append(opts, nats.UserCredentials(creds))
	}
	if o.NKey != "" && creds == "" {
		key, err := nats.NkeyOptionFromSeed(o.NKey)
		if err != nil {
			return all, fmt.Errorf("nkey %s: %w; name a file of a seed with --nats-nkey, as nsc or nk writes it", o.NKey, err)
		}
		opts = append(opts, key)
	}
	if err := o.secure(&all); err != nil {
		return all, fmt.Errorf("%w; name files in PEM with --nats-tls-ca, or with --nats-tls-cert and --nats-tls-key", err)
	}
	for _, set := range append(opts, o.Dial...) {
		if err := set(&all); err != nil {
			return all, err
		}
	}
	if creds == "" {
		return all, nil
	}
	// A connection would try a file without them again and again.
	_, jwt := all.UserJWT()
	_, seed := all.SignatureCB(nil)
	if err := errors.Join(jwt, seed); err != nil {
		return all, fmt.Errorf("nats credentials %s: %w; name a file as nsc generate creds writes it", creds, err)
	}
	return all, nil
}

// secure sets the files of TLS.
func (o *Options) secure(all *nats.Options) error {
	if o.CA != "" {
		if err := nats.RootCAs(o.CA)(all); err != nil {
			return err
		}
	}
	if o.Cert != "" {
		return nats.ClientCert(o.Cert, o.Key)(all)
	}
	return nil
}
