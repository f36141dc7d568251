package fastqueue_test

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"millrace/rest/fastqueue"
)

// words splits a command as a shell does, as far as the page uses one.
func words(line string, variable func(string) string) (all []string) {
	var word strings.Builder
	var quote byte
	started := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quote == 0 && c == ' ':
			if started {
				all = append(all, word.String())
				word.Reset()
			}
			started = false
		case quote == 0 && (c == '\'' || c == '"'):
			quote, started = c, true
		case c == quote:
			quote = 0
		case c == '\\' && quote == '"':
			i++
			word.WriteByte(line[i])
		case c == '$' && quote != '\'':
			name := regexp.MustCompile(`^[A-Z]+`).FindString(line[i+1:])
			word.WriteString(variable(name))
			i += len(name)
			started = true
		default:
			word.WriteByte(c)
			started = true
		}
	}
	if started {
		all = append(all, word.String())
	}
	return all
}

func TestCommandsOfThePageWork(t *testing.T) {
	text, err := os.ReadFile("../../docs/dialects/fastqueue.md")
	must(t, err)
	commands := regexp.MustCompile(`(?m)^curl -s (.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(commands) < 20 {
		t.Fatalf("only %d commands were found", len(commands))
	}
	shown := map[string]bool{}
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		variables := map[string]string{"MILLRACE": ""}
		for _, c := range commands {
			method, body, path, headers := "GET", "", "", []string(nil)
			args := words(c[1], func(name string) string { return variables[name] })
			for i := 0; i < len(args); i++ {
				switch args[i] {
				case "-H":
					i++
					headers = append(headers, args[i])
				case "-X":
					i++
					method = args[i]
				case "-d":
					i++
					if body = args[i]; method == "GET" {
						method = "POST"
					}
				default:
					path = args[i]
				}
			}
			r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
			for _, h := range headers {
				k, v, _ := strings.Cut(h, ": ")
				r.Header.Set(k, v)
			}
			w := d.send(r)
			if w.Code/100 != 2 {
				t.Errorf("%s: %d %s", c[0], w.Code, w.Body)
			}
			for route := range routesOf(method, r.URL.EscapedPath()) {
				shown[route] = true
			}
			var answer struct {
				Access   string `json:"access_token"`
				Refresh  string `json:"refresh_token"`
				Messages []message
			}
			if w.Body.Len() > 0 {
				must(t, json.Unmarshal(w.Body.Bytes(), &answer))
			}
			if answer.Access != "" {
				variables["AUTH"], variables["REFRESH"] = "Authorization: Bearer "+answer.Access, answer.Refresh
			}
			if len(answer.Messages) > 0 {
				variables["RECEIPT"] = answer.Messages[0].ReceiptHandle
			}
		}
	})
	for _, route := range fastqueue.RoutePaths() {
		if !shown[route] {
			t.Errorf("the page has no command for %s", route)
		}
	}
}
