package emqx_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"millrace/broker"
	"millrace/broker/clients"
	"millrace/rest/emqx"
	"millrace/rest/internal/resttest"
)

var transcripts = resttest.Transcripts{
	Document:    document,
	RenderError: emqx.RenderError,
	Open: func(t *testing.T) resttest.Session {
		d := open(t)
		send := func(r *http.Request) *httptest.ResponseRecorder {
			if r.ContentLength > 0 && r.Header.Get("Content-Type") == "" {
				r.Header.Set("Content-Type", "application/json")
			}
			if r.Header.Get("Authorization") == "" && d.token != "" {
				r.Header.Set("Authorization", "Bearer "+d.token)
			}
			return d.Send(r)
		}
		return resttest.Session{Send: send, Steps: map[string]func(*testing.T, string, []byte){
			"login": func(t *testing.T, _ string, _ []byte) { d.logIn(t) },
			"close": func(*testing.T, string, []byte) { d.Stop() },
			"queue": func(t *testing.T, name string, filter []byte) {
				_, err := d.Broker.CreateQueue(resttest.System(t), broker.NewQueueConfig(name, strings.TrimSpace(string(filter))))
				resttest.Must(t, err)
			},
			"alarm": func(t *testing.T, name string, details []byte) {
				var m map[string]any
				resttest.Must(t, json.Unmarshal(details, &m))
				d.alarms.Raise(name, "a condition of the test", m)
			},
			"client":     func(t *testing.T, id string, filters []byte) { d.connect(t, id, strings.Fields(string(filters))) },
			"disconnect": func(t *testing.T, id string, _ []byte) { d.disconnect(t, id) },
			"told":       func(t *testing.T, id string, what []byte) { d.told(t, id, strings.TrimSpace(string(what))) },
		}}
	},
	Hide: hide,
}

func TestTranscripts(t *testing.T) { transcripts.Run(t) }

func TestTranscriptsShowEveryRouteAndCode(t *testing.T) {
	var texts []string
	for name := range emqx.Codes() {
		if _, never := unreachable[name]; !never && name != "CLIENT_NOT_RESPONSE" { // which has a test of its own
			texts = append(texts, `"code": "`+name+`"`)
		}
	}
	inTranscripts, shown := transcripts, *document
	shown.Routes = slices.DeleteFunc(slices.Clone(document.Routes), func(route string) bool { return slices.Contains(inPages, route) })
	inTranscripts.Document = &shown
	inTranscripts.CheckShown(t, texts...)
}

// unreachable are the codes of EMQX's page that nothing here is answered with,
// and why not. The table of codes lists them all the same.
var unreachable = map[string]string{
	"NOT_MATCH":        "conditions are of settings that cannot be changed here",
	"NO_DEFAULT_VALUE": "settings without a default cannot be changed here",
	"INVALID_ID":       "ids that are wrongly written are those of messages, and of nothing else",
	"SOURCE_ERROR":     "the one source of rules is the broker itself",
	"REST_FAILED":      "there is no configuration to reset",
	"CONFLICT":         "what conflicts exists already, or depends on something",
}

// pageCodes are those of EMQX's page.
const pageCodes = `WRONG_USERNAME_OR_PWD WRONG_USERNAME_OR_PWD_OR_API_KEY_OR_API_SECRET BAD_REQUEST NOT_MATCH ALREADY_EXISTS
	BAD_CONFIG_SCHEMA BAD_LISTENER_ID BAD_NODE_NAME BAD_RPC BAD_TOPIC EXCEED_LIMIT INVALID_PARAMETER CONFLICT NO_DEFAULT_VALUE
	DEPENDENCY_EXISTS MESSAGE_ID_SCHEMA_ERROR INVALID_ID MESSAGE_ID_NOT_FOUND NOT_FOUND CLIENTID_NOT_FOUND CLIENT_NOT_FOUND
	RESOURCE_NOT_FOUND TOPIC_NOT_FOUND USER_NOT_FOUND INTERNAL_ERROR SERVICE_UNAVAILABLE SOURCE_ERROR UPDATE_FAILED REST_FAILED
	CLIENT_NOT_RESPONSE`

