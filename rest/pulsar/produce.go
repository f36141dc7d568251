package pulsar

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// produce publishes each message for itself: those that fail are told in the
// answer, beside those that did not.
func (a *api) produce(w http.ResponseWriter, r *httpx.Request, at *place) error {
	q := produceRequest{schema: schemaRequest{version: noVersion}}
	if err := q.readFrom(r); err != nil {
		return err
	}
	schema, err := q.schema.compile()
	if err != nil {
		return err
	}
	p, err := a.producer(r, at)
	if err != nil {
		return err
	}
	f := finisher{
		producer: q.producer, publisher: auth.From(r.Context()).Name, partition: at.partition,
		wall: time.Now(), now: a.broker.Now(),
	}
	if f.schema, f.version, err = register(r, &p, &q.schema, schema); err != nil {
		return err
	}
	ms := make([]broker.StreamMessage, 0, len(q.messages))
	for i := range q.messages {
		e := &q.messages[i]
		if e.err = f.finish(e); e.err == nil {
			ms = append(ms, broker.StreamMessage{Message: &e.Message, Partition: e.partition})
			e.placed = &ms[len(ms)-1].Placed
		}
	}
	if err := p.Publish(r.Context(), ms); err != nil {
		return err
	}
	if err := away(q.messages); err != nil {
		return err
	}
	for i := range ms {
		if ms[i].Placed.Err == nil { // that of the stream: the same for all
			httpx.SetDurability(w, ms[i].Placed.Durability)
			break
		}
	}
	return answerProduced(w, r, q.messages, p.Incarnation(), f.version)
}

// producer opens the topic, which need not be there yet.
func (a *api) producer(r *httpx.Request, at *place) (broker.StreamProducer, error) {
	create := a.options.CreateTopics && !partitionName(at.topic)
	p, err := a.broker.NewStreamProducer(r.Context(), broker.NewStreamConfig(at.stream, at.topic), create)
	if err != nil {
		return p, err
	}
	if n := p.Partitions(); at.partition >= n {
		return p, &codeError{noPartition, "topic " + at.stream + " has " + strconv.Itoa(n) + " partitions, counted from 0; there is no " + strconv.Itoa(at.partition)}
	}
	return p, nil
}

// partitionName reports whether a topic is called as clients of Pulsar call one
// partition of another, which they would not want made as a topic.
func partitionName(topic string) bool {
	i := strings.LastIndex(topic, "-partition-")
	if i < 0 {
		return false
	}
	_, err := strconv.ParseUint(topic[i+len("-partition-"):], 10, 32)
	return err == nil
}

// compile makes the schema of a request ready; it is nil if only a version is given.
func (q *schemaRequest) compile() (*compiled, error) {
	if !q.given() {
		if q.version == noVersion {
			return plain, nil
		}
		return nil, nil
	}
	info, err := q.resolve()
	if err != nil {
		return nil, err
	}
	return compile(info)
}

// register finds or gives the version of a request's schema, or the schema of its version.
func register(r *httpx.Request, p *broker.StreamProducer, q *schemaRequest, c *compiled) (*compiled, int, error) {
	if c == nil {
		text, err := p.Schema(r.Context(), q.version)
		if broker.KindOf(err) == broker.NotFound {
			return nil, 0, httpx.FieldError("schema_version", "is %d, and the topic has no such schema", q.version)
		}
		if err != nil {
			return nil, 0, err
		}
		c, err = readRegistered(text)
		return c, q.version, err
	}
	if !c.info.versioned() {
		return c, noVersion, nil
	}
	version, err := p.RegisterSchema(r.Context(), c.info.registered())
	if err == nil && q.version != noVersion && q.version != version {
		err = httpx.FieldError("schema_version", "is %d, and the schema beside it has version %d", q.version, version)
	}
	return c, version, err
}

// answerProduced writes the answer of the page, and that of Pulsar's server.
func answerProduced(w http.ResponseWriter, r *httpx.Request, es []entry, ledger uint64, version int) error {
	body := append(appendVersion(append(r.Buffer(), `{"schema_version":`...), version), `,"messageIds":[`...)
	for i := range es {
		if i > 0 {
			body = append(body, ',')
		}
		body = es[i].appendID(body, ledger)
	}
	body = append(appendVersion(append(body, `],"schemaVersion":`...), version), `,"messagePublishResults":[`...)
	for i := range es {
		if i > 0 {
			body = append(body, ',')
		}
		body = es[i].appendPublished(body, ledger, version)
	}
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, "]}"...))
}

// failure is why a message is not there; nil if it is.
func (e *entry) failure() error {
	if e.err == nil {
		return e.placed.Err
	}
	return e.err
}

// away is why no message of a request is known to be stored, where that is not about
// the messages: there is no store now. It is nil where it is about any of them.
func away(es []entry) (why error) {
	for i := range es {
		switch err := es[i].failure(); broker.KindOf(err) {
		case broker.Unknown:
			why = err
		case broker.Unavailable, broker.Damaged:
			why = cmp.Or(why, err)
		default:
			return nil
		}
	}
	return why
}

// id is where a message is, if that is known.
func (e *entry) id(ledger uint64) (id messageID, known bool) {
	if e.placed == nil || !e.placed.Known {
		return id, false
	}
	return messageID{ledger, e.placed.Offset, e.placed.Partition}, true
}

// appendID writes what became of an entry as the page does.
func (e *entry) appendID(dst []byte, ledger uint64) []byte {
	if id, known := e.id(ledger); known {
		dst = strconv.AppendUint(append(dst, `{"partition":`...), uint64(id.partition), 10)
		dst = appendID(append(dst, `,"messageId":`...), id)
	} else {
		dst = append(dst, `{"partition":null,"messageId":null`...)
	}
	if err := e.failure(); err != nil {
		code, message := classifyOne(err)
		dst = strconv.AppendInt(append(dst, `,"error_code":`...), int64(code), 10)
		dst = httpx.AppendString(append(dst, `,"error":`...), message)
	} else if dst = append(dst, `,"error_code":null,"error":null`...); e.placed.Duplicate {
		dst = append(dst, `,"duplicate":true`...)
	}
	return append(dst, '}')
}

// appendPublished writes what became of an entry as Pulsar's server does.
func (e *entry) appendPublished(dst []byte, ledger uint64, version int) []byte {
	dst = append(dst, `{"messageId":`...)
	if id, known := e.id(ledger); known {
		dst = append(id.appendText(append(dst, '"')), '"')
	} else {
		dst = append(dst, "null"...)
	}
	if err := e.failure(); err != nil {
		code, message := classifyOne(err)
		dst = strconv.AppendInt(append(dst, `,"errorCode":`...), int64(code), 10)
		dst = httpx.AppendString(append(dst, `,"errorMsg":`...), message)
	} else {
		dst = append(dst, `,"errorCode":0`...)
	}
	return append(appendVersion(append(dst, `,"schemaVersion":`...), version), '}')
}

func appendVersion(dst []byte, version int) []byte {
	if version == noVersion {
		return append(dst, "null"...)
	}
	return strconv.AppendInt(dst, int64(version), 10)
}
