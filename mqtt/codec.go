package mqtt

import (
	"strings"

	"github.com/mochi-mqtt/server/v2/packets"
)

// decodeSubscribe turns a SUBSCRIBE that was checked into plain values. mochi's
// decoder panics on some that were not, and its strings alias the packet.
func decodeSubscribe(body []byte, v5 bool) (id uint16, ws []want) {
	pk := decoding(typeSubscribe, body, v5)
	if err := pk.SubscribeDecode(body); err != nil {
		return pk.PacketID, nil // cannot be, after the check
	}
	ws = make([]want, len(pk.Filters))
	for i := range pk.Filters {
		f := &pk.Filters[i]
		ws[i] = want{filter: strings.Clone(f.Filter), qos: f.Qos, noLocal: f.NoLocal, rap: f.RetainAsPublished, handling: f.RetainHandling}
	}
	return pk.PacketID, ws
}

// decodeUnsubscribe does the same for UNSUBSCRIBE.
func decodeUnsubscribe(body []byte, v5 bool) (id uint16, filters []string) {
	pk := decoding(typeUnsubscribe, body, v5)
	if err := pk.UnsubscribeDecode(body); err != nil {
		return pk.PacketID, nil // cannot be, after the check
	}
	filters = make([]string, len(pk.Filters))
	for i := range pk.Filters {
		filters[i] = strings.Clone(pk.Filters[i].Filter)
	}
	return pk.PacketID, filters
}

func decoding(kind byte, body []byte, v5 bool) packets.Packet {
	pk := packets.Packet{ProtocolVersion: 4, FixedHeader: packets.FixedHeader{Type: kind, Qos: 1, Remaining: len(body)}}
	if v5 {
		pk.ProtocolVersion = 5
	}
	return pk
}
