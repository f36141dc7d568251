package fastqueue_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/rest/fastqueue"
	"millrace/rest/internal/resttest"
)

var transcripts = resttest.Transcripts{
	Document:    document,
	RenderError: fastqueue.RenderError,
	Open: func(t *testing.T) resttest.Session {
		d := open(t)
		return resttest.Session{Send: d.Send, Steps: map[string]func(*testing.T, string, []byte){
			"close": func(*testing.T, string, []byte) { d.Stop() },
			"door":  func(t *testing.T, _ string, _ []byte) { d.makeElsewhere(t) },
		}}
	},
	Hide: hide,
}

func TestTranscripts(t *testing.T) { transcripts.Run(t) }

func TestTranscriptsShowEveryRouteAndEveryStatus(t *testing.T) {
	var texts []string
	for status := range fastqueue.Statuses() {
		texts = append(texts, fmt.Sprintf("\n%d %s\n", status, http.StatusText(status)))
	}
	transcripts.CheckShown(t, texts...)
}

// makeElsewhere makes queues as other doors do: fed by a filter, and in memory.
func (d *door) makeElsewhere(t *testing.T) {
	t.Helper()
	for name, filter := range map[string]string{"fed": "x/#", "volatile": ""} {
		c := broker.NewQueueConfig(name, filter)
		if filter == "" {
			c.Driver = broker.Memory
		}
		_, err := d.Broker.CreateQueue(resttest.System(t), c)
		must(t, err)
	}
}

var values = regexp.MustCompile(`\b(?:eyJ[\w-]+\.[\w-]+\.[\w-]+|[0-7][0-9A-HJKMNP-TV-Z]{25}|[A-Za-z0-9_-]{87}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)\b`)

// hide replaces tokens, ids, receipts and times by names.
func hide(n *resttest.Names, text []byte) []byte {
	return values.ReplaceAllFunc(text, func(v []byte) []byte {
		switch s := string(v); {
		case len(s) == 24:
			return []byte("TIME")
		case len(s) == 87:
			return []byte(n.Of("receipt", s))
		case strings.HasPrefix(s, "eyJ"):
			return []byte(n.Of("token", s))
		default:
			return []byte(n.Of("msg", s))
		}
	})
}
