// Package config knows every setting of the server: its name in a file, in the
// environment and on the command line, its default, and what it means.
package config

import "time"

// Config is every setting. The tags are the only place where a setting is
// declared: yaml is its key, flag its flag where people type it, doc the text of
// docs/operations.md, one lists its permitted values, live says that SIGHUP
// applies a change, secret that its variable also comes as _FILE, and shown that
// free text is fit for a dump of the settings.
type Config struct {
	Data           string   `yaml:"data" shown:"yes" flag:"data" doc:"data directory; default: /var/lib/millrace for root, else $XDG_DATA_HOME/millrace; a temporary folder with --dev"`
	Dev            Switch   `yaml:"dev" flag:"dev" one:"false|true|any" doc:"development mode: loopback only, every door open, a new password and key at each start; any is for containers: it binds MQTT and HTTP to all addresses and closes what needs no credentials"`
	AllowAnonymous Switch   `yaml:"allow_anonymous" flag:"allow-anonymous" one:"false|true|any" doc:"let MQTT clients in without credentials, on loopback listeners; any extends that to all listeners"`
	BootstrapFile  string   `yaml:"bootstrap_file" shown:"yes" live:"yes" flag:"bootstrap-file" doc:"YAML file with api_keys, users, rules, queues and streams; read at each start, creates what is missing, never overwrites"`
	PortsFile      string   `yaml:"ports_file" shown:"yes" flag:"ports-file" doc:"file to write the chosen addresses to, as JSON, once all listeners are open"`
	PublicURL      string   `yaml:"public_url" shown:"yes" flag:"public-url" doc:"URL at which clients reach HTTP, for the commands that are printed and the base_uri of Pulsar consumers"`
	DrainTimeout   Duration `yaml:"drain_timeout" doc:"how long a stop waits for clients and commits"`

	Log       Log       `yaml:"log"`
	MQTT      MQTT      `yaml:"mqtt"`
	HTTP      HTTP      `yaml:"http"`
	EMQX      Dialect   `yaml:"emqx"`
	FastQueue FastQueue `yaml:"fastqueue"`
	Memfifo   Memfifo   `yaml:"memfifo"`
	Pulsar    Pulsar    `yaml:"pulsar"`
	TLS       TLS       `yaml:"tls"`
	Store     Store     `yaml:"store"`
	NATS      NATS      `yaml:"nats"`
	Limits    Limits    `yaml:"limits"`
	Audit     Audit     `yaml:"audit"`

	origins map[string]Origin
}

// Log is what is written to standard error.
type Log struct {
	Level  string `yaml:"level" flag:"log-level" one:"debug|info|warn|error" live:"yes" doc:"least level that is logged"`
	Format string `yaml:"format" one:"auto|json|console" doc:"form of the log; auto is console on a terminal and JSON elsewhere"`
}

