package auth_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"millrace/broker/auth"
)

// forger makes tokens that are wrong in one thing. Ids are those of the
// catalogue of bad inputs; rows about headers, cookies and profile calls belong
// to the HTTP edge.
type forger struct {
	t      testing.TB
	a      *auth.Auth
	now    int64
	sid    string
	ver    string
	tokens auth.Tokens
}

func newForger(t testing.TB, a *auth.Auth, now time.Time) *forger {
	t.Helper()
	f := &forger{t: t, a: a, now: now.Unix(), tokens: issued(t, a, "dev", fast)}
	var c struct {
		jwt.RegisteredClaims
		Sid string `json:"sid"`
		Ver string `json:"ver"`
	}
	_, _, err := jwt.NewParser().ParseUnverified(f.tokens.Access, &c)
	must(t, err)
	f.sid, f.ver = c.Sid, c.Ver
	return f
}

// claims are those of a good access token, but for the members given, which
// are JSON; an empty one leaves its member out.
func (f *forger) claims(change ...string) string {
	all := [][2]string{
		{"iss", `"millrace"`},
		{"aud", `["one"]`},
		{"sub", `"dev"`},
		{"exp", fmt.Sprint(f.now + 900)},
		{"iat", fmt.Sprint(f.now)},
		{"jti", `"j"`},
		{"sid", `"` + f.sid + `"`},
		{"ver", `"` + f.ver + `"`},
	}
	var members []string
	for _, m := range all {
		for i := 0; i < len(change); i += 2 {
			if change[i] == m[0] {
				m[1] = change[i+1]
			}
		}
		if m[1] != "" {
			members = append(members, fmt.Sprintf("%q:%s", m[0], m[1]))
		}
	}
	for i := 0; i < len(change); i += 2 {
		if strings.HasPrefix(change[i], "+") {
			members = append(members, fmt.Sprintf("%q:%s", change[i][1:], change[i+1]))
		}
	}
	return "{" + strings.Join(members, ",") + "}"
}

func (f *forger) signed(change ...string) string { return f.header(nil, f.claims(change...)) }

// header signs with another header; nil members of it are left out, but for
// kid, which is then right.
func (f *forger) header(change map[string]any, payload string) string {
	h := map[string]any{"alg": "EdDSA", "typ": "at+jwt", "kid": nil}
	for k, v := range change {
		if h[k] = v; v == nil {
			delete(h, k)
		}
	}
	return auth.Forge(f.t, f.a, h, payload)
}

// foreign is a token of another method.
func (f *forger) foreign(method jwt.SigningMethod, key any) string {
	kid, _ := auth.PublicKey(f.a)
	tok := jwt.New(method)
	tok.Header = map[string]any{"alg": method.Alg(), "typ": "at+jwt", "kid": kid}
	tok.Claims = jwt.MapClaims{
		"iss": "millrace", "aud": "one", "sub": "dev", "exp": f.now + 900, "iat": f.now, "jti": "j", "sid": f.sid, "ver": f.ver,
	}
	text, err := tok.SignedString(key)
	must(f.t, err)
	return text
}

func (f *forger) signature(change func([]byte) []byte) string {
	head, sig, _ := cutLast(f.tokens.Access)
	b, err := base64.RawURLEncoding.DecodeString(sig)
	must(f.t, err)
	return head + "." + base64.RawURLEncoding.EncodeToString(change(b))
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	return s[:i], s[i+1:], i >= 0
}

func TestBadTokensAreRefused(t *testing.T) {
	c := newClock()
	a := withUser(t, &memory{}, at(c))
	f := newForger(t, a, c.Now())
	accepted(t, a, "one", f.signed()) // the forger's good token is good
	accepted(t, a, "one", f.signed("aud", `"one"`))
	accepted(t, a, "one", f.signed("exp", fmt.Sprint(f.now-59), "iat", fmt.Sprint(f.now-600)))
	accepted(t, a, "one", f.signed("iat", fmt.Sprint(f.now+59)))
	accepted(t, a, "one", f.header(nil, strings.Replace(f.claims(), "}", `,"x":{"sub":[{"sub":"\"}"}]}}`, 1)))
	for name, token := range forgeries(t, f, a) {
		refusedToken(t, a, "one", token, name)
		refusedRefresh(t, a, "one", token, name)
	}
	refusedToken(t, a, "one", f.tokens.Refresh, "X261 refresh as access")
	refusedRefresh(t, a, "one", f.tokens.Access, "X261 access as refresh")
	accepted(t, a, "one", f.tokens.Access)
	if _, err := a.Refresh(t.Context(), "one", f.tokens.Refresh); err != nil {
		t.Errorf("bad tokens ended a login: %v", err)
	}
}

