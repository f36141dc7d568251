package auth_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"millrace/broker/auth"
)

// The oracle decides by trying everything, level by level, for one topic or
// name without wildcards.
type oracle struct {
	rules []auth.Rule
	p     *auth.Principal
}

func (o oracle) allows(act auth.Action, r auth.Resource) bool {
	first, _, _ := strings.Cut(r.Name, "/")
	if r.Kind == auth.Topic {
		if act == auth.Publish && (first == "$SYS" || first == "$events") {
			return false
		}
		if first == "$SYS" && !o.p.Superuser && o.p.Role != auth.Administrator {
			return false
		}
		if first == "$events" && o.p.Kind == auth.Anonymous {
			return false
		}
	}
	if o.p.Superuser {
		return true
	}
	read := auth.Consume
	if r.Kind == auth.Topic {
		read = auth.Subscribe
	}
	if act != auth.View {
		return o.weigh(act, r)
	}
	if o.p.Role == auth.Administrator || o.weigh(read, r) || o.weigh(auth.Manage, r) {
		return true
	}
	return o.p.Role == auth.Viewer && o.inScopes(r) && !o.some("deny", read, r)
}

func (o oracle) weigh(act auth.Action, r auth.Resource) bool {
	if o.some("deny", act, r) {
		return false
	}
	if slices.ContainsFunc(o.rules, func(x auth.Rule) bool {
		return x.Effect == "allow" && o.names(x) && (x.Who != "all" || o.p.Role != auth.Administrator)
	}) {
		return o.some("allow", act, r)
	}
	switch o.p.Role {
	case auth.Administrator:
		return true
	case auth.Publisher:
		return act == auth.Publish && o.inScopes(r)
	case auth.Client:
		return act != auth.Manage && o.inScopes(r)
	default:
		return false
	}
}

func (o oracle) names(x auth.Rule) bool {
	return x.Who == "all" || x.Who == o.p.String() || x.Who == "client:"+o.p.ClientID && o.p.ClientID != ""
}

func (o oracle) some(effect string, act auth.Action, r auth.Resource) bool {
	return slices.ContainsFunc(o.rules, func(x auth.Rule) bool {
		does := slices.Contains(x.Do, act.String()) ||
			r.Kind != auth.Topic && act == auth.Consume && slices.Contains(x.Do, "subscribe")
		return x.Effect == effect && o.names(x) && does && o.hits(x.Filter, r, effect == "deny")
	})
}

func (o oracle) inScopes(r auth.Resource) bool {
	return len(o.p.Scopes) == 0 && !hidden(r) || slices.ContainsFunc(o.p.Scopes, func(s string) bool { return o.hits(s, r, false) })
}

func hidden(r auth.Resource) bool {
	return r.Kind == auth.Topic && (strings.HasPrefix(r.Name, "$SYS") || strings.HasPrefix(r.Name, "$events"))
}

// hits tells whether a filter of a rule or scope matches one name.
func (o oracle) hits(filter string, r auth.Resource, deny bool) bool {
	for prefix, kind := range map[string]auth.ResourceKind{"queue:": auth.Queue, "stream:": auth.Stream} {
		if g, ok := strings.CutPrefix(filter, prefix); ok {
			return kind == r.Kind && naiveGlob(g, r.Name)
		}
	}
	if r.Kind != auth.Topic {
		return false
	}
	if filter == "#" {
		return deny || !hidden(r)
	}
	levels := strings.Split(filter, "/")
	for i, level := range levels {
		value := map[string]string{"%c": o.p.ClientID, "%u": o.p.Name}
		if v, ok := value[level]; ok {
			if v == "" || strings.ContainsAny(v, "+#/\x00") || i == 0 && v[0] == '$' {
				return false
			}
			levels[i] = v
		}
	}
	return naiveMatch(levels, strings.Split(r.Name, "/"), true)
}

func naiveMatch(filter, topic []string, first bool) bool {
	if len(filter) == 0 {
		return len(topic) == 0
	}
	if filter[0] == "#" {
		return !first || topic[0] == "" || topic[0][0] != '$'
	}
	if len(topic) == 0 {
		return false
	}
	if filter[0] == "+" && first && strings.HasPrefix(topic[0], "$") || filter[0] != "+" && filter[0] != topic[0] {
		return false
	}
	return naiveMatch(filter[1:], topic[1:], false)
}

