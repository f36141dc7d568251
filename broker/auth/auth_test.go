package auth_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"millrace/broker/auth"
)

// memory is a store that loses everything with the process.
type memory struct {
	mu   sync.Mutex
	data map[string][]byte
	revs map[string]uint64 // of data
	rev  uint64
	puts int
	fail error
	told func(key string, value []byte, rev uint64) // before a change is answered
}

func (m *memory) Entries(_ context.Context, prefix string) (map[string]auth.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]auth.Entry)
	for key, value := range m.data {
		if strings.HasPrefix(key, prefix) {
			out[key] = auth.Entry{Value: value, Rev: m.at(key)}
		}
	}
	return out, m.fail
}

// at is the revision of a key; what a test has put there itself gets one.
func (m *memory) at(key string) uint64 {
	if _, ok := m.data[key]; !ok {
		return 0
	}
	if m.revs == nil {
		m.revs = make(map[string]uint64)
	}
	if m.revs[key] == 0 {
		m.rev++
		m.revs[key] = m.rev
	}
	return m.revs[key]
}

func (m *memory) Replace(_ context.Context, key string, value []byte, at uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return 0, m.fail
	}
	if now := m.at(key); at != auth.AnyRevision && at != now {
		return 0, auth.ErrMoved
	}
	m.rev++
	if value == nil {
		delete(m.data, key)
		delete(m.revs, key)
	} else {
		if m.data == nil {
			m.data = make(map[string][]byte)
		}
		m.data[key] = bytes.Clone(value)
		m.at(key)
		m.revs[key] = m.rev
		m.puts++
	}
	if m.told != nil {
		m.told(key, value, m.rev)
	}
	return m.rev, nil
}

// open returns an Auth over store, cheap at hashing and closed at the end.
func open(t testing.TB, store *memory, change ...func(*auth.Options)) *auth.Auth {
	t.Helper()
	o := auth.Options{Store: store, AllowAnonymous: true, Log: zerolog.Nop()}
	auth.Cheap(&o)
	for _, c := range change {
		c(&o)
	}
	a, err := auth.Open(context.Background(), o)
	must(t, err)
	t.Cleanup(func() {
		if err := a.Close(context.Background()); err != nil && store.fail == nil {
			t.Error(err)
		}
	})
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addUser(t testing.TB, a *auth.Auth, name, password string, superuser bool) {
	t.Helper()
	must(t, a.AddUser(context.Background(), auth.UserSpec{Username: name, Password: password, Superuser: superuser}))
}

func addKey(t testing.TB, a *auth.Auth, s auth.KeySpec) (id, secret string) {
	t.Helper()
	id, secret, err := a.AddKey(context.Background(), s)
	must(t, err)
	return id, secret
}

func TestEverythingIsThereAfterReopening(t *testing.T) {
	ctx, store := t.Context(), &memory{}
	a := open(t, store)
	addUser(t, a, "dev", "correct horse", true)
	addUser(t, a, "gone", "correct horse", false)
	expires := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	id, secret := addKey(t, a, auth.KeySpec{Name: "billing", Role: "publisher", Scopes: []string{"bills/#", "queue:b*"}, Expires: expires})
	rules := []auth.Rule{{Effect: "deny", Who: "all", Do: []string{"publish"}, Filter: "secret/#"}}
	must(t, a.SetRules(ctx, rules))
	must(t, a.DeleteUser(ctx, "gone"))
	_, err := a.Key(ctx, id, secret)
	must(t, err)
	users, keys := a.Users(), a.Keys()
	must(t, a.Close(ctx))

	b := open(t, store)
	if diff := cmp.Diff(users, b.Users()); diff != "" {
		t.Errorf("users before and after: %s", diff)
	}
	if diff := cmp.Diff(keys, b.Keys()); diff != "" {
		t.Errorf("keys before and after: %s", diff)
	}
	if keys[0].LastUsed.IsZero() {
		t.Error("the last use of the key is not known")
	}
	if diff := cmp.Diff(rules, b.Rules()); diff != "" {
		t.Errorf("rules before and after: %s", diff)
	}
	if _, err := b.Login(ctx, "dev", "correct horse", "c", "", false); err != nil {
		t.Errorf("login after reopening: %v", err)
	}
	if _, err := b.Key(ctx, id, secret); err != nil {
		t.Errorf("key after reopening: %v", err)
	}
}

func TestOpenRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for name, record := range map[string][2]string{
		"unknown record":   {"auth/tenant/x", `{}`},
		"broken user":      {"auth/user/dev", `{"password"`},
		"foreign hash":     {"auth/user/dev", `{"password":"$2y$10$abc"}`},
		"unknown role":     {"auth/key/k", `{"secret":"` + strings.Repeat("A", 43) + `=","role":"root"}`},
		"short secret":     {"auth/key/k", `{"secret":"AAAA","role":"client"}`},
		"unreadable scope": {"auth/key/k", `{"secret":"` + strings.Repeat("A", 43) + `=","role":"client","scopes":["a/#/b"]}`},
		"unreadable rule":  {"auth/rules", `[{"effect":"permit"}]`},
		"unknown place":    {"auth/rules", `[{"effect":"deny","who":"all","do":["publish"],"filter":"a","place":5}]`},
		"broken login":     {"auth/login/x", `{"user":`},
		"nobody's login":   {"auth/login/x", `{"audience":["a"],"ends":"2030-01-01T00:00:00Z"}`},
		"hash of a login":  {"auth/login/x", `{"user":"u","audience":["a"],"ends":"2030-01-01T00:00:00Z","idle":1,"current":"AAAA"}`},
		"broken signers":   {"auth/signers", `{}`},
		"no private key":   {"auth/signers", `[{"id":"k","public":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]`},
		"no pair of keys":  {"auth/signers", `[{"id":"k","public":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","seed":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]`},
		"second secret":    {"auth/key/k", `{"secret":"` + strings.Repeat("A", 43) + `=","second":"AAAA","role":"client"}`},
		"broken last use":  {"auth/last-use", `[]`},
	} {
		t.Run(name, func(t *testing.T) {
			store := &memory{data: map[string][]byte{record[0]: []byte(record[1])}}
			if _, err := auth.Open(t.Context(), auth.Options{Store: store}); err == nil || !strings.Contains(err.Error(), record[0]) {
				t.Errorf("got %v, want an error that names %s", err, record[0])
			}
		})
	}
	if _, err := auth.Open(t.Context(), auth.Options{}); err == nil {
		t.Error("opened without a store")
	}
}

