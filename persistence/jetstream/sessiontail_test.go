package jetstream_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// said is a log that keeps the lines with a text in them.
type said struct {
	text  string
	lines chan string
}

func (s said) Write(p []byte) (int, error) {
	if strings.Contains(string(p), s.text) {
		s.lines <- string(p)
	}
	return len(p), nil
}

// TestATailThatLosesAMessageIsReplacedOnce, and that is said once, however many came
// behind the one that is missing.
func TestATailThatLosesAMessageIsReplacedOnce(t *testing.T) {
	inBubble(t, func(x *clients) {
		x.end()
		way := x.lossy(" $JS.ACK.mr_log.")
		again := said{"the log of sessions is read again", make(chan string, 1000)}
		x.o.Log = zerolog.New(again)
		tails := x.asked("$JS.API.CONSUMER.CREATE.mr_log.>")
		x.start()
		s := x.session("s")
		x.publishAll(bodies(0, 10), s)
		for stall := range 2 {
			way.lose.Store(1)
			x.publishAll(bodies(10+stall*500, 500), s)
			time.Sleep(time.Minute)
			if n := len(again.lines); n != stall+1 {
				x.Errorf("%d lines say that the log is read again, want %d", n, stall+1)
			}
			if n := int(tails.Load()); n != stall+2 {
				x.Errorf("the log was read %d times, want %d: from the start, and after each loss", n, stall+2)
			}
		}
		x.expect(s, bodies(0, 1010)...)
	})
}
