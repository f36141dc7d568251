package auth_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker/auth"
)

// planted are secrets, by what they are.
type planted map[string]string

// hide notes a token and what in it must not be seen.
func (p planted) hide(t *testing.T, name string, tokens auth.Tokens) {
	t.Helper()
	for kind, token := range map[string]string{"access": tokens.Access, "refresh": tokens.Refresh} {
		parts := strings.Split(token, ".")
		p[name+" "+kind] = token
		p[name+" "+kind+" signature"] = parts[2]
		b, err := base64.RawURLEncoding.DecodeString(parts[1])
		must(t, err)
		var c struct{ Jti string }
		must(t, json.Unmarshal(b, &c))
		p[name+" "+kind+" jti"] = c.Jti
	}
}

func TestPlantedSecretsAreNeverSeen(t *testing.T) {
	ctx, c, store, audit := auth.WithRemote(t.Context(), "10.0.0.7:1"), newClock(), &memory{}, &lines{}
	var log bytes.Buffer
	a := open(t, store, at(c), func(o *auth.Options) { o.Audit, o.Log = audit, zerolog.New(&log) })
	secrets, seen := planted{}, []string{}
	note := func(v any) {
		seen = append(seen, fmt.Sprint(v), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", v))
		if b, err := json.Marshal(v); err == nil {
			seen = append(seen, string(b))
		}
	}
	var words []string
	for i := range 12 {
		word := fmt.Sprintf("planted-word-%02d-%s", i, base64.RawURLEncoding.EncodeToString([]byte{byte(i), 77, 99, 5}))
		secrets[fmt.Sprint("word ", i)] = word
		words = append(words, word)
		name := fmt.Sprint("u", i)
		note(auth.UserSpec{Username: name, Password: word})
		must(t, a.AddUser(ctx, auth.UserSpec{Username: name, Password: word}))
		note(a.AddUser(ctx, auth.UserSpec{Username: name, Password: word}))
		note(a.AddUser(ctx, auth.UserSpec{Username: word, Password: word})) // the password is the name
		note(auth.UserChange{Password: &word})
		_, err := a.Login(ctx, word, word, "c", home, false) // typed into the wrong field
		note(err)
		_, err = a.LoginPassword(ctx, name, word+"x", home)
		note(err)
		_, err = a.LoginPassword(ctx, word, word, home)
		note(err)
		note(a.DeleteUser(ctx, word))
		note(a.RevokeUser(ctx, word))
		_, err = a.Identity(ctx, word, word)
		note(err)
		p, err := a.LoginPassword(ctx, name, word, "10.0.1.1")
		must(t, err)
		note(p)
		tokens, err := a.Issue(ctx, p, fast)
		must(t, err)
		note(tokens)
		secrets.hide(t, name, tokens)
		p, err = a.Access(ctx, "one", tokens.Access)
		must(t, err)
		note(p)
		abuse(t, a, tokens, note)
	}
	for i := range 8 {
		id, secret, err := a.AddKey(ctx, auth.KeySpec{})
		must(t, err)
		second, err := a.AddSecret(ctx, id, words[i]+" as a secret")
		must(t, err)
		secrets[fmt.Sprint("key ", i)], secrets[fmt.Sprint("second ", i)] = secret, second
		for _, s := range []string{secret, second} {
			note(auth.KeySpec{ID: id, Secret: s})
			_, err = a.Bearer(ctx, id+"."+s+"x")
			note(err)
			_, err = a.Key(ctx, s, id) // the wrong way round
			note(err)
			_, _, err = a.AddKey(ctx, auth.KeySpec{ID: id, Secret: s})
			note(err)
			_, err = a.AddSecret(ctx, id, s+"\n")
			note(err)
			_, err = a.Access(ctx, "one", id+"."+s)
			note(err)
		}
		note(a.RetireSecret(ctx, id))
		note(a.DeleteKey(ctx, secret))
	}
	note(a.Users())
	note(a.Keys())
	note(a.Refusals())
	store.fail = errors.New("disk is gone")
	_, _, err := a.AddKey(ctx, auth.KeySpec{Secret: words[0]})
	note(err)
	store.fail = nil
	var signers []struct{ Seed []byte }
	must(t, json.Unmarshal(store.data["auth/signers"], &signers))
	secrets["seed"] = base64.StdEncoding.EncodeToString(signers[0].Seed)
	must(t, a.Close(ctx))
	if len(secrets) < 50 {
		t.Fatalf("only %d secrets are planted", len(secrets))
	}
	out := strings.Join(seen, "\n") + log.String() + strings.Join(audit.take(), "")
	onDisk := ""
	for key, value := range store.data {
		if key != "auth/signers" {
			onDisk += key + string(value) + "\n"
		}
	}
	for name, secret := range secrets {
		if strings.Contains(out, secret) {
			t.Errorf("%s is shown", name)
		}
		if strings.Contains(onDisk, secret) {
			t.Errorf("%s is on disk", name)
		}
	}
}

// abuse brings tokens where they do not belong, and ends their login by it.
func abuse(t *testing.T, a *auth.Auth, tokens auth.Tokens, note func(any)) {
	t.Helper()
	ctx := t.Context()
	for _, token := range []string{tokens.Refresh, tokens.Access, tokens.Access + "x", strings.ToUpper(tokens.Refresh)} {
		_, err := a.Access(ctx, "three", token)
		note(err)
		_, err = a.Refresh(ctx, "three", token)
		note(err)
		_, err = a.Bearer(ctx, token)
		note(err)
		_, err = a.Login(ctx, token, token, "c", "10.9.9.9", false)
		note(err)
		note(a.RevokeRefresh(ctx, "two", token))
	}
	next, err := a.Refresh(ctx, "one", tokens.Refresh)
	must(t, err)
	note(next)
	next, err = a.Refresh(ctx, "one", next.Refresh)
	must(t, err)
	_, err = a.Refresh(ctx, "one", tokens.Refresh)
	note(err)
	_, err = a.Refresh(ctx, "one", next.Refresh)
	note(err)
	note(auth.Grant{Audience: []string{"one"}, Access: time.Hour})
}
