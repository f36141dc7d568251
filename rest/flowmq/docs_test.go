package flowmq_test

import (
	"encoding/json"
	"strconv"
	"testing"
	"testing/synctest"

	"millrace/persistence/local"
	"millrace/rest/internal/resttest"
)

func TestCommandsOfThePageWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := resttest.Page{
			Files:     []string{"../../docs/dialects/flowmq.md", "../../docs/access.md"},
			Document:  document,
			Variables: map[string]string{"AUTH": "Authorization: Bearer root." + secret, "MILLRACE": ""},
			Send:      openOver(t, local.Options{Dir: t.TempDir()}).Send, // one with something to back up
		}
		p.Answer = func(t *testing.T, body []byte) {
			if body[0] != '{' {
				return // a file
			}
			var answer struct {
				Data struct {
					Messages     []message
					AccessToken  string `json:"access_token"`
					RefreshToken string `json:"refresh_token"`
				}
			}
			must(t, json.Unmarshal(body, &answer))
			if answer.Data.AccessToken != "" {
				p.Variables["TOKEN"], p.Variables["REFRESH"] = answer.Data.AccessToken, answer.Data.RefreshToken
			}
			if ms := answer.Data.Messages; len(ms) > 0 && ms[0].ReceiptHandle != "" {
				p.Variables["ID"], p.Variables["RECEIPT"] = ms[0].MessageID, ms[0].ReceiptHandle
				p.Variables["PARTITION"], p.Variables["OFFSET"] = strconv.Itoa(ms[0].Partition), strconv.Itoa(ms[0].Offset)
			}
		}
		p.Play(t)
	})
}
