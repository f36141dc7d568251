package httpx

import "strconv"

// Page is the part of a list that a client asked for.
type Page struct{ Limit, Offset int }

// The limits of a page.
const (
	DefaultLimit = 50
	MaxLimit     = 1000
)

// ReadPage reads limit and offset from the query.
func ReadPage(r *Request) (p Page, err error) {
	if p.Limit, err = r.QueryInt("limit", DefaultLimit, 1, MaxLimit); err != nil {
		return p, err
	}
	p.Offset, err = r.QueryInt("offset", 0, 0, 1<<31-1)
	return p, err
}

// QueryInt reads a whole number from the query, absent when it is not there.
func (r *Request) QueryInt(name string, absent, low, high int) (int, error) {
	s, err := r.Query(name)
	if err != nil || s == "" && r.query[name] == nil {
		return absent, err
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, FieldError(name, "must be a whole number")
	}
	if n < low || n > high {
		return 0, FieldError(name, "is %d, it must be between %d and %d", n, low, high)
	}
	return n, nil
}

// PageOf returns the part of all that p names.
func PageOf[T any](all []T, p Page) []T {
	from := min(p.Offset, len(all))
	return all[from:min(from+p.Limit, len(all))]
}