func forgeries(t *testing.T, f *forger, a *auth.Auth) map[string]string {
	t.Helper()
	_, public := auth.PublicKey(a)
	_, strange, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	good := f.tokens.Access
	head, sig, _ := cutLast(good)
	parts := strings.Split(good, ".")
	header := func(k string, v any) string { return f.header(map[string]any{k: v}, f.claims()) }
	all := map[string]string{
		"empty": "", "one dot": "a.b", "three dots": good + ".x", "dots": strings.Repeat(".", 4000), "5 KiB": good + strings.Repeat("A", 4097),
		"line end": parts[0] + "." + parts[1] + "\n." + parts[2], "padding": good + "==", "space": good + " ", "cut": good[:len(good)-1],
		"other payload": parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(f.claims("sub", `"root"`))) + "." + sig,
		"X251 missing":  header("alg", nil), "X251 empty": header("alg", ""), "X251 number": header("alg", 5),
		"X251 unsigned": f.foreign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType),
		"X252 HS256":    f.foreign(jwt.SigningMethodHS256, []byte(public)),
		"X253 ES256":    f.foreign(jwt.SigningMethodES256, curve),
		"X253 zero":     f.signature(func(b []byte) []byte { return make([]byte, len(b)) }),
		"X253 63 bytes": f.signature(func(b []byte) []byte { return b[:63] }), "X253 65 bytes": f.signature(func(b []byte) []byte { return append(b, 0) }),
		"X253 empty": head + ".", "X253 one bit": f.signature(func(b []byte) []byte { b[0] ^= 1; return b }),
		"another key":  f.foreign(jwt.SigningMethodEdDSA, strange),
		"X254 missing": header("kid", nil), "X254 unknown": header("kid", "AAAA"), "X254 path": header("kid", "../../key"),
		"X254 quotes": header("kid", `' OR ""="`), "X254 10 KB": header("kid", strings.Repeat("k", 10_000)), "X254 3 KB": header("kid", strings.Repeat("k", 3_000)),
		"X256 missing": f.signed("exp", ""), "X256 text": f.signed("exp", `"soon"`), "X256 null": f.signed("exp", "null"),
		"X256 past by 61 s": f.signed("exp", fmt.Sprint(f.now-61), "iat", fmt.Sprint(f.now-600)), "X256 ten years": f.signed("exp", fmt.Sprint(f.now+315_360_000)),
		"X256 huge": f.signed("exp", "1e300"), "X256 before iat": f.signed("exp", fmt.Sprint(f.now)),
		"X257 iat": f.signed("iat", fmt.Sprint(f.now+300)), "X257 nbf": f.signed("+nbf", fmt.Sprint(f.now+300)), "no iat": f.signed("iat", ""),
		"X258 aud": f.signed("aud", `["three"]`), "X258 no aud": f.signed("aud", ""), "X258 iss": f.signed("iss", `"other"`), "X258 no iss": f.signed("iss", ""),
		"X258 typ": header("typ", "JWT"), "X258 no typ": header("typ", nil), "X258 case": header("typ", "AT+JWT"),
		"X259 sub twice": f.signed("+sub", `"root"`), "X259 other case": f.signed("+SUB", `"root"`), "X259 long s": f.signed("+\u017fub", `"root"`), "X259 escape": f.header(nil, strings.Replace(f.claims(), "}", `,"\u0073ub":"root"}`, 1)), "X259 nested": f.header(nil, strings.Replace(f.claims(), "}", `,"x":{"sub":[{"a":"\"}"}]},"iss":"millrace"}`, 1)), "no sub": f.signed("sub", ""), "sub number": f.signed("sub", "1"),
		"no jti": f.signed("jti", ""), "no sid": f.signed("sid", ""), "no ver": f.signed("ver", ""), "old ver": f.signed("ver", `"x"`),
		"other user": f.signed("sub", `"root"`), "sid unknown": f.signed("sid", `"x"`), "array": f.header(nil, "[]"), "two": f.header(nil, f.claims()+"{}"),
	}
	for _, alg := range []string{"none", "None", "nOnE", "eddsa", "HS256", "ES256", "RS256", "Ed25519"} {
		all["X251 "+alg] = header("alg", alg)
	}
	for _, member := range []string{"jku", "x5u", "jwk", "crit", "b64", "zip", "cty"} {
		all[member] = header(member, "https://evil.example/")
	}
	return all
}