func naiveGlob(g, name string) bool {
	if g == "" {
		return name == ""
	}
	if g[0] == '*' {
		return naiveGlob(g[1:], name) || name != "" && naiveGlob(g, name[1:])
	}
	return name != "" && g[0] == name[0] && naiveGlob(g[1:], name[1:])
}

// drawFilter draws a topic filter of up to three levels.
func drawFilter(t *rapid.T, label string, extra ...string) string {
	n := rapid.IntRange(1, 3).Draw(t, label+" levels")
	levels := make([]string, n)
	for i := range levels {
		choices := append([]string{"a", "b", "", "+"}, extra...)
		if i == 0 {
			choices = append(choices, "$x", "$SYS", "$events")
		}
		if i == n-1 {
			choices = append(choices, "#", "#")
		}
		levels[i] = rapid.SampledFrom(choices).Draw(t, label)
	}
	if f := strings.Join(levels, "/"); f != "" {
		return f
	}
	return "a"
}

func drawPattern(t *rapid.T, label string) string {
	if rapid.IntRange(0, 3).Draw(t, label+" kind") == 0 {
		return rapid.SampledFrom([]string{"queue:", "stream:"}).Draw(t, label) + rapid.StringMatching(`[ab*]{1,3}`).Draw(t, label)
	}
	return drawFilter(t, label, "%c", "%u")
}

func drawRules(t *rapid.T) []auth.Rule {
	rules := make([]auth.Rule, rapid.IntRange(0, 4).Draw(t, "rules"))
	for i := range rules {
		r := auth.Rule{
			Effect: rapid.SampledFrom([]string{"allow", "deny"}).Draw(t, "effect"),
			Who:    rapid.SampledFrom([]string{"all", "anonymous", "user:a", "key:a", "client:a", "client:b"}).Draw(t, "who"),
			Filter: drawPattern(t, "filter"),
		}
		for _, do := range []string{"publish", "subscribe", "manage"} {
			if rapid.Bool().Draw(t, do) {
				r.Do = append(r.Do, do)
			}
		}
		if strings.Contains(r.Filter, ":") && rapid.Bool().Draw(t, "consume") || len(r.Do) == 0 {
			r.Do = append(r.Do, "consume", "publish")
		}
		rules[i] = r
	}
	return rules
}

func drawPrincipal(t *rapid.T) *auth.Principal {
	p := &auth.Principal{
		Kind:     rapid.SampledFrom([]auth.Kind{auth.User, auth.Key, auth.Anonymous}).Draw(t, "kind"),
		ClientID: rapid.SampledFrom([]string{"", "a", "b", "a/b", "+", "$events"}).Draw(t, "client"),
	}
	switch p.Kind {
	case auth.User:
		p.Name = rapid.SampledFrom([]string{"a", "b", "#"}).Draw(t, "name")
		p.Superuser = rapid.IntRange(0, 5).Draw(t, "super") == 0
	case auth.Key:
		p.Name = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "id")
		p.Role = auth.Role(rapid.IntRange(0, 3).Draw(t, "role"))
		for range rapid.IntRange(0, 2).Draw(t, "scopes") {
			if p.Role != auth.Administrator {
				p.Scopes = append(p.Scopes, drawPattern(t, "scope"))
			}
		}
	case auth.Anonymous, auth.System:
	}
	return p
}

// topics are all topics of up to four levels over a small alphabet, and the
// empty one, which is no topic but which /# and + share.
var topics = func() (all []string) {
	level := []string{"a", "b", "c", "", "$events"}
	now := []string{"a", "b", "c", "", "$x", "$SYS", "$events"}
	for range 4 {
		all = append(all, now...)
		var next []string
		for _, head := range now {
			for _, l := range level {
				next = append(next, head+"/"+l)
			}
		}
		now = next
	}
	return all
}()

