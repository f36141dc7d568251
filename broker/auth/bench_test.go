package auth_test

import (
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
				if !a.Decide(c.p, c.act, r).Allowed {
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