// MQTT is the MQTT edge.
type MQTT struct {
	Listen           string   `yaml:"listen" shown:"yes" flag:"mqtt-listen" doc:"address of MQTT over TCP; none closes it"`
	TLSListen        string   `yaml:"tls_listen" shown:"yes" flag:"mqtt-tls-listen" doc:"address of MQTT over TLS, customarily port 8883; needs tls.cert and tls.key"`
	WSListen         string   `yaml:"ws_listen" shown:"yes" flag:"mqtt-ws-listen" doc:"address of MQTT over WebSocket, at / and /mqtt, customarily port 8083"`
	WSSListen        string   `yaml:"wss_listen" shown:"yes" flag:"mqtt-wss-listen" doc:"address of MQTT over WebSocket and TLS, customarily port 8084; needs tls.cert and tls.key"`
	UnixListen       string   `yaml:"unix_listen" shown:"yes" flag:"mqtt-unix-listen" doc:"path of a Unix socket for MQTT"`
	UnixMode         FileMode `yaml:"unix_mode" doc:"permissions of the Unix socket's file: who may connect"`
	ProxyFrom        []string `yaml:"proxy_from" shown:"yes" doc:"addresses and networks of proxies, for example 10.0.0.0/8: their connections, and no others, are taken by mqtt.proxy_listeners, and begin with a PROXY header, version 1 or 2, that names the client's address"`
	ProxyListeners   []string `yaml:"proxy_listeners" shown:"yes" doc:"MQTT listeners that mqtt.proxy_from is about: mqtt, mqtt-tls, mqtt-ws, mqtt-wss"`
	MaxPacketSize    Size     `yaml:"max_packet_size" doc:"largest MQTT packet that is taken"`
	ReceiveMaximum   int      `yaml:"receive_maximum" doc:"QoS 1 and 2 messages that a client may have unacknowledged"`
	MaxInflight      int      `yaml:"max_inflight" doc:"QoS 1 and 2 messages that a client is sent without an acknowledgement"`
	MaxKeepalive     Duration `yaml:"max_keepalive" live:"yes" doc:"longest keep-alive that a client may ask for; 0s has no cap"`
	MaxOutput        Size     `yaml:"max_output" doc:"bytes that wait for one slow client before QoS 0 is shed"`
	MaxSubscriptions int      `yaml:"max_subscriptions" live:"yes" doc:"subscriptions of one session"`
	MaxFilters       int      `yaml:"max_filters" live:"yes" doc:"filters in one SUBSCRIBE"`
	TopicAliases     int      `yaml:"topic_aliases" doc:"topic aliases that a client may use towards us, and most that we use towards it"`
	ConnectTimeout   Duration `yaml:"connect_timeout" doc:"from the first byte of a connection to its login, handshakes of TLS and WebSocket included"`
	StallTimeout     Duration `yaml:"stall_timeout" doc:"a client whose socket takes nothing for that long is closed"`
	MaxSessionQueue  int      `yaml:"max_session_queue" live:"yes" doc:"messages that wait for one session before session_overflow applies"`
	MaxSessionBytes  Size     `yaml:"max_session_bytes" live:"yes" doc:"the same in bytes, as stored"`
	SessionOverflow  string   `yaml:"session_overflow" live:"yes" one:"drop-oldest|drop-newest|refuse-publisher" doc:"what a full session of a client that is away does"`
	LeaseGrace       Duration `yaml:"lease_grace" doc:"how long messages of queues stay with the client of a durable session that is gone"`
	SessionExpiry3   Duration `yaml:"session_expiry_311" doc:"how long a session with clean=false of an MQTT 3.1.1 client outlives its connection; 0s has no end"`
	RivalTakeovers   int      `yaml:"rival_takeovers" doc:"take-overs of one client id in a row, each within 10 s, after which its clients are named as rivals in the log and below $events, and their connects slowed down to one in 8 s; 0 never"`
	SysInterval      Duration `yaml:"sys_interval" doc:"how often the counters below $SYS are told; 0s never"`
	Events           bool     `yaml:"events" doc:"tell what happens to clients below $events/client/ID/: connected, disconnected, denied, takeover"`
	ResponseInfo     string   `yaml:"response_information" doc:"topic that an MQTT 5 client is told if it asks for response information, to have answers sent below it; %c is its client id, as in rules; empty tells nothing"`
	DenyAction       string   `yaml:"deny_action" one:"ack|close" doc:"what an MQTT 3.1.1 client meets after a publish that it may not make"`
}