func TestAChangeThatCannotBeStoredIsNotInForce(t *testing.T) {
	ctx, store := t.Context(), &memory{}
	a := open(t, store)
	id, secret := addKey(t, a, auth.KeySpec{})
	before := a.Generation()
	store.fail = errors.New("disk is gone")

	rule := auth.Rule{Effect: "deny", Who: "all", Do: []string{"publish"}, Filter: "#"}
	_, _, keyErr := a.AddKey(ctx, auth.KeySpec{ID: "other"})
	for what, err := range map[string]error{
		"user":       a.AddUser(ctx, auth.UserSpec{Username: "dev", Password: "correct horse"}),
		"key":        keyErr,
		"rules":      a.SetRules(ctx, []auth.Rule{rule}),
		"delete key": a.DeleteKey(ctx, id),
	} {
		if !errors.Is(err, store.fail) {
			t.Errorf("%s: got %v, want the store's error", what, err)
		}
	}
	if _, err := a.Key(ctx, id, secret); err != nil || len(a.Users()) != 0 || len(a.Rules()) != 0 || len(a.Keys()) != 1 {
		t.Error("memory and disk have parted")
	}
	if a.Generation() != before {
		t.Error("the generation grew though nothing changed")
	}
}

func TestEachChangeMakesANewGeneration(t *testing.T) {
	ctx := t.Context()
	a := open(t, &memory{})
	last := a.Generation()
	for name, change := range map[string]func() error{
		"user":   func() error { return a.AddUser(ctx, auth.UserSpec{Username: "u", Password: "correct horse"}) },
		"key":    func() error { _, _, err := a.AddKey(ctx, auth.KeySpec{}); return err },
		"rules":  func() error { return a.SetRules(ctx, nil) },
		"delete": func() error { id, _ := addKey(t, a, auth.KeySpec{}); return a.DeleteKey(ctx, id) },
	} {
		must(t, change())
		if now := a.Generation(); now <= last {
			t.Errorf("%s: generation %d after %d", name, now, last)
		} else {
			last = now
		}
	}
}

func TestClosedRefusesChangesAndStillAnswers(t *testing.T) {
	ctx := t.Context()
	a := open(t, &memory{})
	id, secret := addKey(t, a, auth.KeySpec{})
	must(t, a.Close(ctx))
	must(t, a.Close(ctx))
	if err := a.SetRules(ctx, nil); !errors.Is(err, auth.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if _, err := a.Key(ctx, id, secret); err != nil {
		t.Error(err)
	}
}

func TestAChangeCanBeGivenUpWhileItWaits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := open(t, &memory{})
	release := auth.HoldHashing(t, a)
	defer release()
	if err := a.AddUser(ctx, auth.UserSpec{Username: "u", Password: "correct horse"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestNoSecretIsEverShown(t *testing.T) {
	const word, secret = "hunter2hunter2", "s3cr3t-s3cr3t-s3cr3t"
	var log bytes.Buffer
	ctx := t.Context()
	a := open(t, &memory{}, func(o *auth.Options) { o.Log = zerolog.New(&log) })
	addUser(t, a, "dev", word, false)
	addKey(t, a, auth.KeySpec{ID: "k", Secret: secret})
	shown := []string{
		auth.UserSpec{Username: "u", Password: word}.String(), auth.KeySpec{ID: "k", Secret: secret}.String(),
		auth.UserSpec{Username: "u", Password: word}.GoString(), auth.KeySpec{ID: "k", Secret: secret}.GoString(),
	}
	note := func(err error) {
		if err == nil {
			t.Error("want an error")
			return
		}
		shown = append(shown, err.Error())
	}
	note(a.AddUser(ctx, auth.UserSpec{Username: word, Password: word}))
	note(a.AddUser(ctx, auth.UserSpec{Username: "dev", Password: word}))
	note(a.UpdateUser(ctx, auth.UserSpec{Username: "who", Password: word}))
	for _, s := range []auth.KeySpec{{ID: "k", Secret: secret}, {ID: "no.dots", Secret: secret}, {ID: "x", Secret: secret + "\n"}, {Secret: secret, Role: secret}} {
		_, _, err := a.AddKey(ctx, s)
		note(err)
	}
	_, err := a.Bearer(ctx, "k."+secret+"x")
	note(err)
	_, err = a.Login(ctx, "dev", word+"x", "c", "10.0.0.1:5", false)
	note(err)
	for _, s := range append(shown, log.String()) {
		if strings.Contains(s, word) || strings.Contains(s, secret) {
			t.Errorf("a secret is shown in %q", s)
		}
	}
}
