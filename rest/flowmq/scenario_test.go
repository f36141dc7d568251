package flowmq_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker/auth"
	"millrace/broker/scenario"
	"millrace/persistence/local"
	"millrace/rest/internal/resttest"
)

// httpDoor plays steps through the dialect.
type httpDoor struct {
	scenario.Core
	*door
	t        *testing.T
	dir      string // "" = the memory driver
	receipts scenario.Receipts
}

// open starts a broker on the data of the world.
func (h *httpDoor) open() {
	h.door = openOver(h.t, local.Options{Dir: h.dir, SegmentSize: 1 << 20, FirstSegmentSize: 64 << 10})
	h.Core.Broker = h.door.Broker //nolint:staticcheck // both are called Broker
	h.Ctx = auth.WithPrincipal(context.WithoutCancel(h.t.Context()), &auth.Principal{Kind: auth.System})
}

func (h *httpDoor) Restart() error {
	h.End()
	h.open()
	return nil
}
func (h *httpDoor) Settle() { synctest.Wait() }

func (h *httpDoor) Do(s *scenario.Step) (string, error) {
	name := url.PathEscape(s.Args[0])
	queue := "/api/v1/queues/" + name
	switch s.Verb {
	case "queue":
		return h.word(h.door.Do(h.t, "POST", "/api/v1/queues", settings(s.Options, "name", s.Args[0])))
	case "set":
		return h.word(h.door.Do(h.t, "PATCH", queue, settings(s.Options)))
	case "delete":
		return h.word(h.door.Do(h.t, "DELETE", queue, ""))
	case "publish":
		return h.publish(s, name)
	case "receive":
		return h.receive(s, queue)
	case "ack", "nack", "extend":
		return h.settle(s, queue)
	case "peek":
		return h.peek(s, queue)
	case "purge":
		w := h.door.Do(h.t, "POST", queue+"/purge?all="+s.Option("all", "false"), "")
		return strconv.Itoa(parse[struct{ Purged int }](h.t, w).Data.Purged), nil
	case "pause", "resume":
		return h.word(h.door.Do(h.t, "POST", queue+"/"+s.Verb, ""))
	case "redrive":
		return h.move(s, queue+"/dead/redrive")
	case "move":
		return h.move(s, queue+"/move")
	case "counts":
		c := parse[map[string]any](h.t, h.door.Do(h.t, "GET", queue, "")).Data
		return fmt.Sprintf("ready=%v leased=%v delayed=%v dead=%v", c["ready_count"], c["in_flight_count"], c["delayed_count"], c["dead_count"]), nil
	}
	return h.Core.Do(s)
}

func (h *httpDoor) move(s *scenario.Step, path string) (string, error) {
	body := map[string]any{"dry_run": s.Options["dry_run"] == "true"}
	for option, member := range map[string]string{"to": "to", "filter": "topic_filter"} {
		if v, ok := s.Options[option]; ok {
			body[member] = v
		}
	}
	text, _ := json.Marshal(body)
	w := h.door.Do(h.t, "POST", path, string(text))
	if w.Code != 200 {
		return h.word(w)
	}
	m := parse[struct{ Matched, Moved int }](h.t, w).Data
	if body["dry_run"] == true {
		return fmt.Sprintf("%d matched", m.Matched), nil
	}
	return fmt.Sprintf("%d moved", m.Moved), nil
}

// settings writes the options of a step as a body; more are name, value, ...
func settings(options map[string]string, more ...string) string {
	body := map[string]any{}
	for i := 0; i < len(more); i += 2 {
		body[more[i]] = more[i+1]
	}
	for k, v := range options {
		least, most, isRange := strings.Cut(v, "..")
		n, err := strconv.Atoi(v)
		switch {
		case k == "filter":
			body["topic_filter"] = v
		case isRange:
			body[k] = map[string]any{"min_seconds": whole(least), "max_seconds": whole(most)}
		case v == "null":
			body[k] = nil
		case v == "true", v == "false":
			body[k] = v == "true"
		case err == nil:
			body[k] = n
		default:
			body[k] = v
		}
	}
	text, _ := json.Marshal(body) // plain values
	return string(text)
}

func whole(duration string) int {
	d, err := time.ParseDuration(duration)
	if err != nil || d%time.Second != 0 {
		panic("not whole seconds: " + duration)
	}
	return int(d / time.Second)
}

