package auth

import "slices"

// clause is one thing that is given or taken.
type clause struct {
	pattern
	do actions
	by string // text for Decision.Rule
}

func (c *clause) speaks(act Action, kind ResourceKind) bool {
	return c.kind == kind && c.do.has(act)
}

// rights are what one principal may do under one policy.
type rights struct {
	policy *policy    // these rights hold while it is the present one
	who    *Principal // for texts only
	ended  string     // why nothing is allowed any more, else ""
	super  bool
	role   Role
	named  bool     // an allow rule names the principal
	deny   []clause // by rules
	allow  []clause // by rules if named, else by the role
	byRole []clause
	free   freedom // what needs no look at the clauses
	freeBy string
}

// freedom is a set of actions for each kind of thing that rules speak of.
type freedom [WholeServer]actions

func (f *freedom) has(act Action, kind ResourceKind) bool {
	return int(kind) < len(f) && f[kind].has(act)
}

// rightsOf returns the rights of p under the present policy, compiled on the
// first question after each change.
func (a *Auth) rightsOf(p *Principal) *rights {
	now := a.policy.Load()
	if s := p.session; s != nil && !a.now().Before(s.until) {
		return &rights{policy: now, who: p, ended: "the token of " + p.String() + " has expired"}
	}
	if m := p.rights.Load(); m != nil && m.policy == now {
		return m
	}
	m := a.compile(p, now)
	p.rights.Store(m)
	return m
}

func (a *Auth) compile(p *Principal, now *policy) *rights {
	m := &rights{policy: now, who: p, super: p.Superuser, role: p.Role, ended: a.ended(p)}
	if m.super {
		m.role = Administrator
		m.free, m.freeBy = freedom{allActions, allActions, allActions}, m.roleText()
		return m
	}
	m.byRole = roleClauses(p)
	m.allow = m.byRole
	var given []clause
	for _, r := range now.rules.about(p) {
		if r.allow && (!r.forAll || m.role != Administrator && p.Door == "") {
			m.named = true
		}
		pt, ok := r.expand(p)
		if !ok {
			continue
		}
		c := r.clause
		c.pattern = pt
		if r.allow {
			given = append(given, c)
		} else {
			m.deny = append(m.deny, c)
		}
	}
	if m.named {
		m.allow = given
	} else {
		m.setFree()
	}
	return m
}

// setFree finds what the role gives as a whole and no rule denies in part.
func (m *rights) setFree() {
	m.freeBy = m.roleText()
	for _, c := range m.byRole {
		if c.reach != literal {
			m.free[c.kind] |= c.do
		}
	}
	reading := Subscribe.bit() | Consume.bit()
	for i := range m.deny {
		c := &m.deny[i]
		m.free[c.kind] &^= c.do
		if c.do&reading != 0 { // who looks has to be allowed to read, too
			m.free[c.kind] &^= reading | View.bit()
		}
	}
}

// ended says why a principal that logged in stands for nobody any more.
func (a *Auth) ended(p *Principal) string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	switch {
	case p.session != nil && p.session.family.ended.Load():
		return p.String() + " has logged out"
	case p.era != nil:
		if u := a.users[p.account()]; u == nil || u.era != p.era {
			return p.String() + " was changed or deleted"
		} else if u.record.Disabled {
			return p.String() + " is disabled"
		}
	case p.secret != nil:
		k := a.keys[p.Name]
		switch {
		case k == nil || !slices.Contains(k.secrets, p.secret):
			return p.String() + " was changed or deleted"
		case k.record.Disabled:
			return p.String() + " is disabled"
		case k.expired(a.now()):
			return p.String() + " has expired"
		}
	}
	return ""
}

// Valid reports whether the user, key or token that p came with still stands. A
// connection whose principal is not valid any more is to be closed. It costs
// little; ask when Generation has grown.
func (a *Auth) Valid(p *Principal) bool {
	return p != nil && (p.Kind == System || a.rightsOf(p).ended == "")
}

// unscoped holds the clauses of each role without scopes, shared by everyone.
var unscoped = func() (all [len(roleNames)][]clause) {
	for i := range all {
		role := Role(i)
		topics := ordinary
		if role == Administrator {
			topics = everything
		}
		for kind, reach := range map[ResourceKind]reach{Topic: topics, Queue: everything, Stream: everything} {
			all[i] = append(all[i], clause{pattern{kind, "", reach}, role.does(), "role " + role.String()})
		}
	}
	return all
}()

func roleClauses(p *Principal) []clause {
	if p.Door != "" {
		return accountRights
	}
	if int(p.Role) >= len(unscoped) {
		return nil
	}
	if len(p.Scopes) == 0 || p.Role == Administrator {
		return unscoped[p.Role]
	}
	var cs []clause
	for _, s := range p.Scopes {
		pt, reason := parsePattern(s)
		if reason != "" {
			continue // a literal principal's; what cannot be read gives nothing
		}
		if pt, ok := pt.expand(p); ok {
			cs = append(cs, clause{pt, p.Role.does(), "role " + p.Role.String() + ", scope " + s})
		}
	}
	return cs
}

var roleTexts = func() (texts [len(roleNames)]string) {
	for i, name := range roleNames {
		texts[i] = "role " + name
	}
	return texts
}()

func (m *rights) roleText() string {
	if m.super {
		return "superuser"
	}
	if m.who.Door != "" {
		return accountText
	}
	if int(m.role) < len(roleTexts) {
		return roleTexts[m.role]
	}
	return "no role"
}

// refusal says why nothing gave what was asked for.
func (m *rights) refusal() string {
	switch {
	case m.named:
		return "no allow rule of " + m.who.String() + " gives it"
	case len(m.who.Scopes) > 0:
		return m.roleText() + ", outside the scopes of " + m.who.String()
	default:
		return m.roleText()
	}
}
