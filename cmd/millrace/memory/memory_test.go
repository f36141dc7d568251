package memory_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"millrace/cmd/millrace/memory"
)

func TestTheLimitAtItsEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var used atomic.Uint64
		var log strings.Builder
		w := memory.StartWith(1600, used.Load, zerolog.New(&log))
		defer w.Close()
		for _, row := range []struct {
			used uint64
			over bool
		}{{1399, false}, {1400, true}, {1399, true}, {1300, true}, {1299, false}, {1399, false}, {5000, true}, {0, false}} {
			used.Store(row.used)
			<-time.After(time.Second)
			synctest.Wait()
			if w.Over() != row.over {
				t.Errorf("at %d: over is %v", row.used, w.Over())
			}
		}
		if n := strings.Count(log.String(), "\n"); n != 4 {
			t.Errorf("%d lines in the log, want one a change:\n%s", n, log.String())
		}
	})
}

func TestMemoryIsMeasured(t *testing.T) {
	w := memory.Start(1<<50, zerolog.Nop())
	defer w.Close()
	if w.Over() {
		t.Error("over a limit of a pebibyte")
	}
	small := memory.Start(1<<10, zerolog.Nop())
	defer small.Close()
	defer memory.Start(1<<50, zerolog.Nop()).Close() // as the collector had it
	if !small.Over() {
		t.Error("within a kibibyte")
	}
}
