package pulsar

import (
	"math"
	"net/http"
	"strconv"
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// Limits of an answer with messages; what is over a limit is cut to it.
const (
	defaultTimeout  = time.Second
	maxTimeout      = 30 * time.Second
	defaultMessages = 100
	maxMessages     = 1000
	defaultBytes    = 1 << 20
	maxBytes        = 64 << 20
)

// limits are how much of an answer a client wants.
type limits struct {
	wait            time.Duration
	messages, bytes int
}

// readLimits reads the query, in the spelling of the page or of the one server
// that was written for it.
func readLimits(r *httpx.Request) (l limits, err error) {
	timeout, err := r.QueryInt("timeout", int(defaultTimeout/time.Millisecond), 0, math.MaxInt)
	if err != nil {
		return l, err
	}
	l.wait = time.Duration(min(timeout, int(maxTimeout/time.Millisecond))) * time.Millisecond
	if l.messages, err = queryEither(r, "max_messages", "maxMessage", defaultMessages); err != nil {
		return l, err
	}
	l.messages = min(l.messages, maxMessages)
	l.bytes, err = queryEither(r, "max_bytes", "maxByte", defaultBytes)
	l.bytes = min(l.bytes, maxBytes)
	return l, err
}

func queryEither(r *httpx.Request, name, other string, absent int) (int, error) {
	n, err := r.QueryInt(other, absent, 1, math.MaxInt)
	if err != nil {
		return 0, err
	}
	return r.QueryInt(name, n, 1, math.MaxInt)
}

// read reads messages of one partition, and takes nothing away.
func (a *api) read(w http.ResponseWriter, r *httpx.Request, at *place) error {
	l, err := readLimits(r)
	if err != nil {
		return err
	}
	include, err := queryBool(r, "include_schema")
	if err != nil {
		return err
	}
	o := broker.ReadOptions{Max: l.messages, MaxBytes: l.bytes, Wait: l.wait}
	if o.From, err = a.readPosition(r, at); err != nil {
		return err
	}
	o.From.Partition = uint32(at.partition)
	got, err := r.ReadStream(a.broker, at.stream, o)
	if err != nil {
		return err
	}
	v := a.newView(r, at.stream)
	body := append(r.Buffer(), `{"messages":[`...)
	for i := range got.Messages {
		if i > 0 {
			body = append(body, ',')
		}
		m := &got.Messages[i]
		if body, err = v.append(body, m, messageID{uint64(m.Target), m.Seq, m.Partition}); err != nil {
			return err
		}
	}
	body = append(body, ']')
	if include {
		body = v.appendSchemas(append(body, `,"schemas":`...))
	}
	body = strconv.AppendUint(append(body, `,"next_offset":`...), got.Next, 10)
	body = strconv.AppendUint(append(body, `,"earliest":`...), got.Earliest, 10)
	body = strconv.AppendUint(append(body, `,"latest":`...), got.Latest, 10)
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, '}'))
}

// readPosition reads where to begin, which the page leaves open: an offset, a
// message id behind which to go on, earliest or latest; without any, earliest.
func (a *api) readPosition(r *httpx.Request, at *place) (p broker.Pos, err error) {
	offset, err := r.Query("offset")
	if err != nil {
		return p, err
	}
	id, err := r.Query("message_id")
	if err != nil {
		return p, err
	}
	word, err := r.Query("position")
	switch {
	case err != nil:
		return p, err
	case offset != "" && id != "" || offset != "" && word != "" || id != "" && word != "":
		return p, httpx.FieldError("offset", "and message_id and position say where to begin: send one of them")
	case offset != "":
		if p.Seq, err = strconv.ParseUint(offset, 10, 63); err != nil {
			err = httpx.FieldError("offset", "is %q, it must be a whole number", httpx.Clip(offset))
		}
	case id != "":
		p.Seq, err = a.behind(r, at, id)
	case word == "latest":
		p.End = true
	case word == "earliest" || word == "":
		p.Begin = true
	default:
		err = httpx.FieldError("position", "is %q, it must be earliest or latest", httpx.Clip(word))
	}
	return p, err
}

// behind returns the offset that follows a message.
func (a *api) behind(r *httpx.Request, at *place, text string) (uint64, error) {
	id, ok := parseID(text)
	if !ok {
		return 0, httpx.FieldError("message_id", "is %q, which is not a message id", httpx.Clip(text))
	}
	s, err := a.broker.Stream(r.Context(), at.stream)
	switch {
	case err != nil:
		return 0, err
	case id.ledger != s.Incarnation:
		return 0, httpx.FieldError("message_id", "is of another topic, or of one that was deleted")
	case int(id.partition) != at.partition:
		return 0, httpx.FieldError("message_id", "is of partition %d", id.partition)
	}
	return id.entry + 1, nil
}

func queryBool(r *httpx.Request, name string) (bool, error) {
	text, err := r.Query(name)
	switch {
	case err != nil:
		return false, err
	case text == "" || text == "false":
		return false, nil
	case text == "true":
		return true, nil
	}
	return false, httpx.FieldError(name, "is %q, it must be true or false", httpx.Clip(text))
}
