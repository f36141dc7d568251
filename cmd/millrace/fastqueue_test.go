package main_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// post sends a body without a Content-Type, as curl -d does not mind either.
func post(t *testing.T, url, token, body string) (status int, answer map[string]any) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s answered %s", url, text)
	}
	return w.StatusCode, answer
}

func TestFastQueueIsAtItsOwnPortAndAtTheSharedOne(t *testing.T) {
	s := startDev(t)
	own, shared := "http://"+s.ports["fastqueue"], "http://"+s.ports["http"]
	password := `{"username":"admin","password":"correct horse"}`
	if status, answer := post(t, own+"/v1/auth/register", "", password); status != 200 {
		t.Fatalf("register: %d %v", status, answer)
	}
	_, tokens := post(t, shared+"/v1/auth/login", "", password)
	token, _ := tokens["access_token"].(string)
	if status, answer := post(t, own+"/v1/queues", token, `{"name":"fq"}`); status != 201 {
		t.Fatalf("create: %d %v", status, answer)
	}
	if status, answer := post(t, own+"/v1/queue/fq", token, `{"Action":"SendMessage","MessageBody":"hello"}`); status != 200 {
		t.Fatalf("send: %d %v", status, answer)
	}
	status, answer := post(t, shared+"/v1/queue/fq", token, `{"Action":"ReceiveMessage"}`)
	if ms, _ := answer["Messages"].([]any); status != 200 || len(ms) != 1 {
		t.Errorf("receive: %d %v", status, answer)
	}
	if status, _ := post(t, shared+"/api/v1/queues/fq/messages/consume", token, `{}`); status != 401 {
		t.Errorf("/api/v1 takes the token: %d", status)
	}
}

func TestRegistrationIsOffOutsideDevelopment(t *testing.T) {
	s := startServer(t, "--fastqueue-listen", "127.0.0.1:0", "--data", t.TempDir())
	status, answer := post(t, "http://"+s.ports["fastqueue"]+"/v1/auth/register", "", `{"username":"ann","password":"correct horse"}`)
	if detail, _ := answer["detail"].(string); status != 403 || !strings.Contains(detail, "fastqueue.registration") {
		t.Errorf("%d %v", status, answer)
	}
}
