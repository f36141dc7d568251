package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const maxRules = 10_000

// Rule gives or takes a right, beyond what roles and scopes say.
type Rule struct {
	Effect string   `json:"effect" yaml:"effect"` // allow or deny
	Who    string   `json:"who"    yaml:"who"`    // user:NAME, key:ID, client:ID, anonymous or all
	Do     []string `json:"do"     yaml:"do"`     // publish, subscribe, consume, manage
	Filter string   `json:"filter" yaml:"filter"` // topic filter, queue:GLOB or stream:GLOB
}

// String is the rule in one line, as Decision.Rule shows it.
func (r Rule) String() string {
	return fmt.Sprintf("%s %s %s %s", r.Effect, r.Who, strings.Join(r.Do, ","), r.Filter)
}

// rule is a Rule that was read; its pattern may hold %c and %u.
type rule struct {
	clause
	allow  bool
	forAll bool
	who    string
	index  int // in the source
}

// ruleset finds the rules about a principal without looking at the others.
type ruleset struct {
	source []Rule
	places []string // where each came from
	byWho  map[string][]rule
}

// storedRule is a rule on disk.
type storedRule struct {
	Rule
	Place string `json:"place,omitempty"`
}

// about returns the rules that name p.
func (s *ruleset) about(p *Principal) []rule {
	if len(s.source) == 0 {
		return nil
	}
	who := []string{"all"}
	if p.Kind != System {
		who = append(who, p.String()) // user:NAME, key:ID or anonymous
	}
	if p.ClientID != "" {
		who = append(who, "client:"+p.ClientID)
	}
	var found []rule
	for _, w := range who {
		found = append(found, s.byWho[w]...)
	}
	return found
}

// Rules returns the rules in force.
func (a *Auth) Rules() []Rule {
	return cloneRules(a.policy.Load().rules.source)
}

// SetRules puts rules in the place of all rules before. They are taken as a
// whole or not at all: the error joins one InvalidError for each bad rule.
// When it returns nil they are on disk and in force.
func (a *Auth) SetRules(ctx context.Context, rules []Rule) error {
	return a.UpdateRules(ctx, func([]Rule) ([]Rule, error) { return rules, nil })
}

// UpdateRules is SetRules with what change makes of the rules of the moment, so
// that two who change them at once do not undo each other's work. An error of
// change is returned as it is.
func (a *Auth) UpdateRules(ctx context.Context, change func([]Rule) ([]Rule, error)) error {
	return a.inTurn(ctx, func() error {
		at := a.revision(rulesKey)
		rules, err := change(a.Rules())
		if err != nil {
			return err
		}
		set, err := readRules(rules)
		if err != nil {
			return err
		}
		places := a.policy.Load().rules.placesFor(set.source, placeOf(ctx))
		stored := make([]storedRule, len(set.source))
		for i, r := range set.source {
			stored[i] = storedRule{r, places[i]}
		}
		if err := a.put(ctx, rulesKey, stored, at); err != nil {
			return a.failed(ctx, RulesChanged, "", err)
		}
		a.log.Info().Int("rules", len(rules)).Msg("access rules changed")
		a.Audit(ctx, Event{What: RulesChanged, Count: len(rules)})
		return nil
	})
}

// placeOf says where a change comes from: requests carry a principal, the start
// of the broker does not.
func placeOf(ctx context.Context) string {
	if p := From(ctx); p == nil || p.Kind == System {
		return PlaceBootstrap
	}
	return PlaceAPI
}

// placesFor lets rules that were there before keep their place.
func (s *ruleset) placesFor(rules []Rule, otherwise string) []string {
	before := make(map[string]string, len(s.source))
	for i, r := range s.source {
		before[r.String()] = s.places[i]
	}
	places := make([]string, len(rules))
	for i, r := range rules {
		places[i] = otherwise
		if place, ok := before[r.String()]; ok {
			places[i] = place
		}
	}
	return places
}

func loadRules(value []byte) (*ruleset, error) {
	var stored []storedRule
	if err := json.Unmarshal(value, &stored); err != nil {
		return nil, err
	}
	rules, places := make([]Rule, len(stored)), make([]string, len(stored))
	for i, r := range stored {
		rules[i], places[i] = r.Rule, r.Place
		if r.Place == "" { // of a version that did not ask
			places[i] = PlaceAPI
		}
	}
	set, err := readRules(rules)
	if err != nil {
		return nil, err
	}
	set.places = places
	return set, nil
}

func readRules(rules []Rule) (*ruleset, error) {
	if len(rules) > maxRules {
		return nil, &InvalidError{Field: "rules", Reason: fmt.Sprintf("there may be at most %d", maxRules)}
	}
	set := &ruleset{source: cloneRules(rules), byWho: make(map[string][]rule)}
	var errs []error
	for i, source := range set.source {
		r, err := source.read()
		if err != nil {
			err.Field = fmt.Sprintf("rules[%d].%s", i, err.Field)
			errs = append(errs, err)
			continue
		}
		r.index = i
		set.byWho[r.who] = append(set.byWho[r.who], r)
	}
	return set, errors.Join(errs...)
}

func (r Rule) read() (rule, *InvalidError) {
	if r.Effect != "allow" && r.Effect != "deny" {
		return rule{}, &InvalidError{Field: "effect", Reason: "must be allow or deny"}
	}
	if !validWho(r.Who) {
		return rule{}, &InvalidError{Field: "who", Reason: "must be user:NAME, key:ID, client:ID, anonymous or all"}
	}
	pt, reason := parsePattern(r.Filter)
	if reason != "" {
		return rule{}, &InvalidError{Field: "filter", Reason: reason}
	}
	do, reason := readActions(r.Do, pt.kind)
	if reason != "" {
		return rule{}, &InvalidError{Field: "do", Reason: reason}
	}
	out := rule{clause: clause{pt, do, r.String()}, allow: r.Effect == "allow", forAll: r.Who == "all", who: r.Who}
	if !out.allow && out.reach == ordinary {
		out.reach = everything
	}
	return out, nil
}

// readActions reads what a rule for one kind of thing is about. On queues and
// streams subscribe means consume, since nothing else could be meant.
func readActions(names []string, kind ResourceKind) (actions, string) {
	var do actions
	for _, name := range names {
		i := slices.Index(actionNames[:], name)
		if i < 0 || Action(i) == View {
			return 0, "must hold some of publish, subscribe, consume and manage"
		}
		do |= Action(i).bit()
	}
	if kind != Topic && do.has(Subscribe) {
		do |= Consume.bit()
	}
	if do == 0 {
		return 0, "must hold some of publish, subscribe, consume and manage"
	}
	if do == Consume.bit() && kind == Topic {
		return 0, "consume is asked of queue:NAME and stream:NAME, topics are subscribed to"
	}
	return do, ""
}

func validWho(who string) bool {
	if who == "all" || who == "anonymous" {
		return true
	}
	kind, name, _ := strings.Cut(who, ":")
	return name != "" && (kind == "user" || kind == "key" || kind == "client")
}

func cloneRules(rules []Rule) []Rule {
	out := append([]Rule(nil), rules...) // none is nil, wherever it comes from
	for i := range out {
		out[i].Do = slices.Clone(out[i].Do)
	}
	return out
}
