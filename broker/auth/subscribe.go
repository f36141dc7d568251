package auth

// subscribe refuses only if nothing the filter asks for is allowed. It may
// grant a filter of which several denies together leave nothing; then each
// delivery is refused.
func (m *rights) subscribe(r Resource) Decision {
	gaps := false
	for i := range m.deny {
		c := &m.deny[i]
		if !c.speaks(Subscribe, r.Kind) {
			continue
		}
		switch c.relate(r.Name) {
		case whole:
			return refused(c.by)
		case partial:
			gaps = true
		case apart:
		}
	}
	by, some := "", false
	for i := range m.allow {
		c := &m.allow[i]
		if !c.speaks(Subscribe, r.Kind) {
			continue
		}
		switch c.relate(r.Name) {
		case whole:
			return Decision{Allowed: true, Rule: c.by, Overlap: gaps}
		case partial:
			if !some && (!gaps || !m.swallows(c.text, r.Name)) {
				by, some = c.by, true
			}
		case apart:
		}
	}
	if !some {
		return refused(m.refusal())
	}
	return Decision{Allowed: true, Rule: by, Overlap: true}
}

// swallows reports whether one deny takes away all that the filters allow and
// asked share.
func (m *rights) swallows(allow, asked string) bool {
	shared, ok := intersect(allow, asked)
	if !ok {
		return true
	}
	for i := range m.deny {
		if c := &m.deny[i]; c.speaks(Subscribe, Topic) && c.relate(shared) == whole {
			return true
		}
	}
	return false
}
