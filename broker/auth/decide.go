package auth

import "strings"

// Decision answers a question of access.
type Decision struct {
	Allowed bool
	// Rule is the text of the rule, role or scope that decided, for logs and
	// for people who ask why.
	Rule string
	// Overlap is set on Subscribe only: granted, but some of the topics of the
	// filter are not, so each delivery must be asked about.
	Overlap bool
}

func allowed(by string) Decision { return Decision{Allowed: true, Rule: by} }
func refused(by string) Decision { return Decision{Rule: by} }

// Allow is Decide without the reasons. What it says about publishes it remembers.
func (a *Auth) Allow(p *Principal, act Action, r Resource) bool {
	if act != Publish || r.Kind != Topic || r.Name == "" || r.Name[0] == '$' || p == nil || p.Kind == System || p.session != nil { // which ends by itself
		return a.Decide(p, act, r).Allowed
	}
	if m := a.rightsOf(p); m.ended != "" || m.free.has(Publish, Topic) {
		return m.ended == ""
	}
	return a.mayPublish(p, r.Name)
}

// Decide says whether p may do act to r. It answers from memory and, where it
// allows, allocates nothing once p is known to the present policy. Ask it on
// every path with the final topic; a decision may be kept for as long as
// Generation, read before asking, stays the same.
func (a *Auth) Decide(p *Principal, act Action, r Resource) Decision {
	if p == nil {
		return refused("no principal")
	}
	if p.Kind == System {
		return allowed("system")
	}
	return a.rightsOf(p).answer(act, r)
}

// answer is Decide for the rights of one principal.
func (m *rights) answer(act Action, r Resource) Decision {
	if m.ended != "" {
		return refused(m.ended)
	}
	if r.Kind == WholeServer {
		return m.server(act)
	}
	if m.free.has(act, r.Kind) && (r.Kind != Topic || r.Name == "" || r.Name[0] != '$') {
		return allowed(m.freeBy) // the common case: a whole role, and nothing denied
	}
	if r.Kind == Topic && strings.HasPrefix(r.Name, "$") {
		name, refusal := m.dollar(act, r.Name)
		if refusal != "" {
			return refused(refusal)
		}
		r.Name = name
	}
	if m.super {
		return allowed("superuser")
	}
	if act == Subscribe && r.Kind != Topic {
		act = Consume
	}
	if act == View {
		return m.view(r)
	}
	return m.decide(act, r)
}

// server decides what no rule speaks of.
func (m *rights) server(act Action) Decision {
	if m.role == Administrator || m.role == Viewer && act == View {
		return allowed(m.roleText())
	}
	return refused(m.roleText())
}

// dollar judges a topic that begins with $: it returns the topic or filter
// which is really meant, or why the broker keeps it for itself.
func (m *rights) dollar(act Action, name string) (meant, refusal string) {
	s := space(name)
	if act == Subscribe && s == "$share" || act == Publish && s == "$delayed" {
		_, rest, _ := strings.Cut(name, "/") // GROUP or SECONDS, and what is meant
		if _, rest, ok := strings.Cut(rest, "/"); ok {
			name, s = rest, space(rest)
		}
	}
	switch s {
	case "$SYS":
		if act == Publish || m.role != Administrator {
			return "", "reserved topic $SYS"
		}
	case "$events":
		if act == Publish || m.who.Kind == Anonymous && m.role != Administrator {
			return "", "reserved topic $events"
		}
	case "":
	default:
		return "", "reserved topic " + s
	}
	return name, ""
}

// view decides for who only looks: the role gives it, or the right to read or
// to manage the same thing does.
func (m *rights) view(r Resource) Decision {
	if m.role == Administrator {
		return allowed(m.roleText())
	}
	read := Consume
	if r.Kind == Topic {
		read = Subscribe
	}
	d := m.decide(read, r)
	if d.Allowed && !d.Overlap {
		return allowed(d.Rule)
	}
	if by := m.denies(read, r); by != "" {
		d = refused(by)
	} else if by := grants(m.byRole, View, r); by != "" {
		return allowed(by)
	}
	if d := m.decide(Manage, r); d.Allowed {
		return d
	}
	return refused(d.Rule)
}

// decide weighs denies against allows.
func (m *rights) decide(act Action, r Resource) Decision {
	if act == Subscribe {
		return m.subscribe(r)
	}
	if by := m.denies(act, r); by != "" {
		return refused(by)
	}
	if by := grants(m.allow, act, r); by != "" {
		return allowed(by)
	}
	return refused(m.refusal())
}

// denies returns the text of a deny rule that matches any part of r.
func (m *rights) denies(act Action, r Resource) string {
	for i := range m.deny {
		if c := &m.deny[i]; c.speaks(act, r.Kind) && c.relate(r.Name) != apart {
			return c.by
		}
	}
	return ""
}

// grants returns the text of the first clause that gives the whole of r.
func grants(allow []clause, act Action, r Resource) string {
	for i := range allow {
		if c := &allow[i]; c.speaks(act, r.Kind) && c.relate(r.Name) == whole {
			return c.by
		}
	}
	return ""
}
