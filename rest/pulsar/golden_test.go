package pulsar_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/rest/internal/httpx"
	"millrace/rest/internal/resttest"
	"millrace/rest/pulsar"
)

var transcripts = resttest.Transcripts{
	Document:    document,
	RenderError: pulsar.RenderError,
	Failures: map[string]error{
		"conflict":     &broker.Error{Kind: broker.Conflict, Message: "it changed meanwhile, or cannot be changed so"},
		"slow body":    &httpx.StatusError{Status: http.StatusRequestTimeout, Message: "the body did not arrive in time"},
		"old offset":   &broker.Error{Kind: broker.Invalid, Subject: broker.OffsetSubject, Message: "offset 3 is below the earliest, 7"},
		"payload":      &broker.Error{Kind: broker.TooLarge, Subject: broker.PayloadSubject, Message: "the body is larger than 16777216 bytes"},
		"store failed": &broker.Error{Kind: broker.Unavailable, Message: "the store takes no writes now; nothing was stored"},
	},
	Open: func(t *testing.T) resttest.Session {
		d := open(t)
		return resttest.Session{Send: d.Send, Steps: map[string]func(*testing.T, string, []byte){
			"close": func(*testing.T, string, []byte) { d.Stop() },
			"publish": func(t *testing.T, topic string, data []byte) {
				_, err := d.Broker.Publish(resttest.System(t), &broker.Message{Topic: topic, Payload: data[:len(data)-1], QoS: 1})
				must(t, err)
			},
		}}
	},
	Hide: hide,
}

func TestTranscripts(t *testing.T) { transcripts.Run(t) }

func TestTranscriptsShowEveryRouteAndEveryCode(t *testing.T) {
	var want []string
	for code := range pulsar.Codes() {
		want = append(want, fmt.Sprintf(`"error_code": %d,`, code))
	}
	transcripts.CheckShown(t, want...)
}

var (
	ids       = regexp.MustCompile(`"C[A-Za-z0-9+/]+={0,2}"|"\d+:\d+:\d+"`)
	consumers = regexp.MustCompile(`\b[A-Z2-7]{26}\b`)
)

// hide replaces consumers, and message ids with the ledger in them, which is the
// handle of the stream.
func hide(n *resttest.Names, text []byte) []byte {
	text = consumers.ReplaceAllFunc(text, func(v []byte) []byte { return []byte(n.Of("consumer", string(v))) })
	return ids.ReplaceAllFunc(text, func(v []byte) []byte {
		s := strings.Trim(string(v), `"`)
		if strings.Contains(s, ":") {
			_, rest, _ := strings.Cut(s, ":")
			return []byte(`"LEDGER:` + rest + `"`)
		}
		if _, err := base64.StdEncoding.DecodeString(s); err != nil {
			return v
		}
		if _, _, ok := pulsar.RoundTripID(s); !ok {
			return v
		}
		return []byte(`"` + n.Of("id", s) + `"`)
	})
}
