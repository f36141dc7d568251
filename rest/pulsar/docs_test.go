package pulsar_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"

	"millrace/rest/internal/resttest"
)

func TestCommandsOfThePageWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := resttest.Page{
			Files:     []string{"../../docs/dialects/pulsar.md"},
			Document:  document,
			Variables: map[string]string{"AUTH": "Authorization: Bearer root." + secret, "MILLRACE": ""},
			Send:      open(t).Send,
		}
		p.Answer = func(t *testing.T, body []byte) {
			var answer struct {
				Base     string `json:"base_uri"`
				Messages []message
			}
			must(t, json.Unmarshal(body, &answer))
			if answer.Base != "" {
				p.Variables["CONSUMER"] = strings.TrimPrefix(answer.Base, "http://example.com")
			}
			if len(answer.Messages) > 0 {
				p.Variables["ID"] = answer.Messages[0].MessageID
			}
		}
		p.Play(t)
	})
}