// TestThePageOfTheDialectNamesTheCodesThatNothingIsAnsweredWith, and no others.
func TestThePageOfTheDialectNamesTheCodesThatNothingIsAnsweredWith(t *testing.T) {
	text, err := os.ReadFile("../../docs/dialects/emqx.md")
	resttest.Must(t, err)
	_, named, found := strings.Cut(string(text), "Codes of the page that nothing is answered with:")
	if !found {
		t.Fatal("the page has no such paragraph")
	}
	named, _, _ = strings.Cut(named, "\n\n")
	codes := emqx.Codes()
	for name := range strings.FieldsSeq(pageCodes) {
		_, never := unreachable[name]
		instead := name == "MESSAGE_ID_SCHEMA_ERROR" // it stands there for another one
		if stands := strings.Contains(named, "`"+name+"`"); stands != (never || instead) || !codes[name] {
			t.Errorf("%s: never %v, named %v, in the table %v", name, never, stands, codes[name])
		}
	}
}

// stuck is a session whose end takes long.
type stuck struct{ clients.Session }

func (stuck) Kick() <-chan struct{} { return make(chan struct{}) }

func TestAClientThatDoesNotEndIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.clients.Put(stuck{}, &clients.Facts{ID: "stuck", Connected: true})
		w := d.Do(t, "DELETE", emqx.Prefix+"/clients/stuck", "")
		if w.Code != 500 || !strings.Contains(w.Body.String(), `"CLIENT_NOT_RESPONSE"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

var values = regexp.MustCompile(`\b(?:eyJ[\w-]+\.[\w-]+\.[\w-]+|[0-9A-F]{32}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?Z)\b|"api_(?:key|secret)": "[\w-]{12,}"|"(?:uptime|process_used|created_at|time_stamp)": \d+|"otp_release": "[^"]+"`)

// hide replaces tokens, ids, secrets and times by names.
func hide(n *resttest.Names, text []byte) []byte {
	return values.ReplaceAllFunc(text, func(v []byte) []byte {
		s := string(v)
		name, value, member := strings.Cut(s, `": `)
		switch {
		case member && strings.HasPrefix(value, `"`):
			kind := strings.TrimPrefix(strings.TrimPrefix(name, `"`), "api_")
			if kind == "otp_release" {
				return []byte(name + `": "RUNTIME"`)
			}
			return []byte(name + `": "` + n.Of(kind, strings.Trim(value, `"`)) + `"`)
		case member:
			return []byte(name + `": 0`)
		case len(s) == 32:
			return []byte(n.Of("msg", s))
		case strings.HasPrefix(s, "eyJ"):
			return []byte(n.Of("token", s))
		}
		return []byte("TIME")
	})
}

// inPages are the routes whose answers are documents; TestDocuments reads them.
var inPages = []string{"get /api-docs/swagger.json", "get /api-spec.json"}

func TestDocuments(t *testing.T) {
	d := open(t)
	get := func(path string, accept string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		return d.Send(r)
	}
	for _, path := range []string{emqx.DocumentPath, emqx.SpecPath} {
		w := get(path, "")
		var doc struct {
			OpenAPI string
			Paths   map[string]any
		}
		resttest.Must(t, json.Unmarshal(w.Body.Bytes(), &doc))
		if w.Code != 200 || doc.OpenAPI != "3.0.3" || doc.Paths["/clients/{clientid}"] == nil {
			t.Errorf("%s: %d, version %s, %d paths", path, w.Code, doc.OpenAPI, len(doc.Paths))
		}
	}
	for accept, want := range map[string]string{"": "application/json", "*/*": "application/json", "text/html,*/*": "text/html; charset=utf-8", "application/json, text/html": "application/json"} {
		if w := get(emqx.Prefix+"/gateways", accept); w.Code != 404 || w.Header().Get("Content-Type") != want {
			t.Errorf("a path that is not there, for %q: %d %s", accept, w.Code, w.Header().Get("Content-Type"))
		}
	}
}
