package auth

// Limits bound what is kept. Zero values take the stated default.
type Limits struct {
	Users         int // default 100,000
	Keys          int // default 100,000
	Logins        int // token families; default 100,000
	LoginsPerUser int // the one idle longest ends for a new one; default 100
}

func (l Limits) orDefault() Limits {
	for _, f := range []struct {
		value    *int
		standard int
	}{{&l.Users, 100_000}, {&l.Keys, 100_000}, {&l.Logins, 100_000}, {&l.LoginsPerUser, 100}} {
		if *f.value <= 0 {
			*f.value = f.standard
		}
	}
	return l
}
