package router_test

import (
	"testing"

	"millrace/router"
)

func TestTheFirstLevelSelectsTheSpace(t *testing.T) {
	for _, c := range []struct {
		name string
		want router.Space
	}{
		{"$SYS", router.SpaceSys},
		{"$SYS/broker/uptime", router.SpaceSys},
		{"$events/#", router.SpaceEvents},
		{"$queue/w", router.SpaceQueue},
		{"$q/w", router.SpaceQueue},
		{"$stream/s", router.SpaceStream},
		{"$share/g/t", router.SpaceShare},
		{"$SHARE/g/t", router.SpaceShare},
		{"$sys/x", router.SpaceSys},
		{"$delayed/5/t", router.SpaceDelayed},
		{"$SYSTEM/x", router.SpaceOpen},
		{"$any/x", router.SpaceOpen},
		{"$", router.SpaceOpen},
		{"$/SYS", router.SpaceOpen},
		{"/$SYS", router.SpaceOpen},
		{"SYS", router.SpaceOpen},
		{"a/$SYS", router.SpaceOpen},
		{"#", router.SpaceOpen},
		{"", router.SpaceOpen},
	} {
		if got := router.SpaceOf(c.name); got != c.want {
			t.Errorf("SpaceOf(%q): got %d, want %d", c.name, got, c.want)
		}
		if got, want := router.Reserved(c.name), c.want != router.SpaceOpen; got != want {
			t.Errorf("Reserved(%q): got %v, want %v", c.name, got, want)
		}
	}
}

func TestASharedFilterIsSplit(t *testing.T) {
	for _, c := range []struct{ filter, group, rest string }{
		{"$share/g/t", "g", "t"},
		{"$Share/g/t", "g", "t"},
		{"$share/g/a/+/#", "g", "a/+/#"},
		{"$share/g//t", "g", "/t"},
		{"$share/g/$stream/s", "g", "$stream/s"},
		{"$share/$g/#", "$g", "#"},
	} {
		group, rest, ok, err := router.Shared(c.filter)
		if group != c.group || rest != c.rest || !ok || err != nil {
			t.Errorf("Shared(%q): got %q, %q, %v, %v", c.filter, group, rest, ok, err)
		}
	}
}

func TestAFilterWithoutShareIsNotShared(t *testing.T) {
	for _, filter := range []string{"#", "a/$share/g/t", "$shared/g/t", "$queue/q", "share/g/t"} {
		group, rest, ok, err := router.Shared(filter)
		if group != "" || rest != "" || ok || err != nil {
			t.Errorf("Shared(%q): got %q, %q, %v, %v", filter, group, rest, ok, err)
		}
	}
}

func TestABadShareIsRefused(t *testing.T) {
	const (
		empty   = "the group after $share must not be empty"
		wild    = `the group after $share must not hold "+" or "#"`
		missing = "a filter must follow the group after $share"
		nested  = "$share must not follow the group after $share"
	)
	for filter, reason := range map[string]string{
		"$share":               empty,
		"$share/":              empty,
		"$share//t":            empty,
		"$share/g":             missing,
		"$share/g/":            missing,
		"$share/+/t":           wild,
		"$share/#":             wild,
		"$share/g#/t":          wild,
		"$SHARE/g+/t":          wild,
		"$share/g/$Share/h/t":  nested,
		"$share/g/$share":      nested,
		"$share/g/$share/h/t/": nested,
	} {
		_, _, ok, err := router.Shared(filter)
		if !ok {
			t.Errorf("Shared(%q): not taken for a share", filter)
		}
		wantReason(t, filter, err, reason)
		wantReason(t, filter, router.ValidFilter(filter), reason)
	}
}
