package memfifo_test

import (
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
)

// word is a part of a command, bare or in quotes.
var word = regexp.MustCompile(`'[^']*'|\S+`)

func TestCommandsOfThePageWork(t *testing.T) {
	text, err := os.ReadFile("../../docs/dialects/memfifo.md")
	must(t, err)
	commands := regexp.MustCompile(`(?m)^curl -s (.*)$`).FindAllStringSubmatch(string(text), -1)
	shown := map[string]bool{}
	d := open(t)
	for _, c := range commands {
		method, body, path, headers := "GET", "", "", []string(nil)
		args := word.FindAllString(strings.ReplaceAll(c[1], "$MEMFIFO", ""), -1)
		for i := 0; i < len(args); i++ {
			switch args[i] {
			case "-H":
				i++
				headers = append(headers, strings.Trim(args[i], "'"))
			case "-X":
				i++
				method = args[i]
			case "-d":
				i++
				if body = strings.Trim(args[i], "'"); method == "GET" {
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
		if w := d.send(r); w.Code != 200 {
			t.Errorf("%s: %d %s", c[0], w.Code, w.Body)
		}
		shown[routeOf(method, path)] = true
	}
	for route := range shown {
		if route == "" {
			t.Error("a command goes to no route")
		}
	}
	if len(shown) != 8 {
		t.Errorf("the page has commands for %d of 8 routes: %v", len(shown), shown)
	}
}
