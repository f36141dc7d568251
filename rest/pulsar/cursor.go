package pulsar

import (
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// getCursor shows where a subscription stands: in each partition the last
// message up to which all are acknowledged, and the next that is handed out.
func (a *api) getCursor(w http.ResponseWriter, r *httpx.Request, at *place) error {
	stream, err := a.broker.Stream(r.Context(), at.stream)
	if err != nil {
		return err
	}
	s, err := a.broker.Subscription(r.Context(), at.stream, at.subscription)
	if err != nil {
		return err
	}
	backlog, behind := s.Ready+s.Delayed+s.Leased+s.Dead+s.Held, int64(0)
	mark, read := append(r.Buffer(), `{"cursor":{"mark_delete":[`...), []byte(nil)
	for i, p := range s.Partitioned {
		if i > 0 {
			mark, read = append(mark, ','), append(read, ',')
		}
		mark = appendPlace(mark, stream.Incarnation, i, p.Acked, -1)
		read = appendPlace(read, stream.Incarnation, i, p.Next, 0)
		behind += int64(p.End - p.Acked)
	}
	body := append(append(append(mark, `],"read_position":[`...), read...), `],"individually_acked":`...)
	body = strconv.AppendInt(body, max(0, behind-backlog), 10)
	body = strconv.AppendInt(append(body, `,"backlog":`...), backlog, 10)
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, "}}"...))
}

// appendPlace writes the message at an offset, or the one before it.
func appendPlace(dst []byte, ledger uint64, partition int, offset uint64, step int) []byte {
	dst = strconv.AppendInt(append(dst, `{"partition":`...), int64(partition), 10)
	dst = append(dst, `,"messageId":`...)
	if step < 0 && offset == 0 {
		return append(dst, "null}"...)
	}
	id := messageID{ledger, offset + uint64(int64(step)), uint32(partition)}
	return append(appendID(dst, id), '}')
}

// ackRequest is the body of what is said about messages, in the words of the
// page or of the one server that was written for it.
type ackRequest struct {
	typ       string
	ids       []messageID
	timestamp int64 // Unix milliseconds, or 0
}

func (q *ackRequest) read(d *httpx.Decoder, name []byte) error {
	switch string(name) {
	case "type", "ackType":
		return readOptional(d, &q.typ)
	case "messageIds":
		return d.Array(func(i int) error {
			if i == maxEntries {
				return httpx.Problem("is over the limit of %d ids", maxEntries)
			}
			text, err := d.String()
			if err != nil {
				return err
			}
			id, ok := parseID(text)
			if !ok {
				return httpx.Problem("is %q, which is not a message id", httpx.Clip(text))
			}
			q.ids = append(q.ids, id)
			return nil
		})
	case "messagePositions":
		return d.Array(func(i int) error {
			if i == maxEntries {
				return httpx.Problem("is over the limit of %d ids", maxEntries)
			}
			id, err := readIDObject(d)
			q.ids = append(q.ids, id)
			return err
		})
	case "timestamp":
		return readMillis(d, &q.timestamp)
	}
	return d.Unknown()
}

func readIDObject(d *httpx.Decoder) (id messageID, err error) {
	var ledger, entry, partition int64 = -1, -1, 0
	err = d.Object(func(name []byte) error {
		switch string(name) {
		case "ledgerId":
			return readWhole(d, &ledger, 0, math.MaxInt64)
		case "entryId":
			return readWhole(d, &entry, 0, math.MaxInt64)
		case "partition":
			return readWhole(d, &partition, -1, math.MaxInt32)
		}
		return d.Unknown()
	})
	if err == nil && (ledger < 0 || entry < 0) {
		err = httpx.Problem("must have ledgerId and entryId")
	}
	return messageID{uint64(ledger), uint64(entry), uint32(max(partition, 0))}, err
}

// split parts the ids that are of the topic from others.
func (q *ackRequest) split(ledger uint64) (ours, others []messageID) {
	for _, id := range q.ids {
		if id.ledger == ledger {
			ours = append(ours, id)
		} else {
			others = append(others, id)
		}
	}
	return ours, others
}

func (id messageID) offset() broker.Offset {
	return broker.Offset{Partition: id.partition, Offset: id.entry}
}

func offsetsOf(ids []messageID) []broker.Offset {
	all := make([]broker.Offset, len(ids))
	for i, id := range ids {
		all[i] = id.offset()
	}
	return all
}

