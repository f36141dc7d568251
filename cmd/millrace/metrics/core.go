package metrics

import "strings"

var (
	buildInfo = gauge("build_info", "Always 1; the label is the version that runs.", "version")
	exposed   = gauge("exposed_listeners", "Listeners without TLS that other machines reach.")

	publishes   = counter("publishes", "Messages offered by producers of any protocol, by outcome.", "outcome")
	stored      = counter("publishes_stored", "Published messages that something durable matched.")
	publishTook = durations("publish", "From handing a publish to the store until it is as safe as promised.")
	waits       = gauge("receives_waiting", "Receives that wait for a message now.")
	authRefused = counter("auth_failures", "Credentials that were refused, by reason.", "reason")
	totalNow    = gauge("total_now", "How much there is in all of what a setting limits: queues, streams, retained (topics), stored (bytes).", "limit")
	totalMost   = gauge("total_limit", "How much there may be, by the setting limits.NAME; 0 is no limit.", "limit")
	totalOver   = counter("total_refusals", "What was refused because there was as much as there may be.", "limit")
	nodeLive    = counter("node_messages", "Live messages between this node and others, by what became of them: sent to another, shed because too much waited for one, received, lost on the way from one, unclaimed by a group without members.", "outcome")
	nodeFrames  = counter("node_frames", "Frames in which live messages were sent to other nodes.")
	nodeRepairs = counter("node_repairs", "Times that another node had to be asked which messages it wants, because what it had told was incomplete.")
	nodes       = gauge("cluster_nodes", "Nodes that share the store, this one among them.")
	leads       = gauge("cluster_leads", "1 when this node leads; a lone node always does.")
	nodeLed     = counter("cluster_led", "Times that this node took the lead from another while it ran; over all nodes, the changes of leader.")
	ready       = gauge("ready", "1 when publishes and acks work now.")
)

func (s Source) build(to *scrape) {
	to.set(buildInfo, 1, s.Version)
	if s.Exposed != nil {
		to.set(exposed, float64(s.Exposed()))
	}
}

func (s Source) core(to *scrape) {
	st := s.Broker.Stats()
	to.set(publishes, float64(st.Published-st.Duplicates), "taken")
	to.set(publishes, float64(st.Duplicates), "duplicate")
	to.set(publishes, float64(st.Refused), "refused")
	to.set(stored, float64(st.Stored))
	to.observe(publishTook, st.Commit)
	to.set(waits, float64(st.Waiting))
	each(to, nodeLive, map[string]uint64{
		"sent": st.Nodes.Sent, "shed": st.Nodes.Shed, "received": st.Nodes.Received, "lost": st.Nodes.Lost, "unclaimed": st.Nodes.Unclaimed,
	})
	to.set(nodeFrames, float64(st.Nodes.Frames))
	to.set(nodeRepairs, float64(st.Nodes.Repairs))
	to.set(nodes, float64(max(1, s.Broker.State().Nodes)))
	to.set(leads, flag(s.Broker.Leads()))
	to.set(nodeLed, float64(st.Nodes.Led))
	refusals := map[string]uint64{}
	for reason, n := range s.Broker.Auth().Refusals() {
		refusals[strings.ReplaceAll(reason, " ", "_")] = n
	}
	each(to, authRefused, refusals)
	for _, t := range s.Broker.Totals() {
		to.set(totalNow, float64(t.Now), t.Name)
		to.set(totalMost, float64(t.Most), t.Name)
		to.set(totalOver, float64(t.Refused), t.Name)
	}
	to.set(ready, flag(s.Broker.Ready() == nil && !s.Broker.State().Full))
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}
