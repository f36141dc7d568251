package metrics

import "strconv"

var (
	connections = gauge("connections", "MQTT connections that are open, after their CONNACK.")
	connecting  = gauge("connections_before_connect", "Sockets that have not sent their CONNECT yet.")
	accepted    = counter("connections_accepted", "Sockets that MQTT listeners ever accepted.")
	refused     = counter("connections_refused", "MQTT connections that ended before their CONNACK, by reason.", "reason")
	closed      = counter("connections_closed", "MQTT connections that ended after their CONNACK, by reason.", "reason")
	slow        = counter("slow_consumers", "MQTT connections that were closed because their socket took nothing.")
	received    = counter("messages_received", "Messages that arrived, by protocol.", "protocol")
	delivered   = counter("messages_delivered", "Messages that were written to consumers, by protocol.", "protocol")
	dropped     = counter("messages_dropped", "MQTT messages that did not go on, by reason.", "reason")
	panics      = counter("panics", "Faults of ours that ended one connection or request.", "protocol")

	requests    = counter("http_requests", "HTTP requests, by dialect, route, method and status.", "dialect", "route", "method", "code")
	requestTook = durations("http_request", "From the request's headers to the end of the answer; long polls wait.", "dialect", "route", "method")
)

func (s Source) mqtt(to *scrape) {
	server := s.MQTT()
	if server == nil {
		return
	}
	st := server.Stats()
	to.set(connections, float64(st.Open))
	to.set(connecting, float64(st.Waiting))
	to.set(accepted, float64(st.Accepted))
	each(to, refused, st.Refused)
	each(to, closed, st.Closed)
	to.set(slow, float64(st.SlowConsumers))
	to.set(received, float64(st.Received), "mqtt")
	to.set(delivered, float64(st.Delivered), "mqtt")
	each(to, dropped, st.Dropped)
	to.set(panics, float64(st.Panics), "mqtt")
}

// http shows the routes that were ever asked. A request that no route took has
// the route "none", one that was broken off before its answer the code "none".
func (s Source) http(to *scrape) {
	server := s.HTTP()
	if server == nil {
		return
	}
	for _, r := range server.Stats() {
		if r.Route == "" {
			r.Route, r.Method = "none", "any"
		}
		for code, n := range r.Codes {
			status := "none"
			if code > 0 {
				status = strconv.Itoa(code)
			}
			to.set(requests, float64(n), r.Dialect, r.Route, r.Method, status)
		}
		to.observe(requestTook, r.Took, r.Dialect, r.Route, r.Method)
	}
	to.set(panics, float64(server.Panics()), "http")
}
