package emqx_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/rs/zerolog"

	"millrace/mqtt"
	"millrace/persistence/local"
	"millrace/rest/emqx"
	"millrace/rest/internal/resttest"
)

// listeners are those of an edge in the dialect's words.
type listeners struct{ *mqtt.Server }

func (l listeners) Listeners() (all []emqx.Listener) {
	for _, s := range l.Server.Listeners() {
		all = append(all, emqx.Listener{ID: s.ID, Type: s.Type, Name: s.Name, Bind: s.Address, Running: s.Running, Connections: s.Connections})
	}
	return all
}

// openAll opens the dialect with an MQTT edge on a real socket, and a client.
func openAll(t *testing.T) *door {
	t.Helper()
	d := newDoor(t, local.Options{})
	s, err := mqtt.Listen(mqtt.Options{Broker: d.Broker, Clients: d.clients, Log: zerolog.Nop(), Listeners: []mqtt.Listener{{Address: "127.0.0.1:0"}}})
	resttest.Must(t, err)
	t.Cleanup(func() { resttest.Must(t, s.Close(context.WithoutCancel(t.Context()))) })
	d.speak(t, emqx.Options{Listeners: listeners{s}, Counters: s.Counters})
	for _, id := range []string{"pump", "valve"} {
		c, err := net.Dial("tcp", s.Addr().String())
		resttest.Must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		logIn(t, c, id, []string{"up/#"})
	}
	return d
}

func TestCommandsOfThePageWork(t *testing.T) {
	d := openAll(t)
	d.alarms.Raise("low_disk", "for the page", nil)
	shown := *document
	shown.Routes = slices.DeleteFunc(slices.Clone(document.Routes), func(route string) bool {
		return route == "post /authentication" // it always refuses
	})
	p := resttest.Page{
		Files: []string{"../../docs/dialects/emqx.md"}, Document: &shown,
		Variables: map[string]string{
			"MILLRACE": "", "JSON": "Content-Type: application/json", "PASSWORD": adminPassword,
			"KEY":   "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("root:"+resttest.Secret)),
			"RULES": emqx.Prefix + "/authorization/sources/built_in_database/rules",
		},
		Send: func(r *http.Request) *httptest.ResponseRecorder { return d.Send(r) },
	}
	p.Answer = func(_ *testing.T, body []byte) {
		var answer struct {
			Token string
			Data  []struct {
				MsgID string
				Topic string
			}
		}
		if json.Unmarshal(body, &answer) != nil {
			return // a text, or a list
		}
		if answer.Token != "" {
			p.Variables["LOGIN"] = "Authorization: Bearer " + answer.Token
		}
		for _, m := range answer.Data {
			if m.MsgID != "" && m.Topic == "all/1" {
				p.Variables["MSGID"] = m.MsgID
			}
		}
	}
	p.Play(t)
}
