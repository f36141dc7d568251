package flowmq

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// Messages of one answer of a stream: what it is without ?limit=, and at most.
const (
	defaultRead = 100
	maxRead     = 1000
)

// The words that stand for an offset.
const (
	earliest = "earliest"
	latest   = "latest"
)

// readPartition reads messages of one partition from an offset or a time on.
func (a *api) readPartition(w http.ResponseWriter, r *httpx.Request) error {
	o, err := readOptions(r)
	if err != nil {
		return err
	}
	got, err := r.ReadStream(a.broker, r.Param("stream"), o)
	if err != nil {
		return err
	}
	body := append(r.Buffer(), envelopeHead+`{"messages":[`...)
	for i := range got.Messages {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendRecord(body, &got.Messages[i])
	}
	body = strconv.AppendUint(append(body, `],"next_offset":`...), got.Next, 10)
	body = strconv.AppendUint(append(body, `,"earliest":`...), got.Earliest, 10)
	body = strconv.AppendUint(append(body, `,"latest":`...), got.Latest, 10)
	return httpx.WriteJSON(w, r, http.StatusOK, append(append(body, '}'), envelopeTail...))
}

// readOptions reads the path and the query.
func readOptions(r *httpx.Request) (o broker.ReadOptions, err error) {
	partition, err := strconv.ParseUint(r.Param("partition"), 10, 32)
	if err != nil {
		return o, httpx.ErrNoRoute
	}
	if o.From, err = readPosition(r); err != nil {
		return o, err
	}
	o.From.Partition = uint32(partition)
	if o.Max, err = r.QueryInt("limit", defaultRead, 1, math.MaxInt); err != nil {
		return o, err
	}
	o.Max = min(o.Max, maxRead)
	seconds, err := r.QueryInt("timeout_seconds", 0, 0, math.MaxInt)
	o.Wait = time.Duration(min(seconds, int(maxWait/time.Second))) * time.Second
	return o, err
}

// readPosition reads ?offset= or ?timestamp=; without either it is the earliest.
func readPosition(r *httpx.Request) (p broker.Pos, err error) {
	offset, err := r.Query("offset")
	if err != nil {
		return p, err
	}
	at, err := r.Query("timestamp")
	switch {
	case err != nil:
		return p, err
	case offset != "" && at != "":
		return p, httpx.FieldError("timestamp", "is given beside offset; send one of them")
	case at != "":
		p.Time, err = readTimestamp(at)
	case offset == latest:
		p.End = true
	case offset == earliest || offset == "":
		p.Begin = true
	default:
		if p.Seq, err = strconv.ParseUint(offset, 10, 63); err != nil {
			err = httpx.FieldError("offset", "is %q, it must be a whole number, earliest or latest", offset)
		}
	}
	return p, err
}

// readTimestamp reads RFC 3339 or Unix milliseconds.
func readTimestamp(s string) (time.Time, error) {
	if ms, err := strconv.ParseInt(s, 10, 53); err == nil && ms >= 0 {
		return broker.Time(ms), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, httpx.FieldError("timestamp", "is %q, it must be a time as RFC 3339, or Unix milliseconds", s)
	}
	// Times are kept in milliseconds: nothing before t, so rounded up.
	return t.Add(time.Millisecond - 1).Truncate(time.Millisecond), nil
}
