package history_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker/history"
)

func TestSamplesHoldWhatHappenedInTheirInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		h := history.Start(func() history.Reading {
			total := n.Add(5) // five messages a second
			return history.Reading{Totals: history.Totals{Received: total}, Gauges: history.Gauges{Sessions: int(total)}}
		})
		defer h.Close()
		began := time.Now()
		time.Sleep(25*time.Second + time.Millisecond)
		fine, coarse := h.Seconds(began), h.Tens(began)
		if len(fine) != 25 || len(coarse) != 2 {
			t.Fatalf("%d fine and %d coarse samples", len(fine), len(coarse))
		}
		if fine[3].Received != 5 || coarse[1].Received != 50 || h.Latest().Sessions != int(n.Load()) || !h.Latest().At.Equal(began.Add(25*time.Second)) {
			t.Errorf("%+v %+v %+v", fine[3], coarse[1], h.Latest())
		}
		if got := h.Seconds(began.Add(20 * time.Second)); len(got) != 5 {
			t.Errorf("%d samples of the last five seconds", len(got))
		}
		time.Sleep(7 * time.Hour)
		fine, coarse = h.Seconds(time.Time{}), h.Tens(time.Time{})
		if len(fine) != 600 || len(coarse) != 2160 || fine[599].At.Sub(fine[0].At) != 599*time.Second {
			t.Errorf("%d fine and %d coarse samples after seven hours", len(fine), len(coarse))
		}
		h.Clear()
		if len(h.Seconds(time.Time{})) != 0 || len(h.Tens(time.Time{})) != 0 || h.Latest() != (history.Sample{}) {
			t.Error("samples are left")
		}
	})
}
