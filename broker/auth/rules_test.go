package auth_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"millrace/broker/auth"
)

func TestBadRulesAreRefusedWholeWithOneSentenceEach(t *testing.T) {
	a := open(t, &memory{})
	good := rule("deny", "all", "secret/#", "publish")
	setRules(t, a, good)
	bad := map[string]auth.Rule{
		"rules[1].effect: must be allow or deny":                                 rule("permit", "all", "a", "publish"),
		"rules[2].who: must be user:NAME, key:ID, client:ID, anonymous or all":   rule("allow", "user:", "a", "publish"),
		"rules[3].who: must be user:NAME, key:ID, client:ID, anonymous or all":   rule("allow", "group:x", "a", "publish"),
		"rules[4].do: must hold some of publish, subscribe, consume and manage":  rule("allow", "all", "a"),
		"rules[5].do: must hold some of publish, subscribe, consume and manage!": rule("allow", "all", "a", "view"),
		"rules[6].filter: ": rule("allow", "all", "a/#/b", "publish"),
		"rules[7].filter: ": rule("allow", "all", "a+", "publish"),
		"rules[8].filter: write the filter without $share/GROUP/, it holds for shared subscriptions too": rule("allow", "all", "$share/g/a", "subscribe"),
		"rules[9].filter: write queue:NAME":                                                      rule("allow", "all", "$q/a", "consume"),
		"rules[10].filter: a name must have 1 to 1024 bytes":                                     rule("allow", "all", "stream:", "consume"),
		"rules[11].do: consume is asked of queue:NAME and stream:NAME, topics are subscribed to": rule("allow", "all", "a", "consume"),
		"rules[12].filter: ": rule("allow", "all", "", "publish"),
		"rules[13].filter: ": rule("allow", "all", strings.Repeat("a", 1025), "publish"),
		"rules[14].filter: ": rule("allow", "all", strings.Repeat("/", 201), "publish"),
		"rules[15].filter: ": rule("allow", "all", "a\x00", "publish"),
		"rules[16].filter: write the topic without $delayed/SECONDS/, it holds for delayed messages too": rule("allow", "all", "$delayed/5/a", "publish"),
		"rules[17].filter: a name must be UTF-8 without control characters":                              rule("allow", "all", "queue:a\n", "consume"),
		"rules[18].filter: write stream:NAME":                                                            rule("allow", "all", "$stream/a", "consume"),
	}
	rules := make([]auth.Rule, len(bad)+1)
	rules[0] = good
	want := make([]string, len(bad))
	for text, r := range bad {
		var i int
		if _, err := fmt.Sscanf(text, "rules[%d]", &i); err != nil {
			t.Fatal(err)
		}
		rules[i], want[i-1] = r, strings.TrimSuffix(text, "!")
	}
	err := a.SetRules(t.Context(), rules)
	var invalid *auth.InvalidError
	if !errors.As(err, &invalid) {
		t.Fatalf("got %v, want an InvalidError", err)
	}
	got := strings.Split(err.Error(), "\n")
	if len(got) != len(want) {
		t.Fatalf("got %d lines, want %d:\n%v", len(got), len(want), err)
	}
	for i := range want { // the grammar of filters has its own words
		if got[i] != want[i] && (!strings.HasSuffix(want[i], ": ") || !strings.HasPrefix(got[i], want[i])) {
			t.Errorf("got %q, want %q", got[i], want[i])
		}
	}
	if diff := cmp.Diff([]auth.Rule{good}, a.Rules()); diff != "" {
		t.Errorf("the rules changed: %s", diff)
	}
	if err := a.SetRules(t.Context(), make([]auth.Rule, 10_001)); !errors.As(err, &invalid) || invalid.Field != "rules" {
		t.Errorf("10,001 rules give %v", err)
	}
}

func TestRulesCannotBeChangedFromOutside(t *testing.T) {
	a := open(t, &memory{})
	mine := rule("deny", "all", "a", "publish")
	setRules(t, a, mine)
	mine.Do[0] = "subscribe"
	a.Rules()[0].Do[0] = "manage"
	if diff := cmp.Diff([]auth.Rule{rule("deny", "all", "a", "publish")}, a.Rules()); diff != "" {
		t.Error(diff)
	}
}

func TestNewRulesReachPrincipalsAlreadyKnown(t *testing.T) {
	a := open(t, &memory{})
	if !a.Allow(dev, auth.Publish, topic("a")) {
		t.Fatal("not allowed to begin with")
	}
	setRules(t, a, rule("deny", "user:dev", "#", "publish"))
	if a.Allow(dev, auth.Publish, topic("a")) || a.Allow(dev, auth.Publish, topic("$other/a")) {
		t.Error("the new rule is not in force")
	}
	setRules(t, a)
	if !a.Allow(dev, auth.Publish, topic("a")) {
		t.Error("the rule is still in force")
	}
}

func TestPasswordsThatAreGuessedFirstAreRefused(t *testing.T) {
	a := open(t, &memory{})
	for password, ok := range map[string]bool{
		"1234567": false, "short": false, "": false, "\xff12345678": false,
		"password": false, "Password1": false, "12345678": false, "QWERTYUIOP": false, "jennifer": false, "administrator": false,
		"some-user": false, "Some-User": false,
		strings.Repeat("x", 257): false, strings.Repeat("ü", 256): true, "ünïcödé!": true, "x y z u v": true,
		"a\npassword\nb": true,
	} {
		err := a.AddUser(t.Context(), auth.UserSpec{Username: "some-user", Password: password})
		var invalid *auth.InvalidError
		switch {
		case ok:
			if err != nil {
				t.Errorf("%q: %v", password, err)
			}
			_ = a.DeleteUser(t.Context(), "some-user") // may not be there
		case !errors.As(err, &invalid) || invalid.Field != "password":
			t.Errorf("%q: got %v, want an invalid password", password, err)
		}
	}
}