func (h *httpDoor) publish(s *scenario.Step, topic string) (string, error) {
	m := map[string]any{"payload": strings.Join(s.Args[1:], " "), "partition_key": s.Options["key"], "retain": s.Options["retain"] == "true"}
	for option, member := range map[string]string{"delay": "delay_seconds", "expires": "expiry_seconds"} {
		if v, ok := s.Options[option]; ok {
			m[member] = whole(v)
		}
	}
	body, _ := json.Marshal(m)
	var w *httptest.ResponseRecorder
	if key := s.Options["once"]; key != "" {
		w = h.once(h.t, key, "/api/v1/topics/"+topic+"/messages", string(body))
	} else {
		w = h.door.Do(h.t, "POST", "/api/v1/topics/"+topic+"/messages", string(body))
	}
	if w.Code == 200 && parse[struct{ Duplicate bool }](h.t, w).Data.Duplicate {
		return "duplicate", nil
	}
	return h.word(w)
}

func (h *httpDoor) receive(s *scenario.Step, queue string) (string, error) {
	most, _ := strconv.Atoi(s.Option("max", "10"))
	body := map[string]int{"max_messages": most, "timeout_seconds": whole(s.Option("wait", "0s"))}
	if v, ok := s.Options["lease"]; ok {
		body["visibility_timeout_seconds"] = whole(v)
	}
	text, _ := json.Marshal(body)
	w := h.door.Do(h.t, "POST", queue+"/messages/consume", string(text))
	if w.Code != 200 {
		return h.word(w)
	}
	var seen []string
	for _, m := range parse[struct{ Messages []message }](h.t, w).Data.Messages {
		h.receipts.Keep(s.Args[0], m.Payload, m.ReceiveCount, m.MessageID, m.ReceiptHandle)
		seen = append(seen, fmt.Sprintf("%s (attempt %d)", m.Payload, m.ReceiveCount))
	}
	return scenario.List(seen), nil
}

func (h *httpDoor) settle(s *scenario.Step, queue string) (string, error) {
	r, err := h.receipts.Find(s.Args[0], s.Args[1])
	if err != nil {
		return "", err
	}
	body := map[string]any{"receipt_handle": r.Receipt}
	switch v, delayed := s.Options["delay"]; {
	case s.Verb == "nack" && delayed:
		body["delay_seconds"] = whole(v)
	case s.Verb == "extend":
		body["visibility_timeout_seconds"] = whole(s.Args[2])
	}
	text, _ := json.Marshal(body)
	w := h.door.Do(h.t, "POST", queue+"/messages/"+r.ID+"/"+s.Verb, string(text))
	if s.Verb == "ack" && w.Code == 200 {
		return parse[struct{ State string }](h.t, w).Data.State, nil
	}
	return h.word(w)
}

func (h *httpDoor) peek(s *scenario.Step, queue string) (string, error) {
	w := h.door.Do(h.t, "GET", queue+"/messages?limit=100&state="+s.Option("state", "ready"), "")
	if w.Code != 200 {
		return h.word(w)
	}
	var seen []string
	for _, m := range parse[struct{ Messages []message }](h.t, w).Data.Messages {
		seen = append(seen, m.Payload)
	}
	return scenario.List(seen), nil
}

// word says in one word how the dialect answered.
func (h *httpDoor) word(w *httptest.ResponseRecorder) (string, error) {
	e := parse[any](h.t, w).Error
	if e == nil {
		return "ok", nil
	}
	words := map[string]string{
		"INVALID_RECEIPT_HANDLE": "stale", "INVALID_PARAMETER": "invalid", "INVALID_TOPIC": "invalid", "INVALID_TOPIC_FILTER": "invalid",
		"QUEUE_NOT_FOUND": "unknown", "MESSAGE_NOT_FOUND": "unknown", "ALREADY_EXISTS": "exists", "CONFLICT": "conflict", "QUEUE_FULL": "full",
	}
	if word, ok := words[e.Code]; ok {
		return word, nil
	}
	return "", fmt.Errorf("status %d: %s", w.Code, w.Body)
}

func TestScenariosThroughTheDialect(t *testing.T) {
	for _, s := range resttest.Scenarios(t) {
		t.Run(s.Name, func(t *testing.T) {
			playScript(t, s, "", scenario.NoRestart)
			playScript(t, s, t.TempDir(), scenario.NoRestart)
			for i := range s.Steps {
				if !testing.Short() {
					playScript(t, s, t.TempDir(), i)
				}
			}
		})
	}
}

// playScript plays a script over a new broker in dir, or in memory, with one
// more restart before a step.
func playScript(t *testing.T, s *scenario.Script, dir string, restartAt int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &httpDoor{t: t, dir: dir}
		h.open()
		if err := scenario.Play(s, h, restartAt); err != nil {
			t.Error(err)
		}
	})
}
