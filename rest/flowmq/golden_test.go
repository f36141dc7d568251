package flowmq_test

import (
	"regexp"
	"strings"
	"testing"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/flowmq"
	"millrace/rest/internal/httpx"
	"millrace/rest/internal/resttest"
)

var transcripts = resttest.Transcripts{
	Document:    document,
	RenderError: flowmq.RenderError,
	Failures: map[string]error{
		"too many keys": httpx.AccountError(&auth.LimitError{What: "keys", Max: 100_000}, "key x"),
		"offset":        &broker.Error{Kind: broker.Invalid, Subject: broker.OffsetSubject, Message: "offset 3 is below the earliest, 7"},
	},
	Open: func(t *testing.T) resttest.Session {
		d := open(t)
		return resttest.Session{Send: d.Send, Steps: map[string]func(*testing.T, string, []byte){
			"close": func(*testing.T, string, []byte) { d.Stop() },
		}}
	},
	Hide: hide,
}

func TestTranscripts(t *testing.T) { transcripts.Run(t) }

func TestTranscriptsShowEveryRouteAndEveryCode(t *testing.T) {
	var texts []string
	for code := range flowmq.Codes() {
		texts = append(texts, `"code": "`+code+`"`)
	}
	transcripts.CheckShown(t, texts...)
}

var (
	secrets = regexp.MustCompile(`"(access_token|refresh_token|secret)": "([^" ]+)"`)
	signers = regexp.MustCompile(`"id": "([A-Za-z0-9_-]{16})"`)
	values  = regexp.MustCompile(`\b(?:(?:msg_)?[0-7][0-9A-HJKMNP-TV-Z]{25}|[A-Za-z0-9_-]{87}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)\b`)
)

// hide replaces ids, receipts, times and what is secret by names.
func hide(n *resttest.Names, text []byte) []byte {
	text = secrets.ReplaceAllFunc(text, func(v []byte) []byte {
		m := secrets.FindSubmatch(v)
		kind, _, _ := strings.Cut(string(m[1]), "_")
		return []byte(`"` + string(m[1]) + `": "` + n.Of(kind, string(m[2])) + `"`)
	})
	text = signers.ReplaceAllFunc(text, func(v []byte) []byte {
		return []byte(`"id": "` + n.Of("signer", string(signers.FindSubmatch(v)[1])) + `"`)
	})
	return values.ReplaceAllFunc(text, func(v []byte) []byte {
		s := string(v)
		ulid, prefixed := strings.CutPrefix(s, "msg_")
		switch {
		case len(s) == 24:
			return []byte("TIME")
		case len(s) == 87:
			return []byte(n.Of("receipt", s))
		case prefixed:
			return []byte(n.Of("msg", s))
		}
		return []byte("ulid-of-" + n.Of("msg", "msg_"+ulid))
	})
}
