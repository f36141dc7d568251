package resttest

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
)

// Page is documentation whose lines "curl -s ..." must work, in their order.
type Page struct {
	Files     []string
	Document  *Document
	Variables map[string]string // of the shell
	Send      func(*http.Request) *httptest.ResponseRecorder
	// Answer may set variables from an answer; nil = none are.
	Answer func(t *testing.T, body []byte)
}

var command = regexp.MustCompile(`(?m)^curl -s (.*)$`)

// Play sends every command, each of which must succeed; together they show
// every route of the document.
func (p *Page) Play(t *testing.T) {
	t.Helper()
	var text []byte
	for _, f := range p.Files {
		part, err := os.ReadFile(f)
		Must(t, err)
		text = append(text, part...)
	}
	shown := map[string]bool{}
	for _, c := range command.FindAllStringSubmatch(string(text), -1) {
		r := p.request(t, c[1])
		w := p.Send(r)
		if w.Code/100 != 2 {
			t.Errorf("%s: %d %s", c[0], w.Code, w.Body)
		}
		routes := p.Document.RoutesOf(r.Method, r.URL.EscapedPath())
		if len(routes) == 0 {
			t.Errorf("%s: goes to no route", c[0])
		}
		for _, route := range routes {
			shown[route] = true
		}
		if p.Answer != nil && w.Body.Len() > 0 {
			p.Answer(t, w.Body.Bytes())
		}
	}
	for _, route := range p.Document.Routes {
		if !shown[route] {
			t.Errorf("the page has no command for %s", route)
		}
	}
}

// request is what a command asks for.
func (p *Page) request(t *testing.T, line string) *http.Request {
	t.Helper()
	method, body, path, headers := "GET", "", "", []string(nil)
	args := words(line, func(name string) string { return p.Variables[name] })
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-H":
			i++
			headers = append(headers, args[i])
		case "-o":
			i++ // the answer is a file
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
	return r
}

var variable = regexp.MustCompile(`^[A-Z]+`)

// words splits a command as a shell does, as far as the pages use one.
func words(line string, value func(string) string) (all []string) {
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
			name := variable.FindString(line[i+1:])
			word.WriteString(value(name))
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