func TestBadKeysAreRefusedAndCounted(t *testing.T) {
	ctx, c := t.Context(), newClock()
	a := open(t, &memory{}, at(c))
	id, secret := addKey(t, a, auth.KeySpec{})
	for i := range secret {
		b := []byte(secret)
		b[i] = map[bool]byte{true: 'B', false: 'A'}[b[i] == 'A']
		if _, err := a.Bearer(ctx, id+"."+string(b)); !errors.Is(err, auth.ErrUnauthenticated) { // X247
			t.Fatalf("character %d changed: %v", i, err)
		}
	}
	late, lateSecret := addKey(t, a, auth.KeySpec{Expires: c.Now().Add(time.Hour)})
	off, offSecret := addKey(t, a, auth.KeySpec{Disabled: true})
	gone, goneSecret := addKey(t, a, auth.KeySpec{})
	must(t, a.DeleteKey(ctx, gone))
	c.advance(time.Hour)
	before := a.Refusals()
	for reason, token := range map[string]string{"key expired": late + "." + lateSecret, "key disabled": off + "." + offSecret, "secret": gone + "." + goneSecret} { // X248
		if _, err := a.Bearer(ctx, token); err != auth.ErrUnauthenticated { //nolint:errorlint // nothing is told
			t.Errorf("%s: %v", reason, err)
		}
		id, secret, _ := strings.Cut(token, ".")
		if _, err := login(t, a, id, secret); err != auth.ErrUnauthenticated { //nolint:errorlint // nothing is told
			t.Errorf("%s over MQTT: %v", reason, err)
		}
		want := before[reason] + 2
		if id == gone { // over MQTT a name that nobody has came with a password
			want--
		}
		if got := a.Refusals()[reason]; got != want {
			t.Errorf("%s counted %d times", reason, got-before[reason])
		}
	}
	pub, pubSecret := addKey(t, a, auth.KeySpec{Role: "publisher", Scopes: []string{"queue:mine"}})
	p, err := a.Key(ctx, pub, pubSecret)
	must(t, err)
	ask(t, a, []question{ // X249
		{p, auth.Publish, queue("mine"), "yes"},
		{p, auth.Publish, queue("other"), "no"},
		{p, auth.Consume, queue("mine"), "no"},
		{p, auth.Manage, queue("mine"), "no"},
		{p, auth.View, queue("mine"), "no"},
		{p, auth.View, auth.Server, "no"},
	})
}

func TestWhatExistsIsNeverOverwritten(t *testing.T) { // X272
	ctx := t.Context()
	a := withUser(t, &memory{})
	addKey(t, a, auth.KeySpec{ID: "k", Secret: "sixteen-characters", Role: "viewer"})
	_, _, keyErr := a.AddKey(ctx, auth.KeySpec{ID: "k", Secret: "another-sixteen-characters", Role: "administrator"})
	userErr := a.AddUser(ctx, auth.UserSpec{Username: "dev", Password: wrong, Superuser: true})
	if !errors.Is(keyErr, auth.ErrExists) || !errors.Is(userErr, auth.ErrExists) {
		t.Errorf("got %v and %v", keyErr, userErr)
	}
	if p, err := a.Key(ctx, "k", "sixteen-characters"); err != nil || p.Role != auth.Viewer {
		t.Errorf("the key is %+v, %v", p, err)
	}
	if p, err := login(t, a, "dev", right); err != nil || p.Superuser {
		t.Errorf("the user is %+v, %v", p, err)
	}
}

func TestNamesThatLookTakenAreTakenWhereAskedFor(t *testing.T) {
	a := withUser(t, &memory{})
	for _, name := range []string{"dev", "Dev", "ｄｅｖ", "dev ", " DEV", "ＤＥＶ"} { // X267
		before := a.Hashes()
		err := a.AddUser(t.Context(), auth.UserSpec{Username: name, Password: right, Distinct: true})
		if !errors.Is(err, auth.ErrExists) {
			t.Errorf("%q: %v", name, err)
		}
		if a.Hashes() == before {
			t.Errorf("%q: a taken name is answered faster", name)
		}
	}
	addUser(t, a, "Dev", right, false) // an administrator may
	before := a.Hashes()
	var invalid *auth.InvalidError
	for _, word := range []string{"1234567", strings.Repeat("x", 257), "password1", "dev2", strings.Repeat("x", 1<<20)} { // X269
		if err := a.AddUser(t.Context(), auth.UserSpec{Username: "dev2", Password: word, Distinct: true}); !errors.As(err, &invalid) {
			t.Errorf("%d bytes: %v", len(word), err)
		}
	}
	if a.Hashes() != before {
		t.Error("a bad password was hashed")
	}
}

func TestTheLastAdministratorStays(t *testing.T) { // X273
	ctx := t.Context()
	a := open(t, &memory{})
	addUser(t, a, "root", right, true)
	off, on, none, admin := true, false, "client", "administrator"
	refuse := func(changes map[string]error) {
		t.Helper()
		for name, err := range changes {
			if !errors.Is(err, auth.ErrLastAdministrator) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	refuse(map[string]error{
		"delete": a.DeleteUser(ctx, "root"), "demote": a.UpdateUser(ctx, auth.UserSpec{Username: "root"}),
		"disable": a.ChangeUser(ctx, "root", auth.UserChange{Disabled: &off}),
	})
	must(t, a.ChangeUser(ctx, "root", auth.UserChange{Password: new(wrong)}))
	addKey(t, a, auth.KeySpec{ID: "k", Role: admin})
	must(t, a.DeleteUser(ctx, "root"))
	refuse(map[string]error{
		"delete key": a.DeleteKey(ctx, "k"), "role": a.ChangeKey(ctx, "k", auth.KeyChange{Role: &none}),
		"disable key": a.ChangeKey(ctx, "k", auth.KeyChange{Disabled: &off}),
		"expire key":  a.ChangeKey(ctx, "k", auth.KeyChange{Expires: new(time.Now().Add(-time.Second))}),
	})
	must(t, a.ChangeKey(ctx, "k", auth.KeyChange{Disabled: &on, Role: &admin}))
	must(t, a.DeleteKey(auth.WithPrincipal(ctx, broker), "k")) // the broker makes another
}
