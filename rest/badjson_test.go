package rest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf16"

	"millrace/rest"
	"millrace/rest/fastqueue"
)

// jsonDoor is a call of a dialect that takes JSON; body has %s where members
// may follow, and %d where each call needs another name.
type jsonDoor struct {
	name, url, body string
	strict          bool // unknown members are mistakes
	textPlain       int  // status of a body that is called text
}

func (s *site) jsonDoors() []jsonDoor {
	return []jsonDoor{
		{"flowmq", s.url("/api/v1/queues"), `{"name":"f%d","topic_filter":"a"%s}`, true, 201},
		{"emqx", s.url("/api/v5/publish"), `{"topic":"a%d","payload":"x"%s}`, false, 415},
		{"fastqueue", s.url("/v1/queues"), `{"name":"fq%d","max_length":10%s}`, false, 201},
		{"pulsar", s.url("/topics/persistent/public/default/x"), `{"producerName":"p%d","messages":[{"payload":"eA=="}]%s}`, false, 200},
		{"memfifo", "http://" + s.Addr("memfifo").String() + "/queues", `{"name":"m%d","driver":"memfifo"%s}`, true, 400},
	}
}

// twice repeats the first member of an object with another value.
func twice(body string) string {
	name, _, _ := strings.Cut(body, ":")
	return body[:len(body)-1] + "," + name[1:] + `:"other"}`
}

func wide(body string) string {
	var b strings.Builder
	for _, u := range utf16.Encode([]rune(body)) {
		b.Write([]byte{byte(u), byte(u >> 8)})
	}
	return "\xff\xfe" + b.String()
}

func TestBadJSONIs400AtEveryDoor(t *testing.T) { // X196 to X202
	s := openSite(t, nil)
	n := 0
	for _, d := range s.jsonDoors() {
		body := func(more string) string { n++; return fmt.Sprintf(d.body, n, more) }
		if w, text := s.do(t, "POST", d.url, body("")); w.StatusCode/100 != 2 {
			t.Errorf("%s: a good body is answered %d %s", d.name, w.StatusCode, text)
		}
		for name, bad := range map[string]string{
			"X196 a second value": body("") + " {}", "X196 a list": "[]", "X196 half": body("")[:9], "X197 twice": twice(body("")),
			"X199 33 levels": body(`,"surplus":` + strings.Repeat("[", 32) + strings.Repeat("]", 32)), "X199 100,000 levels": body(`,"surplus":` + strings.Repeat("[", 100_000)),
			"X201 bad UTF-8": strings.Replace(body(""), `":"`, "\":\"\xff", 1), "X201 half a pair": strings.Replace(body(""), `":"`, `":"\ud800`, 1),
			"X202 a mark": "\xef\xbb\xbf" + body(""), "X202 UTF-16": wide(body("")),
		} {
			if w, text := s.do(t, "POST", d.url, bad); w.StatusCode != 400 || !json.Valid([]byte(text)) {
				t.Errorf("%s: %s is answered %d %s", d.name, name, w.StatusCode, text)
			}
		}
		upper := strings.ToUpper(strings.Split(d.body, `"`)[1])
		for _, unknown := range []string{"surplus", upper} { // X198
			w, text := s.do(t, "POST", d.url, body(`,"`+unknown+`":1`))
			if d.strict && (w.StatusCode != 400 || !strings.Contains(text, unknown)) || !d.strict && w.StatusCode/100 != 2 {
				t.Errorf("%s: a member %s is answered %d %s", d.name, unknown, w.StatusCode, text)
			}
		}
	}
}

func TestTheContentTypeCountsWhereTheRealServersLookAtIt(t *testing.T) { // X203
	s := openSite(t, nil)
	for n, d := range s.jsonDoors() {
		r, err := http.NewRequestWithContext(t.Context(), "POST", d.url, strings.NewReader(fmt.Sprintf(d.body, n, "")))
		must(t, err)
		r.Header = http.Header{"Authorization": {bearer}, "Client-Id": {"test"}, "Content-Type": {"text/plain"}}
		w, err := http.DefaultClient.Do(r)
		must(t, err)
		text, _ := io.ReadAll(w.Body)
		must(t, w.Body.Close())
		if w.StatusCode != d.textPlain {
			t.Errorf("%s: %d %s, want %d", d.name, w.StatusCode, text, d.textPlain)
		}
	}
}

// as sends a request with a token, or none, and returns the answer's members.
func (s *site) as(t *testing.T, token, method, path, body string) (int, map[string]any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url(path), strings.NewReader(body))
	must(t, err)
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w, err := http.DefaultClient.Do(r)
	must(t, err)
	text, err := io.ReadAll(w.Body)
	must(t, err)
	must(t, w.Body.Close())
	var answer map[string]any
	_ = json.Unmarshal(text, &answer) // not every answer is an object
	return w.StatusCode, answer
}

func TestNobodyGivesHimselfRights(t *testing.T) { // X268, X274
	s := openSite(t, func(o *rest.Options) { o.FastQueue = fastqueue.Options{Registration: true} })
	const words = "a password of hers"
	for _, more := range []string{`,"role":"admin"`, `,"superuser":true`, `,"scopes":["#"],"is_admin":1`} {
		name := fmt.Sprintf("ann%d", len(more))
		if status, answer := s.as(t, "", "POST", "/v1/auth/register", `{"username":"`+name+`","password":"`+words+`"`+more+`}`); status != 200 {
			t.Fatalf("register with %s: %d %v", more, status, answer)
		}
		status, answer := s.as(t, "", "POST", "/v1/auth/login", `{"username":"`+name+`","password":"`+words+`"}`)
		token, _ := answer["access_token"].(string)
		if status != 200 || token == "" {
			t.Fatalf("login: %d %v", status, answer)
		}
		for _, path := range []string{"/api/v1/queues", "/api/v1/users", "/api/v5/clients", "/admin/v2/persistent/public/default/x/partitions"} {
			if status, _ := s.as(t, token, "GET", path, ""); status != 401 {
				t.Errorf("%s: %d for an account that registered with %s", path, status, more)
			}
		}
	}
	s.do(t, "POST", s.url("/api/v1/users"), `{"username":"bob","password":"`+words+`"}`)
	status, answer := s.as(t, "", "POST", "/api/v1/login", `{"username":"bob","password":"`+words+`"}`)
	data, _ := answer["data"].(map[string]any)
	token, _ := data["access_token"].(string)
	if status != 200 || token == "" {
		t.Fatalf("login: %d %v", status, answer)
	}
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"PATCH", "/api/v1/users/bob", `{"superuser":true}`, 403},
		{"POST", "/api/v1/login/password", `{"username":"bob","password":"` + words + `","new_password":"another one of his","superuser":true}`, 400},
		{"POST", "/api/v1/login", `{"username":"bob","password":"` + words + `","role":"administrator"}`, 400},
		{"POST", "/api/v1/keys", `{"id":"mine","role":"administrator"}`, 403},
		{"PUT", "/api/v1/rules", `{"rules":[]}`, 403},
		{"POST", "/api/v1/login/password", `{"username":"bob","password":"` + words + `","new_password":"another one of his"}`, 200},
	} {
		if status, answer := s.as(t, token, c.method, c.path, c.body); status != c.want {
			t.Errorf("%s %s %s: %d %v, want %d", c.method, c.path, c.body, status, answer, c.want)
		}
	}
	if _, text := s.do(t, "GET", s.url("/api/v1/users/bob"), ""); !strings.Contains(text, `"superuser":false`) {
		t.Errorf("now he is %s", text)
	}
}