func TestDecisionsAreThoseOfTheOracle(t *testing.T) {
	a := open(t, &memory{})
	rapid.Check(t, func(t *rapid.T) {
		o := oracle{drawRules(t), drawPrincipal(t)}
		if err := a.SetRules(t.Context(), o.rules); err != nil {
			t.Fatal(err)
		}
		var r auth.Resource
		switch rapid.IntRange(0, 3).Draw(t, "resource") {
		case 0:
			r = queue(rapid.StringMatching(`[ab]{1,3}`).Draw(t, "queue"))
		case 1:
			r = stream(rapid.StringMatching(`[ab]{1,3}`).Draw(t, "stream"))
		default:
			r = topic(rapid.SampledFrom(topics).Draw(t, "topic"))
		}
		for _, act := range []auth.Action{auth.Publish, auth.Subscribe, auth.Consume, auth.View, auth.Manage} {
			want := o.allows(act, r)
			if r.Kind != auth.Topic && act == auth.Subscribe {
				want = o.allows(auth.Consume, r)
			}
			if r.Kind == auth.Topic && act == auth.Consume {
				continue // asked of queues and streams
			}
			if d := a.Decide(o.p, act, r); d.Allowed != want || d.Overlap {
				t.Fatalf("%v %s %v: got %+v, want %v", describe(o.p), act, r, d, want)
			}
			for range 2 { // the second answer may be a remembered one
				if a.Allow(o.p, act, r) != want {
					t.Fatalf("%v %s %v: want %v", describe(o.p), act, r, want)
				}
			}
		}
	})
}

func TestSubscriptionsPromiseNoMoreThanTheirDeliveries(t *testing.T) {
	a := open(t, &memory{})
	rapid.Check(t, func(t *rapid.T) {
		o := oracle{drawRules(t), drawPrincipal(t)}
		if err := a.SetRules(t.Context(), o.rules); err != nil {
			t.Fatal(err)
		}
		filter := drawFilter(t, "asked")
		levels := strings.Split(filter, "/")
		var yes, no []string
		for _, name := range topics {
			if !naiveMatch(levels, strings.Split(name, "/"), true) {
				continue
			}
			if o.allows(auth.Subscribe, topic(name)) {
				yes = append(yes, name)
			} else {
				no = append(no, name)
			}
		}
		d := a.Decide(o.p, auth.Subscribe, topic(filter))
		denies := slices.DeleteFunc(slices.Clone(o.rules), func(r auth.Rule) bool { return r.Effect != "deny" })
		switch {
		case !d.Allowed && yes != nil:
			t.Fatalf("%v: %s refused (%s) though %q is allowed", describe(o.p), filter, d.Rule, yes[0])
		case d.Allowed && !d.Overlap && no != nil:
			t.Fatalf("%v: %s granted whole (%s) though %q is not allowed", describe(o.p), filter, d.Rule, no[0])
		case d.Allowed && yes == nil && len(denies) < 2:
			t.Fatalf("%v: %s granted (%+v) though nothing of it is allowed", describe(o.p), filter, d)
		}
	})
}

func describe(p *auth.Principal) string {
	return fmt.Sprintf("%s client %q role %s superuser %v scopes %q", p, p.ClientID, p.Role, p.Superuser, p.Scopes)
}

func TestFilterAlgebraIsThatOfAllTopics(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, g := drawFilter(t, "f"), drawFilter(t, "g")
		both, meets := auth.Intersect(f, g)
		covers, overlap := true, false
		for _, name := range topics {
			x := naiveMatch(strings.Split(f, "/"), strings.Split(name, "/"), true)
			y := naiveMatch(strings.Split(g, "/"), strings.Split(name, "/"), true)
			if got := auth.Match(f, name); got != x {
				t.Fatalf("match(%q, %q) = %v", f, name, got)
			}
			if got := meets && auth.Match(both, name); got != (x && y) {
				t.Fatalf("%q and %q share %q: wrong for %q", f, g, both, name)
			}
			overlap = overlap || x && y
			covers = covers && (x || !y)
		}
		if got := auth.Covers(f, g); got != covers {
			t.Fatalf("covers(%q, %q) = %v", f, g, got)
		}
		if got := auth.Overlaps(f, g); got != overlap || got != auth.Overlaps(g, f) {
			t.Fatalf("overlaps(%q, %q) = %v", f, g, got)
		}
	})
}

func TestGlobsMatchAsSpelledOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := rapid.StringMatching(`[ab*/]{0,6}`).Draw(t, "glob")
		name := rapid.StringMatching(`[ab/]{0,6}`).Draw(t, "name")
		if got, want := auth.Glob(g, name), naiveGlob(g, name); got != want {
			t.Fatalf("glob(%q, %q) = %v", g, name, got)
		}
	})
}
