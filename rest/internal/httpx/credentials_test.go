package httpx_test

import (
	"context"
	"encoding/base64"
	"io"
	"net/http/httptest"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// memory is the least that auth needs of a store.
type memory struct{}

func (memory) Entries(context.Context, string) (map[string]auth.Entry, error) { return nil, nil }
func (memory) Replace(context.Context, string, []byte, uint64) (uint64, error) {
	return 1, nil
}

func TestOnlyOneWellFormedHeaderAuthenticates(t *testing.T) {
	a, err := auth.Open(t.Context(), auth.Options{Store: memory{}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close(context.Background()) }()
	const id, secret = "robot", "sixteen.characters"
	if _, _, err := a.AddKey(t.Context(), auth.KeySpec{ID: id, Secret: secret}); err != nil {
		t.Fatal(err)
	}
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	var who *auth.Principal
	m := echo(shared(io.Discard), func(r *httpx.Request) (*auth.Principal, error) {
		p, err := httpx.KeyOrToken(a, "api", r)
		if err != nil && broker.KindOf(err) != broker.Unauthenticated {
			t.Errorf("error of kind %d: %v", broker.KindOf(err), err)
		}
		who = p
		return p, err
	})
	for _, c := range []struct {
		headers []string
		ok      bool
	}{
		{[]string{"Bearer " + id + "." + secret}, true},
		{[]string{"bearer " + id + "." + secret}, true},
		{[]string{basic(id + ":" + secret)}, true},
		{nil, false},
		{[]string{"Bearer"}, false},
		{[]string{"Bearer "}, false},
		{[]string{"Bearer " + id}, false},
		{[]string{"Bearer " + id + "." + secret + "x"}, false},
		{[]string{"Bearer " + id + ".Sixteen.characters"}, false},
		{[]string{"Bearer " + id + "." + secret, "Bearer " + id + "." + secret}, false},
		{[]string{"Basic !!!"}, false},
		{[]string{basic("no-colon")}, false},
		{[]string{basic(id + ":")}, false},
		{[]string{basic(":" + secret)}, false},
		{[]string{basic(id + ":" + secret + "\x00")}, false},
		{[]string{"Digest " + id + "." + secret}, false},
		{[]string{id + "." + secret}, false},
	} {
		who = nil
		r := httptest.NewRequest("GET", "/q/a?access_token="+id+"."+secret, nil)
		for _, h := range c.headers {
			r.Header.Add("Authorization", h)
		}
		w := httptest.NewRecorder()
		m.ServeHTTP(w, r)
		if (w.Code == 200) != c.ok || (who != nil) != c.ok {
			t.Errorf("%q: status %d, principal %v, want ok %v", c.headers, w.Code, who, c.ok)
		}
	}
}
