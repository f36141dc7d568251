package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/argon2"
)

const (
	hashRuns    = 2     // at once; each takes 19 MiB
	hashWaiting = 1_024 // further ones before ErrBusy
	saltBytes   = 16
	hashBytes   = 32
)

// cost is what one argon2id run takes.
type cost struct {
	memory  uint32 // KiB
	time    uint32
	threads uint8
}

// standardCost is OWASP's minimum for argon2id.
var standardCost = cost{memory: 19 * 1024, time: 2, threads: 1}

// below reports whether c is less work than other.
func (c cost) below(other cost) bool {
	return uint64(c.memory)*uint64(c.time) < uint64(other.memory)*uint64(other.time)
}

// phc is a hashed password in the PHC string format.
type phc struct {
	cost
	salt, hash []byte
}

func (h phc) String() string {
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.threads, b64(h.salt), b64(h.hash))
}

var errPHC = errors.New("password is not an argon2id PHC string")

func parsePHC(s string) (phc, error) {
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return phc{}, errPHC
	}
	var h phc
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads); err != nil {
		return phc{}, errPHC
	}
	var saltErr, hashErr error
	h.salt, saltErr = base64.RawStdEncoding.DecodeString(parts[4])
	h.hash, hashErr = base64.RawStdEncoding.DecodeString(parts[5])
	if saltErr != nil || hashErr != nil || len(h.salt) < 8 || len(h.hash) < 16 ||
		h.memory == 0 || h.memory > 1<<20 || h.time == 0 || h.time > 64 || h.threads == 0 {
		return phc{}, errPHC
	}
	return h, nil
}

// Hashes counts the passwords that were hashed since the start.
func (a *Auth) Hashes() uint64 { return a.hasher.runs.Load() }

// matches runs argon2id over password, also over one too long to be right.
func (h phc) matches(password string) bool {
	tooLong := len(password) > maxPasswordBytes
	if tooLong {
		password = password[:maxPasswordBytes]
	}
	got := argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.threads, uint32(len(h.hash)))
	return subtle.ConstantTimeCompare(got, h.hash) == 1 && !tooLong
}

// fingerprint stands for a name and password in memory. Its key is made anew
// at each start and never leaves the process.
type fingerprint [sha256.Size]byte

func (f fingerprint) equal(other fingerprint) bool {
	return subtle.ConstantTimeCompare(f[:], other[:]) == 1
}

// flightKey names a check that several attempts may share.
type flightKey struct {
	fingerprint fingerprint
	user        *user
}

type flight struct {
	done  chan struct{}
	right bool
	err   error
}

// hasher runs argon2id, few at a time.
type hasher struct {
	cost    cost
	secret  [32]byte
	nobody  phc // what passwords of unknown users are compared with
	slots   chan struct{}
	waiting atomic.Int64
	runs    atomic.Uint64

	mu      sync.Mutex
	flights map[flightKey]*flight
}

func newHasher(c cost) *hasher {
	h := &hasher{cost: c, slots: make(chan struct{}, hashRuns), flights: make(map[flightKey]*flight)}
	h.nobody = phc{cost: c, salt: make([]byte, saltBytes), hash: make([]byte, hashBytes)}
	_, _ = rand.Read(h.secret[:]) // never fails, it ends the process instead
	_, _ = rand.Read(h.nobody.salt)
	_, _ = rand.Read(h.nobody.hash)
	return h
}

// slot waits for a run. It refuses with ErrBusy when too many wait already.
func (h *hasher) slot(ctx context.Context) (release func(), err error) {
	release = func() { <-h.slots }
	select {
	case h.slots <- struct{}{}:
		return release, nil
	default:
	}
	if h.waiting.Add(1) > hashWaiting {
		h.waiting.Add(-1)
		return nil, ErrBusy
	}
	defer h.waiting.Add(-1)
	select {
	case h.slots <- struct{}{}:
		return release, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// hash returns the PHC string of a new password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	release, err := h.slot(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	h.runs.Add(1)
	password = normal(password)
	p := phc{cost: h.cost, salt: make([]byte, saltBytes)}
	_, _ = rand.Read(p.salt)
	p.hash = argon2.IDKey([]byte(password), p.salt, p.time, p.memory, p.threads, hashBytes)
	return p.String(), nil
}

// pretend does the work of a check whose answer is no.
func (h *hasher) pretend(password string) { h.nobody.matches(password) }

func (h *hasher) fingerprint(name, password string) fingerprint {
	m := hmac.New(sha256.New, h.secret[:])
	m.Write(binary.BigEndian.AppendUint64(nil, uint64(len(name))))
	m.Write([]byte(name))
	m.Write([]byte(password))
	return fingerprint(m.Sum(nil))
}

// share runs check once for all who ask the same at the same time. mine tells
// the one who ran it.
func (h *hasher) share(ctx context.Context, k flightKey, check func() (bool, error)) (right, mine bool, err error) {
	h.mu.Lock()
	if f := h.flights[k]; f != nil {
		h.mu.Unlock()
		select {
		case <-f.done:
			return f.right, false, f.err
		case <-ctx.Done():
			return false, false, ctx.Err()
		}
	}
	f := &flight{done: make(chan struct{})}
	h.flights[k] = f
	h.mu.Unlock()

	defer func() {
		h.mu.Lock()
		delete(h.flights, k)
		h.mu.Unlock()
		close(f.done)
	}()
	f.right, f.err = check()
	return f.right, true, f.err
}
