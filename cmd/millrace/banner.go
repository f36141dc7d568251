package main

import (
	"fmt"
	"io"
	"net"
	"strings"
)

// banner is the start-up text of --dev. Its commands can be pasted as they stand.
type banner struct {
	build     buildInfo
	temporary bool
	open      []opened
	publicURL string
	login     credentials
	anonymous bool // MQTT needs no login
}

// reachable is the address by which this machine reaches a listener.
func reachable(addr string) (host, port string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr, ""
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return host, port
}

func (b *banner) addr(name string) (host, port string) {
	for _, o := range b.open {
		if o.name == name {
			return reachable(o.addr)
		}
	}
	return "", ""
}

// url is where HTTP answers: the shared listener, or what --public-url says.
func (b *banner) url() string {
	if b.publicURL != "" {
		return strings.TrimRight(b.publicURL, "/")
	}
	host, port := b.addr("http")
	if port == "" {
		return ""
	}
	return "http://" + net.JoinHostPort(host, port)
}

// mosquitto are the flags that mosquitto's commands need.
func (b *banner) mosquitto() string {
	host, port := b.addr("mqtt")
	flags := ""
	if host != "127.0.0.1" {
		flags += " -h " + host
	}
	if port != "1883" {
		flags += " -p " + port
	}
	if !b.anonymous {
		flags += fmt.Sprintf(" -u %s -P %s", b.login.user, b.login.password)
	}
	return flags
}

// write prints what is open and what to try.
func (b *banner) write(w io.Writer) error {
	var t strings.Builder
	where := "data in a temporary folder"
	if !b.temporary {
		where = "data is kept"
	}
	fmt.Fprintf(&t, "\n%s   DEVELOPMENT MODE: %s, new password and key at each start\n\n", b.build.Short(), where)
	for _, o := range b.open {
		label, form := spelled(o.name)
		at := o.addr
		if host, port := reachable(o.addr); port != "" {
			at = net.JoinHostPort(host, port)
		}
		fmt.Fprintf(&t, "  %-10s "+form+"\n", label, at)
	}
	fmt.Fprintf(&t, "  %-10s %s / %s\n  %-10s %s\n", "login", b.login.user, b.login.password, "API key", b.login.bearer())
	b.commands(&t)
	t.WriteString("\n  Stop with Ctrl+C. For real use: millrace serve\n\n")
	_, err := io.WriteString(w, t.String())
	return err
}

// spelled is what a listener is called for people, and how its address is written.
func spelled(name string) (label, form string) {
	switch name {
	case "mqtt":
		return "MQTT", "mqtt://%s"
	case "mqtt-tls":
		return "MQTT, TLS", "mqtts://%s"
	case "mqtt-ws":
		return "MQTT, WS", "ws://%s/mqtt"
	case "mqtt-wss":
		return "MQTT, WSS", "wss://%s/mqtt"
	case "mqtt-unix":
		return "MQTT, Unix", "unix://%s"
	case "http":
		return "HTTP", "http://%s"
	case "https":
		return "HTTP, TLS", "https://%s"
	case "emqx":
		return "EMQX API", "http://%s"
	case "fastqueue":
		return "FastQueue", "http://%s"
	}
	return name, "http://%s"
}

func (b *banner) commands(t *strings.Builder) {
	url, key := b.url(), b.login.bearer()
	_, mqtt := b.addr("mqtt")
	if url == "" || mqtt == "" {
		return // one half is closed: the walk below needs both
	}
	curl := fmt.Sprintf("curl -s -H 'Authorization: Bearer %s'", key)
	fmt.Fprintf(t, "\n  MQTT in (the queue \"demo\" collects demo/#):\n    mosquitto_pub%s -t demo/hello -m hello -q 1\n", b.mosquitto())
	fmt.Fprintf(t, "  HTTP out:\n    M=$(%s -d '{\"timeout_seconds\":20}' %s/api/v1/queues/demo/messages/consume); echo \"$M\"\n", curl, url)
	fmt.Fprintf(t, "  Done with it (without this it comes back after 30 s):\n    %s\n", ackCommand(curl, url))
	fmt.Fprintf(t, "  HTTP in, MQTT out:\n    mosquitto_sub%s -t 'demo/#' -v &\n", b.mosquitto())
	fmt.Fprintf(t, "    %s -d '{\"payload\":\"hello\"}' %s/api/v1/topics/demo/hello/messages\n", curl, url)
}

// ackCommand acknowledges what the consume command left in $M, with nothing but
// sed: message ids and receipts hold no quotes.
func ackCommand(curl, url string) string {
	field := func(name string) string {
		return fmt.Sprintf(`$(printf %%s "$M" | sed 's/.*"%s":"\([^"]*\)".*/\1/')`, name)
	}
	return fmt.Sprintf(`%s -d "{\"receipt_handle\":\"%s\"}" "%s/api/v1/queues/demo/messages/%s/ack"`,
		curl, field("receipt_handle"), url, field("message_id"))
}
