// Package metrics shows the figures of a running server in Prometheus' text
// format. It counts nothing itself: every part owns its counters, and a scrape
// reads them. Names follow Prometheus' rules: prefix millrace_, base units,
// _total for what only grows, and no label with a topic, a client or a message
// in it.
package metrics

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"millrace/broker"
	"millrace/broker/histogram"
	"millrace/mqtt"
	"millrace/persistence/local"
	"millrace/rest"
)

// Source is where the figures come from. MQTT and HTTP may be nil, or give nil
// as long as their edge is not open.
type Source struct {
	Version string
	Broker  *broker.Broker
	Store   *local.Store
	MQTT    func() *mqtt.Server
	HTTP    func() *rest.Server
	// Exposed is how many listeners without TLS other machines reach.
	Exposed func() int
	// Context names who reads lists; it must see everything.
	Context context.Context //nolint:containedctx // a principal, for every scrape
}

// MaxNames is how many queues, and how many streams, have figures of their own.
// Those after them, by name, are summed under "other".
const MaxNames = 200

// Registry returns what collects all figures of s at each scrape.
func Registry(s Source) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collector{s.build}, collector{s.core}, collector{s.queues}, collector{s.streams},
		collector{s.mqtt}, collector{s.http}, collector{s.store},
	)
	return r
}

// Handler serves the figures of r, also in OpenMetrics' form and compressed.
func Handler(r *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 4})
}

// collector reads one part. It describes nothing ahead, so that a part which is
// not open shows nothing.
type collector struct{ read func(*scrape) }

// Describe implements prometheus.Collector.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) { c.read(&scrape{to}) }

// scrape is one reading of one part.
type scrape struct{ to chan<- prometheus.Metric }

// family is one metric: its name without the prefix, what it is, its labels.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) family {
	return family{prometheus.NewDesc("millrace_"+name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) family {
	return family{prometheus.NewDesc("millrace_"+name+"_total", help, labels, nil), prometheus.CounterValue}
}

// durations is a histogram of seconds.
func durations(name, help string, labels ...string) family {
	return family{prometheus.NewDesc("millrace_"+name+"_duration_seconds", help, labels, nil), prometheus.UntypedValue}
}

func (s *scrape) set(f family, v float64, labels ...string) {
	s.to <- prometheus.MustNewConstMetric(f.desc, f.kind, v, labels...)
}

func (s *scrape) observe(f family, c histogram.Counts, labels ...string) {
	s.to <- prometheus.MustNewConstHistogram(f.desc, c.Count, c.Seconds, c.Buckets, labels...)
}

// each sets one value for each key of m, in order. Label values have no spaces.
func each[N int64 | uint64](s *scrape, f family, m map[string]N, before ...string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		s.set(f, float64(m[k]), append(slices.Clone(before), k)...)
	}
}