// moveCursor acknowledges messages one by one or up to some, or has the
// subscription go on elsewhere.
func (a *api) moveCursor(w http.ResponseWriter, r *httpx.Request, at *place) error {
	var q ackRequest
	err := r.ReadJSON(httpx.MaxJSON, httpx.IgnoreUnknown, false, func(d *httpx.Decoder) error {
		return d.Object(func(name []byte) error { return q.read(d, name) })
	})
	if err != nil {
		return err
	}
	if at.consumer != "" { // an acknowledgement is a sign of life
		if _, err := a.member(r, at); err != nil {
			return err
		}
	}
	s, err := a.broker.Stream(r.Context(), at.stream)
	if err != nil {
		return err
	}
	ours, unknown := q.split(s.Incarnation)
	var done []messageID
	switch typ := strings.ToLower(q.typ); typ {
	case "individual", "single", "cumulative":
		if len(q.ids) == 0 {
			return httpx.FieldError("messageIds", "is missing")
		}
		var not []messageID
		if typ == "cumulative" {
			done, not, err = a.ackUpTo(r, at, ours)
		} else {
			done, not, err = a.ackEach(r, at, ours)
		}
		unknown = append(unknown, not...)
	case "earliest", "latest", "seek":
		done, err = a.seek(r, at, &q, typ, ours, s.Incarnation)
	default:
		return httpx.FieldError("type", "is %q, it must be individual, cumulative, earliest, latest or seek", httpx.Clip(q.typ))
	}
	if err != nil {
		return err
	}
	httpx.SetDurability(w, s.Durability)
	return answerIDs(w, r, done, unknown)
}

func (a *api) ackEach(r *httpx.Request, at *place, ids []messageID) (done, unknown []messageID, err error) {
	results, err := a.broker.AckAt(r.Context(), at.stream, at.subscription, offsetsOf(ids)...)
	if err != nil {
		return nil, nil, err
	}
	for i := range results {
		switch err := results[i].Err; {
		case err == nil:
			done = append(done, ids[i])
		case missing(err):
			unknown = append(unknown, ids[i])
		default:
			return nil, nil, err
		}
	}
	return done, unknown, nil
}

// ackUpTo acknowledges up to the last id of each partition.
func (a *api) ackUpTo(r *httpx.Request, at *place, ids []messageID) (done, unknown []messageID, err error) {
	if len(ids) == 0 { // whose subscription may be missing all the same
		_, err = a.broker.Subscription(r.Context(), at.stream, at.subscription)
		return nil, nil, err
	}
	last := map[uint32]messageID{}
	for _, id := range ids {
		if id.entry >= last[id.partition].entry {
			last[id.partition] = id
		}
	}
	gone := map[uint32]bool{}
	for _, partition := range slices.Sorted(maps.Keys(last)) {
		_, err := a.broker.AckUpTo(r.Context(), at.stream, at.subscription, last[partition].offset())
		if err != nil && !missing(err) {
			return nil, nil, err
		}
		gone[partition] = err != nil
	}
	for _, id := range ids {
		if gone[id.partition] {
			unknown = append(unknown, id)
		} else {
			done = append(done, id)
		}
	}
	return done, unknown, nil
}

// missing reports whether an error says that there is no such message.
func missing(err error) bool {
	code, _ := classify(err)
	return code == badOffset || code == noPartition
}

// seek has the subscription go on at the earliest or latest message, at a time,
// or at messages, which are the next then. It answers where it goes on.
func (a *api) seek(r *httpx.Request, at *place, q *ackRequest, typ string, ids []messageID, ledger uint64) ([]messageID, error) {
	to := broker.Place{Latest: typ == "latest"}
	if typ == "seek" {
		switch {
		case len(q.ids) > 0 && q.timestamp > 0:
			return nil, httpx.FieldError("timestamp", "is given beside messageIds; send one of them")
		case len(q.ids) == 0 && q.timestamp == 0:
			return nil, httpx.FieldError("messageIds", "or timestamp must say where to go on")
		case len(ids) != len(q.ids):
			return nil, httpx.FieldError("messageIds", "holds an id of another topic, or of one that was deleted")
		case q.timestamp > 0:
			to.Time = broker.Time(q.timestamp)
		default:
			to.Offsets = offsetsOf(ids)
		}
	}
	went, err := a.broker.Seek(r.Context(), at.stream, at.subscription, to)
	done := make([]messageID, len(went))
	for i, o := range went {
		done[i] = messageID{ledger, o.Offset, o.Partition}
	}
	return done, err
}

// answerIDs answers which messages it was done to, and to which it could not be.
func answerIDs(w http.ResponseWriter, r *httpx.Request, done, unknown []messageID) error {
	body := append(r.Buffer(), `{"messageIds":[`...)
	for i, id := range done {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendID(body, id)
	}
	body = append(body, `],"unknown":[`...)
	for i, id := range unknown {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendID(body, id)
	}
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, "]}"...))
}
