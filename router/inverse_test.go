package router_test

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"millrace/router"
)

func TestSetGetAndDeleteTellWhatWasThere(t *testing.T) {
	var names router.Names[int]
	if old, had := names.Set("a/b", 1); old != 0 || had {
		t.Errorf("first Set: got %d, %v", old, had)
	}
	if old, had := names.Set("a/b", 2); old != 1 || !had {
		t.Errorf("second Set: got %d, %v", old, had)
	}
	if v, ok := names.Get("a/b"); v != 2 || !ok {
		t.Errorf("Get: got %d, %v", v, ok)
	}
	for _, topic := range []string{"a", "a/b/c", "a/", "x"} {
		if v, ok := names.Get(topic); v != 0 || ok {
			t.Errorf("Get(%q): got %d, %v", topic, v, ok)
		}
		if old, had := names.Delete(topic); old != 0 || had {
			t.Errorf("Delete(%q): got %d, %v", topic, old, had)
		}
	}
	wantLen(t, names.Len(), 1)
	if old, had := names.Delete("a/b"); old != 2 || !had {
		t.Errorf("Delete: got %d, %v", old, had)
	}
	wantLen(t, names.Len(), 0)
}

func TestWhichNamesAFilterFinds(t *testing.T) {
	var names router.Names[int]
	for i, topic := range []string{"a", "a/b", "a/b/c", "a//c", "/a", "/", "$SYS/a", "$x", "a/$x"} {
		names.Set(topic, i)
	}
	for _, c := range []struct {
		filter string
		want   []string
	}{
		{"a/b", []string{"a/b"}},
		{"a/x", nil},
		{"#", []string{"/", "/a", "a", "a/$x", "a//c", "a/b", "a/b/c"}},
		{"a/#", []string{"a", "a/$x", "a//c", "a/b", "a/b/c"}},
		{"+", []string{"a"}},
		{"+/+", []string{"/", "/a", "a/$x", "a/b"}},
		{"a/+/c", []string{"a//c", "a/b/c"}},
		{"a/+/#", []string{"a/$x", "a//c", "a/b", "a/b/c"}},
		{"/#", []string{"/", "/a"}},
		{"$SYS/#", []string{"$SYS/a"}},
		{"$x/#", []string{"$x"}},
		{"+/a", []string{"/a"}},
	} {
		var got []string
		for topic, v := range names.Match(c.filter) {
			if want, ok := names.Get(topic); !ok || v != want {
				t.Errorf("%q came with %d, want %d", topic, v, want)
			}
			got = append(got, topic)
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("Match(%q): got %q, want %q", c.filter, got, c.want)
		}
	}
}

func TestAllNamesAreThoseThatNoWildcardFindsToo(t *testing.T) {
	var names router.Names[int]
	want := []string{"$x", "$x/a", "a", "a/$x", "a/b/c"}
	for i, topic := range want {
		names.Set(topic, i)
	}
	var got []string
	for topic, v := range names.All() {
		if topic != want[v] {
			t.Errorf("%q came with the value of %q", topic, want[v])
		}
		got = append(got, topic)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for range names.All() {
		break
	}
}

func TestALoopOverNamesMayStopAnywhere(t *testing.T) {
	var names router.Names[int]
	for i := range 100 {
		names.Set("a/"+strconv.Itoa(i)+"/b", i)
	}
	for _, filter := range []string{"#", "a/#", "a/+/b", "+/+/#", "a/7/b"} {
		count := 0
		for range names.Match(filter) {
			count++
			break
		}
		if count != 1 {
			t.Errorf("Match(%q): got %d topics before the stop", filter, count)
		}
	}
}

func TestALoopOverNamesMayChangeThem(t *testing.T) {
	var names router.Names[int]
	for i := range 1000 {
		names.Set("a/"+strconv.Itoa(i), i)
	}
	seen := 0
	for topic, v := range names.Match("a/+") {
		if other := "a/" + strconv.Itoa(v^1); topic != other {
			names.Delete(other) // the neighbour never comes any more
		}
		seen++
	}
	if seen != 500 || names.Len() != 500 {
		t.Errorf("saw %d and kept %d names, want 500 and 500", seen, names.Len())
	}
}

func TestAPathOfDeletedNamesLeavesNothingBehind(t *testing.T) {
	var names router.Names[int]
	for i := range 2000 {
		names.Set("a/"+strconv.Itoa(i)+"/b/c", i)
	}
	names.Set("a/b", 1)
	for i := range 2000 {
		names.Delete("a/" + strconv.Itoa(i) + "/b/c")
	}
	if got := names.Nodes(); got > 4 { // a, b, and as many dead as live
		t.Errorf("%d nodes remain for one name", got)
	}
	names.Delete("a/b")
	wantLen(t, names.Nodes(), 0)
}

// The tree of names and a plain map get the same random operations; after each
// one a random filter must find the same names in both.
func TestTheNamesAgreeWithTheNaiveMatcher(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var names router.Names[int]
		model := map[string]int{}
		topics := rapid.SliceOfN(genTopic(), 1, 40).Draw(t, "topics")
		for step := range rapid.IntRange(1, 120).Draw(t, "steps") {
			topic := rapid.SampledFrom(topics).Draw(t, "topic")
			want, there := model[topic]
			if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
				if got, had := names.Delete(topic); got != want || had != there {
					t.Fatalf("Delete(%q): got %d, %v, want %d, %v", topic, got, had, want, there)
				}
				delete(model, topic)
			} else {
				if got, had := names.Set(topic, step); got != want || had != there {
					t.Fatalf("Set(%q): got %d, %v, want %d, %v", topic, got, had, want, there)
				}
				model[topic] = step
			}
			filter := genFilter().Draw(t, "filter")
			wantMatch := maps.Clone(model)
			maps.DeleteFunc(wantMatch, func(topic string, _ int) bool { return !naiveMatch(filter, topic) })
			got := map[string]int{}
			for topic, v := range names.Match(filter) {
				if _, twice := got[topic]; twice {
					t.Fatalf("Match(%q) yields %q twice", filter, topic)
				}
				got[topic] = v
			}
			if !maps.Equal(got, wantMatch) || names.Len() != len(model) {
				t.Fatalf("Match(%q): got %v, want %v; Len %d", filter, got, wantMatch, names.Len())
			}
		}
	})
}

func TestANameOfAsManyLevelsAsAStringMayHave(t *testing.T) {
	var names router.Names[int]
	topic := strings.Repeat("/", 65_535)
	names.Set(topic, 1)
	for _, filter := range []string{"#", strings.Repeat("+/", 65_535) + "+"} {
		count := 0
		for range names.Match(filter) {
			count++
		}
		wantLen(t, count, 1)
	}
	names.Delete(topic)
	wantLen(t, names.Nodes(), 0)
}
