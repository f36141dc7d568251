package memfifo_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"

	"millrace/broker"
	"millrace/rest/internal/resttest"
	"millrace/rest/memfifo"
)

// A request "As: KEY" goes to a dialect that asks for credentials, and "publish
// TOPIC" is what other doors do.
var transcripts = resttest.Transcripts{
	Document:    document,
	RenderError: memfifo.RenderError,
	Open: func(t *testing.T) resttest.Session {
		d := open(t)
		return resttest.Session{
			Send: d.send,
			SendAs: func(r *http.Request) *httptest.ResponseRecorder {
				w := httptest.NewRecorder()
				d.locked.ServeHTTP(w, r)
				return w
			},
			Steps: map[string]func(*testing.T, string, []byte){"publish": func(t *testing.T, topic string, data []byte) {
				_, err := d.broker.Publish(d.system, &broker.Message{Topic: topic, Payload: bytes.TrimSuffix(data, []byte("\n")), QoS: 1})
				must(t, err)
			}},
		}
	},
	Hide: func(n *resttest.Names, text []byte) []byte {
		return ulids.ReplaceAllFunc(text, func(v []byte) []byte { return []byte(n.Of("ulid", string(v))) })
	},
}

var ulids = regexp.MustCompile(`\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b`)

func TestTranscripts(t *testing.T) { transcripts.Run(t) }

func TestTranscriptsShowEveryRouteAndEveryStatus(t *testing.T) {
	var texts []string
	for _, status := range memfifo.ByKind {
		texts = append(texts, fmt.Sprintf("\n%d %s\n", status, http.StatusText(status)))
	}
	transcripts.CheckShown(t, texts...)
}
