package emqx

import "millrace/broker/clients"

// clientView is a client as EMQX shows it. What it has of Erlang's own is left
// out: heap_size, reductions, mailbox_len.
type clientView struct {
	ClientID       string  `json:"clientid"`
	Username       *string `json:"username"`
	Node           string  `json:"node"`
	Listener       string  `json:"listener"`
	Connected      bool    `json:"connected"`
	ConnectedAt    *string `json:"connected_at"`
	CreatedAt      *string `json:"created_at"`
	DisconnectedAt *string `json:"disconnected_at,omitempty"`
	IPAddress      string  `json:"ip_address"`
	Port           int     `json:"port"`
	ProtoName      string  `json:"proto_name"`
	ProtoVer       byte    `json:"proto_ver"`
	KeepAlive      uint16  `json:"keepalive"`
	CleanStart     bool    `json:"clean_start"`
	ExpiryInterval uint32  `json:"expiry_interval"`
	IsBridge       bool    `json:"is_bridge"`
	IsPersistent   bool    `json:"is_persistent"`
	IsExpired      bool    `json:"is_expired"`
	EnableAuthn    bool    `json:"enable_authn"`
	Mountpoint     *string `json:"mountpoint"`
	Durable        bool    `json:"durable"`

	SubscriptionsCnt int `json:"subscriptions_cnt"`
	SubscriptionsMax int `json:"subscriptions_max"`
	InflightCnt      int `json:"inflight_cnt"`
	InflightMax      int `json:"inflight_max"`
	MqueueLen        int `json:"mqueue_len"`
	MqueueMax        int `json:"mqueue_max"`
	AwaitingRelCnt   int `json:"awaiting_rel_cnt"`
	AwaitingRelMax   int `json:"awaiting_rel_max"`

	MqueueDropped int64 `json:"mqueue_dropped"`

	RecvPkt     int64 `json:"recv_pkt"`
	RecvOct     int64 `json:"recv_oct"`
	RecvMsg     int64 `json:"recv_msg"`
	RecvQoS0    int64 `json:"recv_msg.qos0"`
	RecvQoS1    int64 `json:"recv_msg.qos1"`
	RecvQoS2    int64 `json:"recv_msg.qos2"`
	RecvDropped int64 `json:"recv_msg.dropped"`

	SendPkt      int64 `json:"send_pkt"`
	SendOct      int64 `json:"send_oct"`
	SendMsg      int64 `json:"send_msg"`
	SendQoS0     int64 `json:"send_msg.qos0"`
	SendQoS1     int64 `json:"send_msg.qos1"`
	SendQoS2     int64 `json:"send_msg.qos2"`
	SendDropped  int64 `json:"send_msg.dropped"`
	SendExpired  int64 `json:"send_msg.dropped.expired"`
	SendFull     int64 `json:"send_msg.dropped.queue_full"`
	SendTooLarge int64 `json:"send_msg.dropped.too_large"`
}

func (a *api) viewClient(c *clients.Client) clientView {
	f, n := c.Facts, c.Numbers()
	v := clientView{
		ClientID: f.ID, Node: a.options.Node, Listener: f.Listener, Connected: f.Connected,
		ConnectedAt: timestamp(f.ConnectedAt), CreatedAt: timestamp(f.CreatedAt), DisconnectedAt: timestamp(f.DisconnectedAt),
		IPAddress: f.Host, Port: f.Port, ProtoName: "MQTT", ProtoVer: f.Version, KeepAlive: n.KeepAlive,
		CleanStart: f.CleanStart, ExpiryInterval: f.Expiry, IsPersistent: f.Expiry > 0, Durable: f.Expiry > 0, EnableAuthn: true,
		SubscriptionsCnt: n.Subscriptions, SubscriptionsMax: n.MaxSubscriptions,
		InflightCnt: n.Inflight, InflightMax: n.MaxInflight, MqueueLen: n.Waiting, MqueueMax: n.MaxWaiting,
		AwaitingRelCnt: n.AwaitingRel, AwaitingRelMax: n.MaxAwaitingRel,
		MqueueDropped: n.Sent.Full,
		RecvPkt:       n.Received.Packets, RecvOct: n.Received.Bytes, RecvMsg: total(n.Received.Messages),
		RecvQoS0: n.Received.Messages[0], RecvQoS1: n.Received.Messages[1], RecvQoS2: n.Received.Messages[2], RecvDropped: n.Received.Dropped,
		SendPkt: n.Sent.Packets, SendOct: n.Sent.Bytes, SendMsg: total(n.Sent.Messages),
		SendQoS0: n.Sent.Messages[0], SendQoS1: n.Sent.Messages[1], SendQoS2: n.Sent.Messages[2],
		SendDropped: n.Sent.Dropped, SendExpired: n.Sent.Expired, SendFull: n.Sent.Full, SendTooLarge: n.Sent.TooLarge,
	}
	if f.Username != "" {
		v.Username = &f.Username
	}
	if f.Version == 3 {
		v.ProtoName = "MQIsdp"
	}
	return v
}

func total(n [3]int64) int64 { return n[0] + n[1] + n[2] }
