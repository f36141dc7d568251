package pulsar_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker/auth"
	"millrace/broker/scenario"
	"millrace/persistence/local"
	"millrace/rest/internal/resttest"
)

// pulsarDoor publishes through the dialect, as far as it has words for it: its
// topics are streams, so that the texts, which are about queues, end at the same
// queues. The rest goes to the core.
type pulsarDoor struct {
	scenario.Core
	*door
	t   *testing.T
	dir string // "" = the memory driver
}

func (p *pulsarDoor) open() {
	p.door = openOver(p.t, local.Options{Dir: p.dir, SegmentSize: 1 << 20, FirstSegmentSize: 64 << 10})
	p.Core.Broker = p.door.Broker //nolint:staticcheck // both are called Broker
	p.Ctx = auth.WithPrincipal(context.WithoutCancel(p.t.Context()), &auth.Principal{Kind: auth.System})
}

func (p *pulsarDoor) Restart() error {
	p.End()
	p.open()
	return nil
}
func (p *pulsarDoor) Settle() { synctest.Wait() }

func (p *pulsarDoor) Do(s *scenario.Step) (string, error) {
	if s.Verb != "publish" || s.Options["expires"] != "" || s.Options["once"] != "" || s.Options["retain"] != "" {
		return p.Core.Do(s)
	}
	m := map[string]any{"value": strings.Join(s.Args[1:], " ")}
	if key := s.Options["key"]; key != "" {
		m["key"] = key
	}
	if v := s.Options["delay"]; v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			return "", err
		}
		m["deliverAfterMs"] = d.Milliseconds()
	}
	body, _ := json.Marshal(map[string]any{"messages": []any{m}}) // plain values
	w := p.door.Do(p.t, "POST", "/topics/public/default/"+url.PathEscape(s.Args[0]), string(body))
	if w.Code == 412 {
		return "invalid", nil
	}
	var got produced
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
		return "", fmt.Errorf("%d %s", w.Code, w.Body)
	}
	switch at := got.MessageIDs[0]; {
	case at.Error == nil:
		return "ok", nil
	case *at.ErrorCode == 2:
		return "full", nil
	default:
		return "invalid", nil
	}
}

func TestScenariosThroughTheDialect(t *testing.T) {
	for _, s := range resttest.Scenarios(t) {
		t.Run(s.Name, func(t *testing.T) {
			for _, dir := range []string{"", t.TempDir()} {
				synctest.Test(t, func(t *testing.T) {
					p := &pulsarDoor{t: t, dir: dir}
					p.open()
					if err := scenario.Play(s, p, scenario.NoRestart); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}
