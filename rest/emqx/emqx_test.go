package emqx_test

import (
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

func TestEveryOperationHasItsTag(t *testing.T) { document.CheckTags(t) }

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
	d := newDoor(t, local.Options{})
	d.speak(t, emqx.Options{})
	return d
}

// newDoor opens the broker, before the dialect over it.
func newDoor(t *testing.T, o local.Options) *door {
	t.Helper()
	d := &door{Door: resttest.Open(t, o), clients: &clients.Registry{}, alarms: alarms.NewBook(zerolog.Nop())}
	resttest.Must(t, d.Auth.AddUser(resttest.System(t), auth.UserSpec{Username: adminName, Password: adminPassword, Superuser: true}))
	return d
}

// speak opens the dialect.
func (d *door) speak(t *testing.T, o emqx.Options) {
	t.Helper()
	o.Version, o.Clients, o.Alarms, o.MaxPayload = "1.2.3", d.clients, d.alarms, 4<<20
	o.Settings = func() []emqx.Setting {
		return []emqx.Setting{{"data", "/var/lib/millrace"}, {"mqtt.listen", "127.0.0.1:1883"}, {"mqtt.max_inflight", 1024}, {"mqtt.proxy_from", []string{}}, {"store.url", "******"}}
	}
	d.Mux = emqx.New(d.Broker, d.Shared, o)
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
