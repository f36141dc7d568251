package emqx_test

import (
	"strings"
	"testing"

	"millrace/rest/emqx"
)

func TestEveryCounterHasASourceThatIsThere(t *testing.T) {
	d := open(t)
	there := map[string]bool{}
	for name := range d.start(t).Counters {
		if there[name] {
			t.Errorf("%s comes twice", name)
		}
		there[name] = true
	}
	used := 0
	for name, parts := range emqx.Sources {
		for _, part := range parts {
			if strings.HasPrefix(part, "mqtt.") && !there[part] {
				t.Errorf("%s is made of %s, which nobody counts", name, part)
			}
			used++
		}
	}
	if used < 70 {
		t.Errorf("only %d sources are used", used)
	}
}