// HTTP is the shared HTTP listener.
type HTTP struct {
	Listen         string   `yaml:"listen" shown:"yes" flag:"http-listen" doc:"address of HTTP with all dialects but memfifo; none closes it"`
	TLSListen      string   `yaml:"tls_listen" shown:"yes" flag:"http-tls-listen" doc:"address of the same over TLS, with HTTP/2; needs tls.cert and tls.key"`
	ClientAuth     string   `yaml:"client_auth" one:"none|optional|require" doc:"whether HTTP over TLS asks for a client certificate, signed by tls.client_ca; without credentials in the request its name is the user"`
	HSTS           Duration `yaml:"hsts" doc:"how long answers over TLS tell browsers to use nothing but TLS for this host, on any port; 0s tells nothing"`
	AllowedOrigins []string `yaml:"allowed_origins" shown:"yes" doc:"origins of web pages that may call the API, and connect to MQTT over WebSocket"`
	MQTT           bool     `yaml:"mqtt" doc:"MQTT over WebSocket at /mqtt"`
	MaxRaw         Size     `yaml:"max_raw" doc:"largest request body that is one payload as it is; 0 is limits.payload"`
	MaxJSON        Size     `yaml:"max_json" doc:"largest JSON request body; 0 is twice limits.payload"`
	MaxBatch       Size     `yaml:"max_batch" doc:"largest request body that holds many messages; 0 is four times limits.payload"`
}

// Dialect is a listener of one dialect at its native port.
type Dialect struct {
	Listen string `yaml:"listen" shown:"yes" flag:"emqx-listen" doc:"address of the EMQX management API alone; its own port is 18083"`
}

// FastQueue is the FastQueue dialect.
type FastQueue struct {
	Listen       string `yaml:"listen" shown:"yes" flag:"fastqueue-listen" doc:"address of the FastQueue API alone; its own port is 9080"`
	Registration bool   `yaml:"registration" doc:"let anyone make a FastQueue account; true with --dev"`
}

// Memfifo is the memfifo dialect.
type Memfifo struct {
	Listen string `yaml:"listen" shown:"yes" flag:"memfifo-listen" doc:"address of the memfifo API; its own port is 7532"`
	Auth   bool   `yaml:"auth" doc:"ask for credentials on the memfifo listener; false with --dev, else only on loopback"`
}

// Pulsar is the Pulsar dialect.
type Pulsar struct {
	AutoCreateTopics bool `yaml:"auto_create_topics" doc:"the first message to a topic of the Pulsar API makes it, with one partition"`
}

// TLS is the certificate of the listeners that use one. Files are read again
// when they change.
type TLS struct {
	Cert       string `yaml:"cert" shown:"yes" flag:"tls-cert" doc:"certificate file with its chain, PEM; read again when it changes, and on SIGHUP"`
	Key        string `yaml:"key" shown:"yes" flag:"tls-key" doc:"key file, PEM"`
	ClientCA   string `yaml:"client_ca" shown:"yes" flag:"tls-client-ca" doc:"certificates that sign client certificates, PEM; with it MQTT over TLS asks for one, and its name is the user, without a password"`
	ClientCRL  string `yaml:"client_crl" shown:"yes" doc:"revoked client certificates, PEM, signed by their authority"`
	ClientName string `yaml:"client_name" one:"cn|dns|uri" doc:"what in a client certificate names the user: its common name, or its only DNS name or URI"`
	ClientAuth string `yaml:"client_auth" one:"require|optional" doc:"whether MQTT over TLS takes clients without a certificate, who then log in with a password"`
}

// Store is where messages are kept.
type Store struct {
	URL        string `yaml:"url" flag:"store" secret:"yes" doc:"servers of a NATS JetStream to keep messages in, nats://h1:4222,h2:4222 or tls://; empty keeps them in the data directory"`
	Sync       string `yaml:"sync" one:"group|interval" doc:"group acknowledges after the disk has it, one sync for many messages; interval acknowledges before the sync that follows within a second, and marks every answer as relaxed"`
	AcceptLoss Switch `yaml:"accept_loss" flag:"accept-loss" one:"false|true" doc:"open a damaged store without what is damaged; the log names what is gone"`
	LowDisk    Size   `yaml:"low_disk" doc:"free bytes of the disk under which messages, new queues, streams and sessions are refused, while acknowledgements and deletions go on; it ends by itself a tenth above; 0 is the larger of two segments of the journal (8 MiB at first, 128 MiB later) and 5 % of the disk, the latter 2 GiB at most"`
	Compact    Size   `yaml:"compact_rate" doc:"bytes a second that compaction reads and writes at most while it empties sparse segments of the journal; 0 is 32 MiB"`
}

