package auth_test

import (
	"crypto/ed25519"
	"fmt"
	"testing"

	"millrace/broker/auth"
)

func BenchmarkDecide(b *testing.B) {
	rules := []auth.Rule{
		rule("deny", "all", "secret/#", "publish", "subscribe"),
		rule("allow", "user:dev", "devices/%c/+/up", "publish"),
		rule("allow", "user:dev", "devices/+/+/up", "publish"),
	}
	for _, c := range []struct {
		name  string
		rules []auth.Rule
		p     *auth.Principal
		act   auth.Action
	}{
		{"role", nil, dev, auth.Publish},
		{"subscribe", nil, dev, auth.Subscribe},
		{"superuser", nil, superuser, auth.Publish},
		{"scopes", nil, &auth.Principal{Kind: auth.Key, Name: "k", Scopes: []string{"a/#", "devices/+/+/up"}}, auth.Publish},
		{"rules", rules, dev, auth.Publish},
	} {
		b.Run(c.name, func(b *testing.B) {
			a := open(b, &memory{})
			setRules(b, a, c.rules...)
			r := topic("devices/d1/temperature/up")
			b.ReportAllocs()
			for b.Loop() {
				if !a.Allow(c.p, c.act, r) {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkKey(b *testing.B) {
	a := open(b, &memory{})
	for i := range 1000 {
		addKey(b, a, auth.KeySpec{ID: fmt.Sprint("k", i)})
	}
	id, secret := addKey(b, a, auth.KeySpec{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Key(b.Context(), id, secret); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRememberedLogin(b *testing.B) {
	a := open(b, &memory{})
	addUser(b, a, "dev", right, false)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := login(b, a, "dev", right); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAllowingAllocatesNothing(t *testing.T) {
	a := open(t, &memory{})
	r := topic("devices/d1/up")
	if n := testing.AllocsPerRun(100, func() { a.Decide(dev, auth.Publish, r) }); n != 0 {
		t.Errorf("a decision allocates %v times", n)
	}
}

func BenchmarkAccess(b *testing.B) {
	for _, c := range []struct {
		name string
		each func(a *auth.Auth) // before each
	}{
		{"remembered", func(*auth.Auth) {}},
		{"verified", func(a *auth.Auth) { auth.Forget(a) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			a := withUser(b, &memory{})
			tokens := issued(b, a, "dev", fast)
			b.ReportAllocs()
			for b.Loop() {
				c.each(a)
				if _, err := a.Access(b.Context(), "one", tokens.Access); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSignature is the part of a first Access that no code of ours can
// make cheaper.
func BenchmarkSignature(b *testing.B) {
	public, private, err := ed25519.GenerateKey(nil)
	must(b, err)
	text := make([]byte, 350)
	sig := ed25519.Sign(private, text)
	for b.Loop() {
		if !ed25519.Verify(public, text, sig) {
			b.Fatal("wrong")
		}
	}
}

func BenchmarkRefresh(b *testing.B) {
	a := withUser(b, &memory{})
	tokens := issued(b, a, "dev", fast)
	for b.Loop() {
		var err error
		if tokens, err = a.Refresh(b.Context(), "one", tokens.Refresh); err != nil {
			b.Fatal(err)
		}
	}
}

func TestRememberedTokensAreBoundedAndEndWithTheGeneration(t *testing.T) {
	a := withUser(t, &memory{})
	tokens := issued(t, a, "dev", fast)
	first := accepted(t, a, "one", tokens.Access)
	if accepted(t, a, "one", tokens.Access) != first {
		t.Error("the token was not remembered")
	}
	must(t, a.SetRules(t.Context(), nil))
	if accepted(t, a, "one", tokens.Access) == first {
		t.Error("the token was remembered beyond its generation")
	}
	auth.Remember(a, auth.MaxRemembered+100)
	if n := auth.Remembered(a); n != auth.MaxRemembered {
		t.Errorf("%d tokens are remembered, want %d", n, auth.MaxRemembered)
	}
	accepted(t, a, "one", tokens.Access)
}
