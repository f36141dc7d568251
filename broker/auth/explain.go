package auth

import (
	"cmp"
	"slices"
	"strings"
)

// Where the text that decided came from.
const (
	PlaceBootstrap = "bootstrap" // a rule the broker itself set at its start
	PlaceAPI       = "api"       // a rule set on request
	PlaceRules     = "rules"     // all rules about the principal together: none gives it
	PlaceRole      = "role"      // the role or the scopes of the principal
	PlaceBroker    = "broker"    // what no rule and no role can change
)

// maxCandidates bounds an Explanation.
const maxCandidates = 1_000

// Explanation is a Decision with the way it was found.
type Explanation struct {
	Decision
	Index      int      // of the deciding rule in Rules, -1 where it was none
	Place      string   // of what decided
	Meant      Resource // what was judged, without $share/GROUP/ and $delayed/SECONDS/
	Candidates []Candidate
	Omitted    int // candidates beyond the first 1,000
}

// Candidate is a rule about the principal, or a part of its role, that was
// looked at.
type Candidate struct {
	Rule    string
	Index   int // in Rules, -1 for a part of the role
	Place   string
	Allows  bool   // else it denies
	Matches string // all, some or none of what was asked for
	Why     string // it does not count, else ""
}

// Explain answers as Decide does and shows why. It is made for people and takes
// its time.
func (a *Auth) Explain(p *Principal, act Action, r Resource) Explanation {
	e := Explanation{Index: -1, Place: PlaceBroker, Meant: r}
	if p == nil || p.Kind == System {
		e.Decision = a.Decide(p, act, r)
		return e
	}
	if p.Kind == Anonymous && !a.anonymous {
		e.Decision = refused("anonymous clients are not let in")
		return e
	}
	m := a.rightsOf(p)
	e.Decision = m.answer(act, r)
	if r.Kind == Topic && strings.HasPrefix(r.Name, "$") {
		if meant, refusal := m.dollar(act, r.Name); refusal == "" {
			e.Meant.Name = meant
		}
	}
	if m.ended != "" {
		return e
	}
	if r.Kind != WholeServer && !m.super {
		e.Candidates = m.candidates(act, e.Meant)
	}
	e.Place = m.place(e.Rule)
	for _, c := range e.Candidates {
		if c.Rule == e.Rule && c.Index >= 0 { // the same text says the same
			e.Index, e.Place = c.Index, c.Place
			break
		}
	}
	if n := len(e.Candidates) - maxCandidates; n > 0 {
		e.Candidates, e.Omitted = e.Candidates[:maxCandidates], n
	}
	return e
}

// place is that of a decision which no single rule made.
func (m *rights) place(by string) string {
	switch {
	case strings.HasPrefix(by, "reserved topic "):
		return PlaceBroker
	case m.named && by == m.refusal():
		return PlaceRules
	default:
		return PlaceRole
	}
}

// candidates are the rules about the principal in their order, and the role.
func (m *rights) candidates(act Action, r Resource) []Candidate {
	asked := act.bit()
	if act == Subscribe && r.Kind != Topic {
		asked = Consume.bit()
	}
	if act == View {
		asked |= Subscribe.bit() | Consume.bit() | Manage.bit()
	}
	about := m.policy.rules.about(m.who)
	slices.SortFunc(about, func(x, y rule) int { return cmp.Compare(x.index, y.index) })
	list := make([]Candidate, 0, len(about)+len(m.byRole))
	for _, x := range about {
		c := Candidate{Rule: x.by, Index: x.index, Place: m.policy.rules.places[x.index], Allows: x.allow}
		pt, ok := x.expand(m.who)
		if ok {
			x.pattern = pt
			c.weigh(&x.clause, asked, r)
		} else {
			c.Matches, c.Why = "none", "%c or %u has no value that can stand there"
		}
		if x.allow && x.forAll && m.role == Administrator {
			c.Why = "an allow for all does not narrow an administrator"
		}
		list = append(list, c)
	}
	for i := range m.byRole {
		x := &m.byRole[i]
		if x.kind != r.Kind && len(m.who.Scopes) == 0 {
			continue // the same words for topics, queues and streams
		}
		c := Candidate{Rule: x.by, Index: -1, Place: PlaceRole, Allows: true}
		c.weigh(x, asked, r)
		if m.named && (act != View || m.role != Viewer) {
			c.Why = "allow rules name the principal, they count in place of the role"
		}
		list = append(list, c)
	}
	return list
}

func (c *Candidate) weigh(x *clause, asked actions, r Resource) {
	c.Matches = "none"
	switch {
	case x.kind != r.Kind:
		c.Why = "it is about other things"
	case x.do&asked == 0:
		c.Why = "it is about other actions"
	default:
		c.Matches = [...]string{apart: "none", partial: "some", whole: "all"}[x.relate(r.Name)]
	}
}
