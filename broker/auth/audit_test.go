package auth_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"millrace/broker/auth"
)

// lines is an audit log in memory.
type lines struct {
	mu   sync.Mutex
	all  []string
	fail error
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return 0, l.fail
	}
	l.all = append(l.all, string(b))
	return len(b), nil
}

// take returns what was written since it was asked last.
func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	return all
}

// want looks for a line with all these parts.
func (l *lines) want(t testing.TB, parts ...string) {
	t.Helper()
	all := l.take()
	for _, line := range all {
		found := true
		for _, p := range parts {
			found = found && strings.Contains(line, p)
		}
		if found {
			return
		}
	}
	t.Errorf("no line with %q in %q", parts, all)
}

func audited(t testing.TB, store *memory) (*auth.Auth, *lines) {
	t.Helper()
	log := &lines{}
	return open(t, store, func(o *auth.Options) { o.Audit = log }), log
}

func TestEveryChangeIsAudited(t *testing.T) {
	ctx := auth.WithRemote(auth.WithPrincipal(t.Context(), admin), "10.0.0.9:1")
	store := &memory{}
	a, log := audited(t, store)
	var id string
	var tokens auth.Tokens
	user := func(t *testing.T) *auth.Principal {
		t.Helper()
		p, err := a.LoginPassword(ctx, "dev", right, home)
		must(t, err)
		return p
	}
	for _, c := range []struct {
		do   func() error
		want []string
	}{
		{func() error { return a.AddUser(ctx, auth.UserSpec{Username: "dev", Password: right, Superuser: true}) }, []string{"user made", "user:dev", `"reason":"superuser on"`}},
		{func() error { return a.ChangeUser(ctx, "dev", auth.UserChange{Password: new(right)}) }, []string{"user changed", "user:dev", `"reason":"password"`}},
		{func() (err error) { id, _, err = a.AddKey(ctx, auth.KeySpec{Role: "viewer"}); return err }, []string{"key made", `"reason":"role viewer"`}},
		{func() error { _, err := a.AddSecret(ctx, id, ""); return err }, []string{"key changed", "secret added"}},
		{func() error { return a.RetireSecret(ctx, id) }, []string{"key changed", "secret retired"}},
		{func() error { return a.ChangeKey(ctx, id, auth.KeyChange{Scopes: &[]string{"a"}, Disabled: new(true)}) }, []string{"key changed", "scopes, disabled on"}},
		{func() error { return a.DeleteKey(ctx, id) }, []string{"key revoked", "key:" + id}},
		{func() error { return a.SetRules(ctx, []auth.Rule{rule("deny", "all", "a", "publish")}) }, []string{"rules changed", `"count":1`}},
		{func() error { return a.RotateSigningKey(ctx) }, []string{"signing key rotated"}},
		{func() (err error) { tokens, err = a.Issue(ctx, user(t), fast); return err }, []string{`"who":"user:dev","remote":"10.0.0.1"`, `"what":"login"`}},
		{func() error { return a.RevokeRefresh(ctx, "one", tokens.Refresh) }, []string{`"who":"user:dev"`, "token family ended", "logout"}},
		{func() error { return a.RevokeUser(ctx, "dev") }, []string{"tokens revoked", "user:dev"}},
		{func() error { addKey(t, a, auth.KeySpec{Role: "administrator"}); return a.DeleteUser(ctx, "dev") }, []string{"user removed", "user:dev"}},
		{func() error {
			a.Audit(ctx, auth.Event{What: auth.Purged, Target: "queue:work", Count: 12})
			return nil
		}, []string{`"what":"purge","target":"queue:work","outcome":"done","count":12`}},
		{func() error {
			store.fail = errors.New("disk is gone")
			if err := a.SetRules(ctx, nil); !errors.Is(err, store.fail) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		}, []string{"rules changed", `"outcome":"failed"`}},
	} {
		must(t, c.do())
		if c.want[0] != `"who":"user:dev"` && !strings.HasPrefix(c.want[0], `"who"`) {
			c.want = append(c.want, `"who":"key:adm","remote":"10.0.0.9:1"`)
		}
		log.want(t, c.want...)
	}
}