// NATS is the JetStream that store.url names.
type NATS struct {
	Creds    string   `yaml:"creds" flag:"nats-creds" doc:"credentials file for NATS"`
	NKey     string   `yaml:"nkey" flag:"nats-nkey" doc:"file with an nkey seed, in place of nats.creds"`
	CA       string   `yaml:"tls_ca" shown:"yes" flag:"nats-tls-ca" doc:"certificates that sign those of the NATS servers, PEM"`
	Cert     string   `yaml:"tls_cert" shown:"yes" flag:"nats-tls-cert" doc:"certificate to show to the NATS servers, PEM"`
	Key      string   `yaml:"tls_key" shown:"yes" flag:"nats-tls-key" doc:"its key, PEM"`
	SysCreds string   `yaml:"sys_creds" flag:"nats-sys-creds" doc:"credentials file of the system account of NATS; with it a start reads from every server how it syncs its disk"`
	Domain   string   `yaml:"domain" shown:"yes" flag:"nats-domain" doc:"JetStream domain to use, where store.url names servers of another one, like those of a leaf node"`
	Node     string   `yaml:"node" shown:"yes" flag:"node-name" doc:"names this node, and each of a cluster needs a name of its own; empty is the name of the machine and four letters kept in the data directory"`
	Prefix   string   `yaml:"prefix" shown:"yes" flag:"nats-prefix" doc:"begins the name of every stream, bucket and subject; the nodes that use the same one are one broker"`
	Replicas int      `yaml:"replicas" flag:"nats-replicas" doc:"copies of each stream, 1, 3 or 5; 0 is 3 in a cluster and 1 on a lone server"`
	Sync     string   `yaml:"sync" flag:"nats-sync" one:"unknown|always|interval" doc:"how the NATS servers are configured to write (their sync_interval), which they do not tell; unless it is always, every answer is marked as relaxed"`
	Wait     Duration `yaml:"wait" flag:"nats-wait" doc:"how long a start waits for the NATS servers"`
	Advert   string   `yaml:"advertise" shown:"yes" doc:"host:port at which clients reach the MQTT of this node; a node that stops names those of the others to clients of MQTT 5; empty names none"`
	Buffer   Size     `yaml:"node_buffer" doc:"bytes of live messages that wait to be sent to one other node; what comes beyond it is let go there, and counted"`
	Ahead    int      `yaml:"look_ahead" doc:"messages of a queue with FIFO groups that may wait for their keys while it looks for one whose key is free; 0 is 20,000"`
}

// Limits hold on every door.
type Limits struct {
	Payload     Size `yaml:"payload" doc:"largest message payload"`
	TopicBytes  int  `yaml:"topic_bytes" doc:"longest topic and filter"`
	TopicLevels int  `yaml:"topic_levels" doc:"most levels of a topic and filter"`
	Waiting     int  `yaml:"waiting" live:"yes" doc:"receives that wait at once"`
	PerAddress  int  `yaml:"per_address" live:"yes" doc:"MQTT connections of one address; 0 has no limit"`
	PerIdentity int  `yaml:"per_identity" live:"yes" doc:"MQTT connections of one user or key; 0 has no limit"`
	AcceptRate  int  `yaml:"accept_rate" live:"yes" doc:"new MQTT connections a second, the others wait their turn; 0 has no limit"`
	Connecting  int  `yaml:"connecting" doc:"MQTT connections that have not logged in yet, and those of an HTTP listener that have sent no request; beyond it the oldest is dropped"`
	Queues      int  `yaml:"queues" live:"yes" doc:"queues in all; beyond it none can be made; 0 has no limit"`
	Streams     int  `yaml:"streams" live:"yes" doc:"streams in all; beyond it none can be made; 0 has no limit"`
	Stored      Size `yaml:"stored" live:"yes" doc:"what all queues, streams and sessions hold together, a message once for each that has it; from there on messages that would be stored are refused, while those that are there are delivered, acknowledged and moved; 0 has no limit"`
	Retained    int  `yaml:"retained" live:"yes" doc:"topics with a retained message; beyond it those of further topics are refused; 0 has no limit"`
	Memory      Size `yaml:"memory" doc:"memory in all; from seven eighths of it in use on, new connections and publishes are refused, consumers are served; 0 has no limit"`
	KeyRate     int  `yaml:"key_rate" live:"yes" doc:"HTTP requests of one user, key or anonymous client a second; 0 has no limit"`
	KeyMessages int  `yaml:"key_messages" live:"yes" doc:"messages that one user, key or anonymous client may publish a second; 0 has no limit"`
	KeyBytes    Size `yaml:"key_bytes" live:"yes" doc:"payload that one user, key or anonymous client may publish a second; 0 has no limit"`
}

