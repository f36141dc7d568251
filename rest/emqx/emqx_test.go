package emqx_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"millrace/broker/alarms"
	"millrace/broker/auth"
	"millrace/broker/clients"
	"millrace/persistence/local"
	"millrace/rest/emqx"
	"millrace/rest/internal/resttest"

	"github.com/rs/zerolog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var document = func() *resttest.Document {
	d := resttest.ReadDocument(emqx.OpenAPI)
	d.Routes = slices.Compact(slices.Sorted(slices.Values(resttest.RoutePaths(emqx.Routes(), emqx.Prefix))))
	d.Trim = func(path string) string { return strings.TrimPrefix(path, emqx.Prefix) }
	return d
}()

func TestDocumentAndRoutesAgreeBothWays(t *testing.T) { document.CheckRoutes(t) }

func TestDocumentListsTheCodesThatAreAnswered(t *testing.T) {
	document.CheckCodes(t, emqx.Codes(), "components", "schemas", "Code", "enum")
}

// admin is the user that logs in.
const (
	adminName     = "admin"
	adminPassword = "a quiet mill by night"
)

// door is the dialect over a real broker.
type door struct {
	*resttest.Door
	clients *clients.Registry
	alarms  *alarms.Book
	token   string // of a login of the administrator
	edge    *edge  // nil until a client came
}

func open(t *testing.T) *door {
	t.Helper()
	return openWith(t, emqx.Options{})
}

func openWith(t *testing.T, o emqx.Options) *door {
	t.Helper()
	d := &door{Door: resttest.Open(t, local.Options{}), clients: &clients.Registry{}, alarms: alarms.NewBook(zerolog.Nop())}
	o.Version, o.Clients, o.Alarms, o.MaxPayload = "1.2.3", d.clients, d.alarms, 4<<20
	d.Mux = emqx.New(d.Broker, d.Shared, o)
	resttest.Must(t, d.Auth.AddUser(resttest.System(t), auth.UserSpec{Username: adminName, Password: adminPassword, Superuser: true}))
	return d
}

// logIn gives the door a token of the administrator.
func (d *door) logIn(t *testing.T) {
	t.Helper()
	p, err := d.Auth.LoginPassword(t.Context(), adminName, adminPassword, "")
	resttest.Must(t, err)
	tokens, err := d.Auth.Issue(t.Context(), p, auth.Grant{Audience: []string{"emqx"}, NoRefresh: true})
	resttest.Must(t, err)
	d.token = tokens.Access
}

// json sends a body that says that it is JSON.
func (d *door) json(t *testing.T, key, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, emqx.Prefix+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	switch key {
	case "":
	case "login":
		r.Header.Set("Authorization", "Bearer "+d.token)
	default:
		r.SetBasicAuth(key, resttest.Secret)
	}
	w := d.Send(r)
	document.Check(t, method, r.URL.EscapedPath(), w)
	return w
}

// want sends a request and wants a status.
func (d *door) want(t *testing.T, status int, key, method, path, body string) string {
	t.Helper()
	w := d.json(t, key, method, path, body)
	if w.Code != status {
		t.Errorf("%s %s %s: got %d %s, want %d %s", method, path, body, w.Code, w.Body, status, http.StatusText(status))
	}
	return w.Body.String()
}