func TestALineIsOneJSONObject(t *testing.T) {
	a, log := audited(t, &memory{})
	hostile := "a\r\nb\x1b[31m\u202e\xff" + strings.Repeat("ü", 300)
	a.Audit(auth.WithRemote(t.Context(), hostile), auth.Event{What: auth.QueueDeleted, Target: hostile, Err: errors.New(hostile)})
	all := log.take()
	if len(all) != 1 || strings.Count(all[0], "\n") != 1 || !strings.HasSuffix(all[0], "}\n") {
		t.Fatalf("got %q", all)
	}
	var m map[string]any
	must(t, json.Unmarshal([]byte(all[0]), &m))
	if _, err := time.Parse(time.RFC3339, m["time"].(string)); err != nil || !strings.HasSuffix(m["time"].(string), "Z") {
		t.Errorf("time %v", m["time"])
	}
	if m["who"] != "system" || m["outcome"] != "failed" {
		t.Errorf("got %v", m)
	}
	if regexp.MustCompile(`[\x00-\x1f\x{202e}]`).MatchString(strings.TrimSuffix(all[0], "\n")) || len(all[0]) > 1200 {
		t.Errorf("got %q", all[0])
	}
	for _, s := range []string{"", "plain", strings.Repeat("\xbf", 400), strings.Repeat("€", 200)} {
		if got := auth.PlainText(s); !utf8.ValidString(got) || len(s) <= 256 && utf8.ValidString(s) && got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
}

func TestLoginsAreSampledWithCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, log := audited(t, &memory{})
		addUser(t, a, "dev", right, false)
		log.take()
		for range 7 {
			if _, err := login(t, a, "dev", right); err != nil {
				t.Fatal(err)
			}
			_, _ = login(t, a, "nobody here", wrong)
		}
		first := log.take()
		if len(first) != 2 || !strings.Contains(first[0]+first[1], `"who":"user:dev"`) || strings.Contains(first[0]+first[1], "nobody here") {
			t.Errorf("at once: %q", first)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		later := log.take()
		if len(later) != 2 || !strings.Contains(later[0], `"count":6`) || !strings.Contains(later[1], `"count":6`) {
			t.Errorf("after a minute: %q", later)
		}
		<-time.After(time.Hour)
		synctest.Wait()
		if later := log.take(); len(later) != 0 {
			t.Errorf("and then: %q", later)
		}
		_, _ = login(t, a, "dev", wrong)
		_, _ = login(t, a, "dev", wrong)
		must(t, a.Close(t.Context()))
		if last := log.take(); len(last) != 2 || !strings.Contains(last[1], `"reason":"password","count":1`) {
			t.Errorf("at the end: %q", last)
		}
	})
}

func TestSamplesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, log := audited(t, &memory{})
		for i := range auth.MaxSamples + 500 {
			_, _ = a.Key(auth.WithRemote(t.Context(), fmt.Sprintf("10.0.%d.%d", i>>8, i&255)), "k", "x")
		}
		if got := len(log.take()); got != auth.MaxSamples {
			t.Errorf("%d lines at once", got)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		log.want(t, `"who":"others"`, `"count":500`)
	})
}

func TestALogThatCannotBeWrittenIsNoticedOnce(t *testing.T) {
	var out bytes.Buffer
	log := &lines{fail: errors.New("disk is full")}
	a := open(t, &memory{}, func(o *auth.Options) { o.Audit, o.Log = log, zerolog.New(&out) })
	for range 3 {
		must(t, a.SetRules(t.Context(), nil))
	}
	if got := strings.Count(out.String(), "audit log not written"); got != 1 || a.AuditLost() != 3 {
		t.Errorf("said %d times, %d lost", got, a.AuditLost())
	}
}
