package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// scrape returns what /metrics says, as lines.
func scrape(t *testing.T, s *server) []string {
	t.Helper()
	resp, err := http.Get(s.url() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("scrape: %s, %v: %s", resp.Status, err, text)
	}
	return strings.Split(string(text), "\n")
}

// busy starts a broker and has one of everything happen to it.
func busy(t *testing.T) *server {
	t.Helper()
	s := startServer(t, "--data", t.TempDir(), "--allow-anonymous", "--bootstrap-file", bootstrapFile(t, testKeyYAML+
		"queues:\n- {name: work, topic_filter: work/#}\nstreams:\n- {name: log, topic_filter: work/#}\n"))
	api := newService(s)
	do := func(method, path string, body, data any) {
		t.Helper()
		if err := api.call(t.Context(), method, path, body, data); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		do("POST", "/topics/work%2Fa/messages", map[string]any{"payload": "x"}, nil)
	}
	host, port, _ := net.SplitHostPort(s.ports["mqtt"])
	if out, errs, code := command(t, "pub", "-h", host, "-p", port, "-q", "1", "-t", "work/b", "-m", "y"); code != 0 {
		t.Fatalf("pub: %s%s", out, errs)
	}
	var got struct{ Messages []held }
	do("POST", "/queues/work/messages/consume", map[string]any{"max_messages": 3}, &got)
	if len(got.Messages) != 3 {
		t.Fatalf("%d messages came", len(got.Messages))
	}
	do("POST", "/queues/work/messages/"+got.Messages[0].ID+"/ack", map[string]any{"receipt_handle": got.Messages[0].Receipt}, nil)
	do("POST", "/queues/work/messages/"+got.Messages[1].ID+"/nack", map[string]any{"receipt_handle": got.Messages[1].Receipt, "delay_seconds": 600}, nil)
	do("POST", "/streams/log/cursors/reader", map[string]any{"offsets": []map[string]any{{"partition": 0, "offset": 1}}}, nil)
	if err := api.call(t.Context(), "GET", "/queues/nowhere", nil, nil); err == nil {
		t.Fatal("a queue that is not there was shown")
	}
	return s
}

func TestMetricsTellWhatHappened(t *testing.T) {
	lines := scrape(t, busy(t))
	for _, want := range []string{
		`millrace_publishes_total{outcome="taken"} 4`,
		`millrace_publishes_stored_total 4`,
		`millrace_publish_duration_seconds_count 4`,
		`millrace_messages_received_total{protocol="mqtt"} 1`,
		`millrace_queue_entered_total{queue="work"} 4`,
		`millrace_queue_ready{queue="work"} 1`,
		`millrace_queue_in_flight{queue="work"} 1`,
		`millrace_queue_delayed{queue="work"} 1`,
		`millrace_queue_acked_total{queue="work"} 1`,
		`millrace_queue_nacked_total{queue="work"} 1`,
		`millrace_queue_deliveries_total{queue="work"} 3`,
		`millrace_queue_books_difference{queue="work"} 0`,
		`millrace_stream_appended_total{stream="log"} 4`,
		`millrace_stream_cursor_lag{stream="log"} 3`,
		`millrace_http_requests_total{code="404",dialect="flowmq",method="GET",route="/api/v1/queues/:queue"} 1`,
		`millrace_store_durability{level="disk"} 1`,
		`millrace_store_failed 0`,
		`millrace_ready 1`,
	} {
		if !slices.Contains(lines, want) {
			name, _, _ := strings.Cut(want, " ")
			t.Errorf("want %q; there is %q", want, grep(lines, name[:strings.IndexAny(name+"{", "{")]))
		}
	}
}

func grep(lines []string, prefix string) (found []string) {
	for _, l := range lines {
		if strings.HasPrefix(l, prefix) {
			found = append(found, l)
		}
	}
	return found
}

// TestMetricsFollowTheRules has Prometheus' own linter read the figures, and
// looks for labels that would grow with topics, clients or messages.
func TestMetricsFollowTheRules(t *testing.T) {
	lines := scrape(t, busy(t))
	problems, err := promlint.New(strings.NewReader(strings.Join(lines, "\n"))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "millrace_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, l := range lines {
		if m := regexp.MustCompile(`[{,](topic|client|client_id|message|user|address)="`).FindString(l); m != "" {
			t.Errorf("a label that grows without end: %s", l)
		}
	}
}

