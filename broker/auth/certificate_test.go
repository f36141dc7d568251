package auth_test

import (
	"errors"
	"testing"

	"millrace/broker/auth"
)

func TestACertificateIsTheUserItNames(t *testing.T) { // X174
	a := open(t, &memory{})
	addUser(t, a, "pump7", right, false)
	addUser(t, a, "gone", right, false)
	off := true
	must(t, a.ChangeUser(t.Context(), "gone", auth.UserChange{Disabled: &off}))
	addKey(t, a, auth.KeySpec{ID: "kB3x", Secret: "sixteen-characters"})
	must(t, a.SetRules(t.Context(), []auth.Rule{{Effect: "allow", Who: "user:pump7", Do: []string{"publish"}, Filter: "pump/%u/%c"}}))
	for _, row := range []struct {
		name, user string
		want       error
	}{
		{"pump7", "", nil},
		{"pump7", "pump7", nil},
		{"pump7", "gone", auth.ErrOtherIdentity},
		{"pump7", "kB3x", auth.ErrOtherIdentity},
		{"gone", "", auth.ErrUnauthenticated},
		{"nobody", "", auth.ErrUnauthenticated},
		{"kB3x", "", auth.ErrUnauthenticated}, // a key is not a user
	} {
		before := a.Refusals()["certificate"]
		p, err := a.LoginCertificate(row.name, row.user, "c", home)
		if !errors.Is(err, row.want) || (err == nil) != (row.want == nil) {
			t.Errorf("%s as %q: %v, want %v", row.name, row.user, err, row.want)
		}
		if refused := a.Refusals()["certificate"] - before; (refused == 1) != (row.want != nil) {
			t.Errorf("%s as %q: counted %d times", row.name, row.user, refused)
		}
		if row.want != nil || p == nil {
			continue
		}
		if p.String() != "user:pump7" || p.ClientID != "c" || !a.Allow(p, auth.Publish, topic("pump/pump7/c")) || a.Allow(p, auth.Publish, topic("pump/x/c")) {
			t.Errorf("the principal is %v with other rights than the user's", p)
		}
	}
}
