package emqx_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"millrace/rest/emqx"
	"millrace/rest/internal/httpx"
	"millrace/rest/internal/resttest"
)

var parameterOf = regexp.MustCompile(`:\w+`)

// asked sends a request of a route as one of the keys, or as the administrator
// who logged in, and returns the status and code of the answer.
func (d *door) asked(t *testing.T, rt *httpx.Route, key string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), rt.Method, parameterOf.ReplaceAllString(rt.Path, "x"), strings.NewReader("{}"))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+key+"."+resttest.Secret)
	if key == "" {
		r.Header.Set("Authorization", "Bearer "+d.token)
	}
	w := d.Send(r)
	var answer struct{ Code string }
	_ = json.Unmarshal(w.Body.Bytes(), &answer) // not every answer is an error
	return w.Code, answer.Code
}

// forLogins reports whether a route is for users who logged in.
func forLogins(rt *httpx.Route) bool {
	for _, part := range []string{"/api_key", "/users", "/logout"} {
		if strings.HasPrefix(rt.Path, emqx.Prefix+part) {
			return true
		}
	}
	return false
}

// TestRolesAreRefusedWhatTheyMayNot asks every route as every role: viewers read,
// publishers and clients publish, and no key makes keys or users.
func TestRolesAreRefusedWhatTheyMayNot(t *testing.T) {
	d, routes := open(t), emqx.Routes()
	d.logIn(t)
	for _, rt := range routes {
		if rt.Open && !strings.HasSuffix(rt.Path, "/prometheus/stats") {
			continue
		}
		publishes := strings.HasPrefix(rt.Path, emqx.Prefix+"/publish")
		for key, may := range map[string]bool{
			"root": !forLogins(&rt), "view": rt.Method == http.MethodGet && !forLogins(&rt), "pub": publishes, "app": publishes, "": true,
		} {
			status, code := d.asked(t, &rt, key)
			refused := status == 401 || status == 403
			if strings.HasSuffix(rt.Path, "/logout") && key == "" {
				d.logIn(t)
			}
			switch {
			case may == refused:
				t.Errorf("%s %s as %q: %d %s", rt.Method, rt.Path, key, status, code)
			case forLogins(&rt) && key != "" && (status != 401 || code != "API_KEY_NOT_ALLOW"):
				t.Errorf("%s %s with a key: %d %s", rt.Method, rt.Path, status, code)
			case refused && !forLogins(&rt) && (status != 403 || code != "UNAUTHORIZED_ROLE"):
				t.Errorf("%s %s as %q is refused by %d %s", rt.Method, rt.Path, key, status, code)
			}
		}
	}
	if n := len(routes); n < 90 {
		t.Errorf("only %d routes", n)
	}
}
