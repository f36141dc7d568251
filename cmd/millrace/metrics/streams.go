package metrics

import "millrace/broker"

var (
	streamsThere = gauge("streams", "Streams that are defined.")
	streamBytes  = gauge("stream_bytes", "Bytes of the entries there.", "stream")
	streamHeld   = gauge("stream_entries", "Entries that can be read.", "stream")
	streamIn     = counter("stream_appended", "Entries that were ever appended.", "stream")
	streamLag    = gauge("stream_cursor_lag", "Entries before the cursor that is furthest behind, over the partitions it reads.", "stream")
)

// streams shows each stream, and those beyond MaxNames as one.
func (s Source) streams(to *scrape) {
	infos, err := s.Broker.Streams(s.Context)
	if err != nil {
		return // the store is closed or failed: ready says so
	}
	to.set(streamsThere, float64(len(infos)))
	var other streamFigures
	for i := range infos {
		n := s.figures(&infos[i])
		if i < MaxNames {
			to.stream(infos[i].Name, n)
			continue
		}
		other.bytes, other.held, other.in = other.bytes+n.bytes, other.held+n.held, other.in+n.in
		other.lag = max(other.lag, n.lag)
	}
	if len(infos) > MaxNames {
		to.stream("other", other)
	}
}

type streamFigures struct{ bytes, held, in, lag uint64 }

// figures adds up the partitions of one stream.
func (s Source) figures(st *broker.StreamInfo) streamFigures {
	n := streamFigures{bytes: uint64(max(0, st.Bytes))}
	for _, p := range st.Partitioned {
		n.held, n.in = n.held+p.Next-p.First, n.in+p.Next
	}
	cursors, err := s.Broker.Cursors(s.Context, st.Name)
	if err != nil {
		return n // deleted meanwhile
	}
	for _, c := range cursors {
		var behind uint64
		for _, o := range c.Offsets {
			if int(o.Partition) < len(st.Partitioned) {
				p := st.Partitioned[o.Partition]
				behind += p.Next - min(p.Next, max(o.Offset, p.First))
			}
		}
		n.lag = max(n.lag, behind)
	}
	return n
}

func (s *scrape) stream(name string, n streamFigures) {
	s.set(streamBytes, float64(n.bytes), name)
	s.set(streamHeld, float64(n.held), name)
	s.set(streamIn, float64(n.in), name)
	s.set(streamLag, float64(n.lag), name)
}
