package pulsar

import (
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"strings"
)

// messageID is where a message is. Pulsar's ledger is the incarnation of the
// stream, so that an id of a topic that was deleted is none of its successor's.
type messageID struct {
	ledger, entry uint64
	partition     uint32
}

// The fields of Pulsar's MessageIdData: all are varints.
const (
	ledgerField = (iota + 1) << 3
	entryField
	partitionField
)

// appendID appends the id as a JSON string: in base64, Pulsar's protobuf form.
func appendID(dst []byte, id messageID) []byte {
	var b [33]byte
	text := append(b[:0], ledgerField)
	text = append(binary.AppendUvarint(text, id.ledger), entryField)
	text = append(binary.AppendUvarint(text, id.entry), partitionField)
	text = binary.AppendUvarint(text, uint64(id.partition))
	dst = base64.StdEncoding.AppendEncode(append(dst, '"'), text)
	return append(dst, '"')
}

// appendText appends the form of Pulsar's server: ledger:entry:partition.
func (id messageID) appendText(dst []byte) []byte {
	dst = append(strconv.AppendUint(dst, id.ledger, 10), ':')
	dst = append(strconv.AppendUint(dst, id.entry, 10), ':')
	return strconv.AppendUint(dst, uint64(id.partition), 10)
}

// parseID reads both forms.
func parseID(s string) (id messageID, ok bool) {
	if strings.Contains(s, ":") {
		return parseTextID(s)
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		if b, err = base64.URLEncoding.DecodeString(s); err != nil {
			return id, false
		}
	}
	var seen byte
	for len(b) > 0 {
		field, n := b[0], 0
		if field&7 != 0 { // every field that there is is a varint
			return id, false
		}
		var v uint64
		if v, n = binary.Uvarint(b[1:]); n <= 0 {
			return id, false
		}
		b = b[1+n:]
		switch field {
		case ledgerField:
			id.ledger, seen = v, seen|1
		case entryField:
			id.entry, seen = v, seen|2
		case partitionField:
			if int32(v) < 0 { // Pulsar's -1: not partitioned
				v = 0
			}
			id.partition = uint32(v)
			if uint64(id.partition) != v {
				return id, false
			}
		}
	}
	return id, seen == 3
}

func parseTextID(s string) (id messageID, ok bool) {
	parts := strings.Split(s, ":")
	if len(parts) != 3 && len(parts) != 2 {
		return id, false
	}
	var err error
	if id.ledger, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return id, false
	}
	if id.entry, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return id, false
	}
	if len(parts) == 3 && parts[2] != "-1" {
		n, err := strconv.ParseUint(parts[2], 10, 31)
		if err != nil {
			return id, false
		}
		id.partition = uint32(n)
	}
	return id, true
}
