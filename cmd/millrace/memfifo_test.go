package main_test

import (
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// memfifo sends a request as a program of that API does.
func (s *server) memfifo(t *testing.T, method, path, contentType, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.ports["memfifo"]+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Client-Id", "test")
	r.Header.Set("Content-Type", contentType)
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.StatusCode, string(text)
}

func (s *server) wantMemfifo(t *testing.T, status int, method, path, body, want string) {
	t.Helper()
	if got, text := s.memfifo(t, method, path, "application/json", body); got != status || !strings.Contains(text, want) {
		t.Errorf("%s %s: %d %s, want %d %s", method, path, got, text, status, want)
	}
}

func TestDevelopmentOpensMemfifoWithoutCredentials(t *testing.T) {
	needTools(t)
	s := startDev(t, "--data", t.TempDir())
	s.wantMemfifo(t, 200, "POST", "/queues", `{"name":"volatile","driver":"memfifo"}`, `"volatile"`)
	s.wantMemfifo(t, 200, "POST", "/queues", `{"name":"fed","driver":"logfifo","attributes":{"topic-filter":"fed/#"}}`, `"fed"`)
	_, port, _ := strings.Cut(s.ports["mqtt"], ":")
	if out, err := exec.Command("mosquitto_pub", "-p", port, "-t", "fed/1", "-m", "from a device", "-q", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.wantMemfifo(t, 200, "GET", "/queues/fed/messages", "", "from a device")
	s.wantMemfifo(t, 204, "GET", "/queues/fed/messages", "", "")
	if status, _ := s.memfifo(t, "GET", "/queues/demo", "", ""); status != 404 {
		t.Errorf("a queue made elsewhere: %d", status)
	}
}

func TestMemfifoAfterAKillHasWhatIsOnDisk(t *testing.T) {
	data := t.TempDir()
	args := []string{"--data", data, "--memfifo-listen", "127.0.0.1:0", "--set", "memfifo.auth=false"}
	s := startServer(t, args...)
	for _, driver := range []string{"memfifo", "logfifo"} {
		s.wantMemfifo(t, 200, "POST", "/queues", `{"name":"`+driver+`","driver":"`+driver+`"}`, driver)
		for _, body := range []string{"1", "2"} {
			s.wantMemfifo(t, 200, "POST", "/queues/"+driver+"/messages", body, driver)
		}
		s.wantMemfifo(t, 200, "GET", "/queues/"+driver+"/messages", "", "1")
	}
	s.kill()
	s = startServer(t, args...)
	s.wantMemfifo(t, 200, "GET", "/queues/logfifo/messages", "", "2")
	for _, driver := range []string{"memfifo", "logfifo"} {
		s.wantMemfifo(t, 204, "GET", "/queues/"+driver+"/messages", "", "")
		s.wantMemfifo(t, 200, "DELETE", "/queues/"+driver, "", "")
	}
}

func TestMemfifoWantsCredentialsOutsideOfDevelopment(t *testing.T) {
	s := startServer(t, "--data", t.TempDir(), "--memfifo-listen", "127.0.0.1:0")
	if status, text := s.memfifo(t, "GET", "/queues", "", ""); status != 401 {
		t.Errorf("%d %s", status, text)
	}
}
