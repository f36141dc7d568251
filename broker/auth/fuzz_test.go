package auth_test

import (
	"strings"
	"testing"

	"millrace/broker/auth"
)

func FuzzBearer(f *testing.F) {
	a := open(f, &memory{})
	const id, secret = "kB3x", "sixteen.chars.and"
	addKey(f, a, auth.KeySpec{ID: id, Secret: secret})
	for _, s := range []string{"", ".", id, id + ".", id + "." + secret, id + ".." + secret, "." + id + "." + secret, strings.Repeat("x", 300) + ".y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		p, err := a.Bearer(t.Context(), token)
		if want := token == id+"."+secret; (err == nil) != want || (p != nil) != want {
			t.Errorf("%q: got %v, %v", token, p, err)
		}
	})
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"#", "+/a/#", "a/+/b", "%c/%u", "queue:*a*", "stream:t/n/x", "$share/g/a", "$SYS/#", "a/#/b", "", "//", "queue:"} {
		f.Add(s, "a/b", "c1")
	}
	a := open(f, &memory{})
	f.Fuzz(func(t *testing.T, filter, name, client string) {
		kind, text, reason := auth.ReadPattern(filter)
		err := a.SetRules(t.Context(), []auth.Rule{rule("allow", "all", filter, "publish", "subscribe")})
		if (reason == "") != (err == nil) {
			t.Fatalf("%q: %q and %v", filter, reason, err)
		}
		p := &auth.Principal{Kind: auth.User, Name: "u", ClientID: client}
		for _, r := range []auth.Resource{topic(name), queue(name), stream(name)} {
			d := a.Decide(p, auth.Publish, r)
			if err == nil && d.Allowed && r.Kind != kind {
				t.Fatalf("%q allows %v", filter, r)
			}
			a.Decide(p, auth.Subscribe, r)
		}
		if err == nil && kind == auth.Topic && !strings.Contains(text, "%") && name != "" {
			if auth.Match(text, name) && !auth.Overlaps(text, name) && !strings.ContainsAny(name, "+#") {
				t.Fatalf("%q matches %q and does not overlap it", text, name)
			}
			if !auth.Covers(text, text) || !auth.Overlaps(text, text) {
				t.Fatalf("%q does not cover itself", text)
			}
		}
	})
}

func FuzzPHC(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=0,t=0,p=0$$")
	f.Fuzz(func(_ *testing.T, s string) { _ = auth.ReadPHC(s) })
}

func FuzzToken(f *testing.F) {
	c := newClock()
	a := withUser(f, &memory{}, at(c))
	tokens := issued(f, a, "dev", fast)
	fg := newForger(f, a, c.Now())
	for _, s := range []string{
		"", "..", "e30.e30.", tokens.Access, tokens.Refresh, tokens.Access + "=", fg.signed("+sub", `"root"`), fg.signed("exp", "1e400"),
		fg.header(map[string]any{"crit": []string{"exp"}}, "{}"), strings.Repeat("A", 4096) + "..", strings.Replace(tokens.Access, ".", "\n.", 1),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		p, err := a.Access(t.Context(), "one", token)
		if good := token == tokens.Access || token == fg.tokens.Access; (err == nil) != good || (p != nil) != good {
			t.Errorf("%q: got %v, %v", token, p, err)
		}
		if token != tokens.Refresh && token != fg.tokens.Refresh {
			if _, err := a.Refresh(t.Context(), "one", token); err == nil {
				t.Errorf("%q: refreshed", token)
			}
		}
		_, _ = a.BearerOrAccess(t.Context(), "one", token)
	})
}
