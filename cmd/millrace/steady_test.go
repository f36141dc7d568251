package main_test

import "strings"

// Reasons to ask the machine for the time, and not the broker. Its wall clock
// may be set at any moment: what is stored, or compared with what is stored, is
// never judged by it.
const (
	measures = "how long something takes, by the monotonic reading"
	shows    = "when something was, for people and logs"
	connects = "deadlines of a connection, by the monotonic reading"
	calendar = "what ends on a date of the calendar"
)

// mayAskTheMachine are the files and folders that do, and why.
var mayAskTheMachine = map[string]string{
	"broker/alarms/":                         shows,
	"broker/auth/auth.go":                    calendar, // keys and tokens
	"broker/clustertest/":                    "tests, in fake time",
	"broker/overflow.go":                     measures, // whether a second has passed
	"broker/peersinterest.go":                measures,
	"broker/producer.go":                     measures,
	"cmd/":                                   shows, // logs, certificates, load
	"mqtt/admin.go":                          shows,
	"mqtt/drain.go":                          connects,
	"mqtt/events.go":                         shows,
	"mqtt/listener.go":                       connects,
	"mqtt/login.go":                          connects,
	"mqtt/nodes.go":                          measures, // how often two clients with one id meet
	"mqtt/read.go":                           connects,
	"mqtt/review.go":                         measures,
	"mqtt/sys.go":                            measures,
	"mqtt/upgrade.go":                        connects,
	"mqtt/write.go":                          connects,
	"persistence/cluster/":                   measures,
	"persistence/clock/":                     "the clock that everybody else asks",
	"persistence/jetstream/enter.go":         "what the servers judge by their own clocks",
	"persistence/jetstream/jetstreamtest/":   "tests, in fake time",
	"persistence/jetstream/keys.go":          measures,
	"persistence/jetstream/loss.go":          measures,
	"persistence/jetstream/member.go":        measures,
	"persistence/jetstream/receive.go":       measures,
	"persistence/jetstream/servers.go":       "what the servers judge by their own clocks",
	"persistence/jetstream/sessiontail.go":   measures,
	"persistence/jetstream/stored.go":        measures,
	"persistence/jetstream/store.go":         measures,
	"persistence/jetstream/watermark.go":     measures,
	"persistence/journal/":                   measures,
	"persistence/local/backup.go":            shows,
	"persistence/local/checkpoint.go":        measures,
	"persistence/local/losses.go":            shows,
	"persistence/local/queuestate.go":        measures,
	"persistence/local/recovery.go":          measures,
	"persistence/local/subscriptionstate.go": measures,
	"persistence/storetest/":                 "tests, in fake time",
	"rest/emqx/clients.go":                   shows,
	"rest/emqx/emqx.go":                      measures,
	"rest/emqx/keys.go":                      calendar,
	"rest/emqx/monitor.go":                   shows,
	"rest/flowmq/flowmq.go":                  measures,
	"rest/inspect.go":                        measures, // frames in a second
	"rest/internal/":                         connects,
	"rest/pulsar/produce.go":                 calendar, // deliverAt, which becomes a time of messages there
}

// asksTheMachine reports whether a file may.
func asksTheMachine(name string) bool {
	if strings.HasSuffix(name, "_test.go") {
		return true
	}
	for at := range mayAskTheMachine {
		if name == at || strings.HasSuffix(at, "/") && strings.HasPrefix(name, at) {
			return true
		}
	}
	return false
}
