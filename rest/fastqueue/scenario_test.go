package fastqueue_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/broker/scenario"
	"millrace/persistence/local"
	"millrace/rest/internal/resttest"
)

// fastDoor plays steps through the dialect as far as it has words for them:
// receive, ack, extend, nack at once, counts, delete. The rest goes to the core.
type fastDoor struct {
	scenario.Core
	*door
	t        *testing.T
	dir      string // "" = the memory driver
	receipts scenario.Receipts
}

func (f *fastDoor) open() {
	f.door = openOn(f.t, local.Options{Dir: f.dir, SegmentSize: 1 << 20, FirstSegmentSize: 64 << 10})
	f.Core.Broker = f.door.Broker //nolint:staticcheck // both are called Broker
	f.Ctx = auth.WithPrincipal(context.WithoutCancel(f.t.Context()), &auth.Principal{Kind: auth.System})
}

func (f *fastDoor) Restart() error {
	f.End()
	f.open()
	return nil
}
func (f *fastDoor) Settle() { synctest.Wait() }

func (f *fastDoor) Do(s *scenario.Step) (string, error) {
	switch s.Verb {
	case "receive":
		return f.receive(s)
	case "ack", "nack", "extend":
		return f.settle(s)
	case "counts":
		if !strings.Contains(s.Want, "dead") {
			return f.counts(s)
		}
	case "delete":
		if status, _ := f.call("DELETE", "/v1/queues/"+s.Args[0], ""); status != 204 {
			return "unknown", nil
		}
		return "ok", nil
	}
	return f.Core.Do(s)
}

// call sends a request and returns its answer, or how it was refused.
func (f *fastDoor) call(method, path, body string) (int, json.RawMessage) {
	w := f.door.Do(f.t, method, path, body)
	return w.Code, w.Body.Bytes()
}

// action performs one on a queue.
func (f *fastDoor) action(queue, name string, members map[string]any) (int, json.RawMessage) {
	members["Action"] = name
	body, _ := json.Marshal(members) // plain values
	return f.call("POST", "/v1/queue/"+queue, string(body))
}

func seconds(text string) int {
	d, err := time.ParseDuration(text)
	if err != nil || d%time.Second != 0 {
		panic("not whole seconds: " + text)
	}
	return int(d / time.Second)
}

func (f *fastDoor) receive(s *scenario.Step) (string, error) {
	most, _ := strconv.Atoi(s.Option("max", "10"))
	members := map[string]any{"MaxNumberOfMessages": most, "WaitTimeSeconds": seconds(s.Option("wait", "0s"))}
	if v, ok := s.Options["lease"]; ok {
		members["VisibilityTimeout"] = seconds(v)
	}
	status, answer := f.action(s.Args[0], "ReceiveMessage", members)
	if status == 404 {
		return "unknown", nil
	}
	var got struct{ Messages []message }
	if err := json.Unmarshal(answer, &got); err != nil || status != 200 {
		return "", fmt.Errorf("%d %s", status, answer)
	}
	var seen []string
	for _, m := range got.Messages {
		f.receipts.Keep(s.Args[0], m.Body, m.ApproximateReceiveCount, m.MessageID, m.ReceiptHandle)
		seen = append(seen, fmt.Sprintf("%s (attempt %d)", m.Body, m.ApproximateReceiveCount))
	}
	return scenario.List(seen), nil
}

func (f *fastDoor) settle(s *scenario.Step) (string, error) {
	r, err := f.receipts.Find(s.Args[0], s.Args[1])
	if err != nil {
		return "", err
	}
	members, action, done := map[string]any{"ReceiptHandle": r.Receipt}, "ChangeMessageVisibility", "ok"
	switch s.Verb {
	case "ack":
		action, done = "DeleteMessage", "removed"
	case "extend":
		members["VisibilityTimeout"] = seconds(s.Args[2])
	default:
		if s.Options["delay"] != "0s" { // FastQueue has no such word
			return f.core(s, r)
		}
		members["VisibilityTimeout"] = 0
	}
	switch status, answer := f.action(s.Args[0], action, members); status {
	case 200:
		return done, nil
	case 400:
		return "invalid", nil
	case 404: // which has one word for all that a handle is not good for
		return f.core(s, r)
	default:
		return "", fmt.Errorf("%d %s", status, answer)
	}
}

// core asks the core what FastQueue has no word for, or no word of its own.
func (f *fastDoor) core(s *scenario.Step, r scenario.Receipt) (string, error) {
	id, err := broker.ParseID(r.ID)
	if err != nil {
		return "", err
	}
	word := "ok"
	switch s.Verb {
	case "ack":
		var state broker.AckState
		if state, err = f.Broker.Ack(f.Ctx, s.Args[0], id, r.Receipt); state == broker.Removed {
			return "", fmt.Errorf("the core removes what the dialect does not find")
		}
		word = string(state)
	case "extend":
		_, err = f.Broker.Extend(f.Ctx, s.Args[0], id, r.Receipt, time.Duration(seconds(s.Args[2]))*time.Second)
	default:
		d := broker.Backoff
		if v, ok := s.Options["delay"]; ok {
			d = time.Duration(seconds(v)) * time.Second
		}
		_, err = f.Broker.Nack(f.Ctx, s.Args[0], id, r.Receipt, d)
	}
	switch broker.KindOf(err) {
	case broker.NotFound:
		return "unknown", nil
	case broker.Invalid:
		return "stale", nil
	default:
		return word, err
	}
}

func (f *fastDoor) counts(s *scenario.Step) (string, error) {
	status, answer := f.action(s.Args[0], "GetQueueAttributes", map[string]any{})
	var got struct{ Attributes map[string]string }
	if err := json.Unmarshal(answer, &got); err != nil || status != 200 {
		return "", fmt.Errorf("%d %s", status, answer)
	}
	const name = "ApproximateNumberOfMessages"
	return fmt.Sprintf("ready=%s leased=%s delayed=%s", got.Attributes[name], got.Attributes[name+"NotVisible"], got.Attributes[name+"Delayed"]), nil
}

func TestScenariosThroughTheDialect(t *testing.T) {
	for _, s := range resttest.Scenarios(t) {
		t.Run(s.Name, func(t *testing.T) {
			for _, dir := range []string{"", t.TempDir()} {
				synctest.Test(t, func(t *testing.T) {
					f := &fastDoor{t: t, dir: dir}
					f.open()
					if err := scenario.Play(s, f, scenario.NoRestart); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}