func TestMetricsAreForThisMachineOrWhoMayView(t *testing.T) {
	s := startServer(t, "--data", t.TempDir(), "--bootstrap-file", bootstrapFile(t, testKeyYAML+
		"- {id: looker, secret: secret-of-the-looker, role: viewer}\n- {id: device, secret: secret-of-the-device, role: client}\n"))
	get := func(id, secret, forwarded string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url()+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		if id != "" {
			req.SetBasicAuth(id, secret)
		}
		if forwarded != "" {
			req.Header.Set("X-Forwarded-For", forwarded)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // only the status counts
		return resp.StatusCode
	}
	for _, c := range []struct {
		who, id, secret, forwarded string
		want                       int
	}{
		{"this machine", "", "", "", 200},
		{"another, behind a proxy on this one", "", "", "192.0.2.1", 401},
		{"a viewer from there", "looker", "secret-of-the-looker", "192.0.2.1", 200},
		{"a client", "device", "secret-of-the-device", "192.0.2.1", 403},
		{"a wrong secret", "looker", "wrong-secret-of-it", "", 401},
	} {
		if got := get(c.id, c.secret, c.forwarded); got != c.want {
			t.Errorf("%s gets %d, want %d", c.who, got, c.want)
		}
	}
}

// TestBoardAndAlertsNameRealMetrics compares every expression of deploy/ with
// what the endpoint shows.
func TestBoardAndAlertsNameRealMetrics(t *testing.T) {
	lines := scrape(t, busy(t))
	there := map[string]bool{}
	for _, l := range lines {
		if name := regexp.MustCompile(`^[a-z_]+`).FindString(l); name != "" {
			there[name] = true
		}
	}
	for _, file := range []string{"grafana/millrace.json", "prometheus/alerts.yml"} {
		text, err := os.ReadFile(filepath.Join("../../deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		named := regexp.MustCompile(`\b(millrace|process|go)_[a-z_]+`).FindAllString(string(text), -1)
		if len(named) < 10 {
			t.Errorf("%s names %d metrics only", file, len(named))
		}
		for _, name := range named {
			if !there[name] {
				t.Errorf("%s names %s, which is not there", file, name)
			}
		}
	}
}

// TestPrometheusTakesTheRules has promtool check what deploy/ holds for it.
func TestPrometheusTakesTheRules(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (package prometheus)")
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "config", "../../deploy/prometheus/prometheus.yml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestPrometheusScrapes has a real Prometheus read the figures, with the
// configuration of deploy/ but for the address and the interval.
func TestPrometheusScrapes(t *testing.T) {
	path, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("prometheus is not installed")
	}
	s := busy(t)
	dir := t.TempDir()
	for _, name := range []string{"prometheus.yml", "alerts.yml"} {
		text, err := os.ReadFile(filepath.Join("../../deploy/prometheus", name))
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.NewReplacer("127.0.0.1:8080", s.ports["http"], "15s", "1s").Replace(string(text)))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	web := freeAddress(t)
	cmd := exec.CommandContext(t.Context(), path, "--config.file", filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", web)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	ask := func(query string) string {
		resp, err := http.Get("http://" + web + "/api/v1/query?query=" + url.QueryEscape(query))
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		var answer struct {
			Data struct{ Result []struct{ Value [2]any } }
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || len(answer.Data.Result) != 1 {
			return fmt.Sprint(answer.Data.Result, err)
		}
		return fmt.Sprint(answer.Data.Result[0].Value[1])
	}
	for query, want := range map[string]string{
		`up{job="millrace"}`:                       "1",
		`sum(millrace_publishes_total)`:            "4",
		`millrace_queue_acked_total{queue="work"}`: "1",
	} {
		got := ""
		if !eventually(30*time.Second, func() bool { got = ask(query); return got == want }) {
			t.Errorf("%s is %s, want %s; Prometheus says:\n%s", query, got, want, log.String())
		}
	}
	if got := ask(`count(ALERTS{alertstate="firing"}) or vector(0)`); got != "0" {
		t.Errorf("%s alerts fire over a healthy broker", got)
	}
	everyExpression(t, "http://"+web)
}

// everyExpression has Prometheus evaluate each expression of deploy/, and looks
// for every series and label that it names.
func everyExpression(t *testing.T, prometheus string) {
	t.Helper()
	selector := regexp.MustCompile(`\b((?:millrace|process|go)_[a-z_]+)(\{[^}]*\})?`)
	matcher := regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"[^"]*"`)
	for file, exprs := range expressions(t) {
		if len(exprs) < 10 {
			t.Errorf("%s has %d expressions only", file, len(exprs))
		}
		for _, expr := range exprs {
			expr = strings.NewReplacer("$instance", ".*", "$__rate_interval", "1m").Replace(expr)
			if _, err := evaluate(prometheus, expr); err != nil || strings.Contains(expr, "$") {
				t.Errorf("%s: %s: %v", file, expr, err)
			}
			for _, m := range selector.FindAllStringSubmatch(expr, -1) {
				there := m[1] + matcher.ReplaceAllString(m[2], `$1!=""`) // whatever the value is
				if n, err := evaluate(prometheus, there); err != nil || n == 0 {
					t.Errorf("%s: %s: there is no %s, %v", file, expr, there, err)
				}
			}
		}
	}
}

// expressions are those of each file of deploy/ that has some.
func expressions(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, file := range []string{"grafana/millrace.json", "prometheus/alerts.yml"} {
		text, err := os.ReadFile(filepath.Join("../../deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		if err := yaml.Unmarshal(text, &doc); err != nil { // JSON is YAML
			t.Fatal(err)
		}
		var find func(v any)
		find = func(v any) {
			switch v := v.(type) {
			case []any:
				for _, part := range v {
					find(part)
				}
			case map[string]any:
				for key, part := range v {
					if expr, ok := part.(string); ok && key == "expr" {
						all[file] = append(all[file], expr)
					}
					find(part)
				}
			}
		}
		find(doc)
	}
	return all
}

// evaluate returns how many series an expression has now.
func evaluate(prometheus, expr string) (int, error) {
	resp, err := http.Get(prometheus + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result []any }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if answer.Status != "success" {
		return 0, errors.New(answer.Error)
	}
	return len(answer.Data.Result), nil
}

// freeAddress is a loopback address where nobody listened a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
