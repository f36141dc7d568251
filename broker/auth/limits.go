package auth

// Limits bound what is kept. Zero values take the stated default.
type Limits struct {
	Users int // default 100,000
	Keys  int // default 100,000
}

func (l Limits) orDefault() Limits {
	for _, f := range []struct {
		value    *int
		standard int
	}{{&l.Users, 100_000}, {&l.Keys, 100_000}} {
		if *f.value <= 0 {
			*f.value = f.standard
		}
	}
	return l
}