// Audit is the log of who changed what.
type Audit struct {
	Enabled bool `yaml:"enabled" doc:"write audit.log in the data directory: logins, refused credentials, changes of users, keys and rules, purges and deletes"`
	MaxSize Size `yaml:"max_size" doc:"size at which audit.log becomes audit.log.1, and a new one begins"`
	Keep    int  `yaml:"keep" doc:"full files that stay; beyond it the oldest goes"`
}

// None as an address closes a listener.
const None = "none"

// Default returns the settings of a start without file, environment and flags.
func Default() *Config {
	return &Config{
		Dev: Off, AllowAnonymous: Off, DrainTimeout: Duration(30 * time.Second),
		Log: Log{Level: "info", Format: "auto"},
		MQTT: MQTT{
			Listen: "127.0.0.1:1883", TLSListen: None, WSListen: None, WSSListen: None, UnixListen: None, UnixMode: 0o660,
			ProxyListeners: []string{"mqtt", "mqtt-tls", "mqtt-ws", "mqtt-wss"},
			MaxPacketSize:  4<<20 + 64<<10, ReceiveMaximum: 1024, MaxInflight: 1024,
			MaxSubscriptions: 10_000, MaxFilters: 1024, TopicAliases: 32,
			ConnectTimeout: Duration(5 * time.Second), StallTimeout: Duration(10 * time.Second),
			MaxOutput: 16 << 20, MaxSessionQueue: 100_000, MaxSessionBytes: 64 << 20, SessionOverflow: "drop-oldest",
			LeaseGrace: Duration(30 * time.Second), SysInterval: Duration(10 * time.Second), RivalTakeovers: 3, Events: true, DenyAction: "ack",
		},
		HTTP:      HTTP{Listen: "127.0.0.1:8080", TLSListen: None, ClientAuth: "none", MQTT: true},
		EMQX:      Dialect{Listen: None},
		FastQueue: FastQueue{Listen: None},
		Memfifo:   Memfifo{Listen: None, Auth: true},
		Store:     Store{Sync: "group", AcceptLoss: Off},
		NATS:      NATS{Prefix: "mr", Sync: "unknown", Wait: Duration(30 * time.Second), Buffer: 16 << 20},
		Limits:    Limits{Connecting: 4096, Payload: 4 << 20, TopicBytes: 1024, TopicLevels: 201, Waiting: 10_000},
		TLS:       TLS{ClientName: "cn", ClientAuth: "require"},
		Pulsar:    Pulsar{AutoCreateTopics: true},
		Audit:     Audit{Enabled: true, MaxSize: 16 << 20, Keep: 8},
		origins:   map[string]Origin{},
	}
}

// development holds the defaults that --dev changes, by key.
var development = map[string]string{
	"allow_anonymous":        "true",
	"emqx.listen":            "127.0.0.1:18083",
	"fastqueue.listen":       "127.0.0.1:9080",
	"fastqueue.registration": "true",
	"memfifo.listen":         "127.0.0.1:7532",
	"memfifo.auth":           "false",
}

// container holds the defaults that --dev=any changes, by key: reachable from
// outside, therefore nothing without credentials.
var container = map[string]string{
	"mqtt.listen": "0.0.0.0:1883",
	"http.listen": "0.0.0.0:8080",
}
