package httpx

import (
	"sync"
	"sync/atomic"
	"time"

	"millrace/broker/histogram"
)

// meter counts the answers of one route.
type meter struct {
	codes sync.Map // int -> *atomic.Uint64
	took  histogram.Histogram
}

func (m *meter) count(status int, took time.Duration) {
	n, ok := m.codes.Load(status)
	if !ok {
		n, _ = m.codes.LoadOrStore(status, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
	m.took.Observe(took, 1)
}

// RouteStats are the answers of one route since the start.
type RouteStats struct {
	Dialect string
	Method  string // as the table of routes has it; "" with Route ""
	Route   string // with the names of its parameters; "" = requests that no route took
	Codes   map[int]uint64
	Took    histogram.Counts // long polls wait, by their nature
}

// Stats returns the answers of every route that was ever asked.
func (s *Shared) Stats() []RouteStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []RouteStats
	for _, mux := range s.muxes {
		for i := range mux.meters {
			m := &mux.meters[i]
			st := RouteStats{Dialect: mux.dialect.Name, Codes: map[int]uint64{}, Took: m.took.Read()}
			if i < len(mux.dialect.Routes) {
				st.Method, st.Route = mux.dialect.Routes[i].Method, mux.dialect.Routes[i].Path
			}
			m.codes.Range(func(code, n any) bool {
				st.Codes[code.(int)] = n.(*atomic.Uint64).Load()
				return true
			})
			if len(st.Codes) > 0 {
				all = append(all, st)
			}
		}
	}
	return all
}

// join has the routes of m counted among those of the server.
func (s *Shared) join(m *Mux) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.muxes = append(s.muxes, m)
}
