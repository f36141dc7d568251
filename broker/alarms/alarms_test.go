package alarms_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"millrace/broker/alarms"
)

func TestAnAlarmHoldsUntilItIsClearedOrItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := alarms.NewBook(zerolog.Nop())
		began := time.Now()
		b.Raise("disk", "the disk is nearly full", map[string]any{"free": 7})
		time.Sleep(time.Second)
		b.RaiseFor(time.Minute, "drops", "messages were dropped", nil)
		if all := b.Active(); len(all) != 2 || all[0].Name != "drops" || all[1].Details["free"] != 7 || !all[1].Since.Equal(began) {
			t.Fatalf("%+v", all)
		}
		time.Sleep(59 * time.Second)
		b.RaiseFor(time.Minute, "drops", "more messages were dropped", nil)
		time.Sleep(59 * time.Second)
		if all := b.Active(); len(all) != 2 || all[0].Message != "more messages were dropped" {
			t.Fatalf("%+v", all)
		}
		time.Sleep(time.Minute)
		all, past := b.Active(), b.Past()
		if len(all) != 1 || len(past) != 1 || !past[0].Since.Equal(began.Add(time.Second)) || past[0].Until.Sub(past[0].Since) != 119*time.Second {
			t.Fatalf("%+v %+v", all, past)
		}
		if !b.Clear("disk") || b.Clear("disk") || len(b.Active()) != 0 || b.Past()[0].Name != "disk" {
			t.Errorf("%+v %+v", b.Active(), b.Past())
		}
		b.Forget()
		if len(b.Past()) != 0 {
			t.Error("something is left")
		}
		for range 1001 {
			b.Raise("x", "", nil)
			b.Clear("x")
		}
		if n := len(b.Past()); n != 1000 {
			t.Errorf("%d are kept", n)
		}
	})
}
