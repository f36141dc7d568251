package fastqueue_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"

	"millrace/rest/internal/resttest"
)

func TestCommandsOfThePageWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := resttest.Page{
			Files:     []string{"../../docs/dialects/fastqueue.md"},
			Document:  document,
			Variables: map[string]string{"MILLRACE": ""},
			Send:      open(t).Send,
		}
		p.Answer = func(t *testing.T, body []byte) {
			var answer struct {
				Access   string `json:"access_token"`
				Refresh  string `json:"refresh_token"`
				Messages []message
			}
			must(t, json.Unmarshal(body, &answer))
			if answer.Access != "" {
				p.Variables["AUTH"], p.Variables["REFRESH"] = "Authorization: Bearer "+answer.Access, answer.Refresh
			}
			if len(answer.Messages) > 0 {
				p.Variables["RECEIPT"] = answer.Messages[0].ReceiptHandle
			}
		}
		p.Play(t)
	})
}
