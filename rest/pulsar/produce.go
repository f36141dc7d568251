package pulsar

import (
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
	q, err := readProduce(r)
	if err != nil {
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
	schema, version, err := register(r, p, &q.schema, schema)
	if err != nil {
		return err
	}
	results := make([]result, len(q.messages))
	ms, of := make([]broker.StreamMessage, 0, len(results)), make([]int, 0, len(results))
	publisher, wall, now := auth.From(r.Context()).Name, time.Now(), a.broker.Now()
	for i := range q.messages {
		e := &q.messages[i]
		if err := e.choose(at); err != nil {
			results[i].err = err
			continue
		}
		m, err := e.message(schema, version, q.producer, publisher, wall, now)
		if err != nil {
			results[i].err = err
			continue
		}
		ms, of = append(ms, broker.StreamMessage{Message: m, Partition: e.partition}), append(of, i)
	}
	placed, err := p.Publish(r.Context(), ms)
	if err != nil {
		return err
	}
	var stored broker.Durability // that of the stream: the same for all
	for i := range placed {
		results[of[i]].set(p.Incarnation(), &placed[i])
		if placed[i].Err == nil {
			stored = placed[i].Durability
		}
	}
	httpx.SetDurability(w, stored)
	return answerProduced(w, r, results, version)
}

// producer opens the topic, which need not be there yet.
func (a *api) producer(r *httpx.Request, at *place) (*broker.StreamProducer, error) {
	create := a.options.CreateTopics && !partitionName(at.topic)
	p, err := a.broker.NewStreamProducer(r.Context(), broker.NewStreamConfig(at.stream, at.topic), create)
	if err != nil {
		return nil, err
	}
	if n := p.Partitions(); at.partition >= n {
		return nil, &codeError{noPartition, "topic " + at.stream + " has " + strconv.Itoa(n) + " partitions, counted from 0; there is no " + strconv.Itoa(at.partition)}
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

// choose merges the partition of the path with that of the message.
func (e *entry) choose(at *place) error {
	if at.partition == broker.AnyPartition {
		return nil
	}
	if e.partition != broker.AnyPartition && e.partition != at.partition {
		return httpx.FieldError("partition", "is %d, and the path says %d", e.partition, at.partition)
	}
	e.partition = at.partition
	return nil
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

// result is the end of one message.
type result struct {
	id        messageID
	known     bool
	duplicate bool
	err       error
}

func (s *result) set(ledger uint64, p *broker.Placed) {
	*s = result{id: messageID{ledger, p.Offset, p.Partition}, known: p.Known, duplicate: p.Duplicate, err: p.Err}
}

// answerProduced writes the answer of the page, and that of Pulsar's server.
func answerProduced(w http.ResponseWriter, r *httpx.Request, results []result, version int) error {
	body := append(appendVersion(append(r.Buffer(), `{"schema_version":`...), version), `,"messageIds":[`...)
	for i := range results {
		if i > 0 {
			body = append(body, ',')
		}
		body = results[i].appendID(body)
	}
	body = append(appendVersion(append(body, `],"schemaVersion":`...), version), `,"messagePublishResults":[`...)
	for i := range results {
		if i > 0 {
			body = append(body, ',')
		}
		body = results[i].appendPublished(body, version)
	}
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, "]}"...))
}

// appendID writes a result as the page does.
func (s *result) appendID(dst []byte) []byte {
	if !s.known {
		dst = append(dst, `{"partition":null,"messageId":null`...)
	} else {
		dst = strconv.AppendUint(append(dst, `{"partition":`...), uint64(s.id.partition), 10)
		dst = appendID(append(dst, `,"messageId":`...), s.id)
	}
	if s.err == nil {
		dst = append(dst, `,"error_code":null,"error":null`...)
	} else {
		code, message := classifyOne(s.err)
		dst = strconv.AppendInt(append(dst, `,"error_code":`...), int64(code), 10)
		dst = httpx.AppendString(append(dst, `,"error":`...), message)
	}
	if s.duplicate {
		dst = append(dst, `,"duplicate":true`...)
	}
	return append(dst, '}')
}

// appendPublished writes a result as Pulsar's server does.
func (s *result) appendPublished(dst []byte, version int) []byte {
	dst = append(dst, `{"messageId":`...)
	if s.known {
		dst = append(s.id.appendText(append(dst, '"')), '"')
	} else {
		dst = append(dst, "null"...)
	}
	if s.err == nil {
		dst = append(dst, `,"errorCode":0`...)
	} else {
		code, message := classifyOne(s.err)
		dst = strconv.AppendInt(append(dst, `,"errorCode":`...), int64(code), 10)
		dst = httpx.AppendString(append(dst, `,"errorMsg":`...), message)
	}
	return append(appendVersion(append(dst, `,"schemaVersion":`...), version), '}')
}

func appendVersion(dst []byte, version int) []byte {
	if version == noVersion {
		return append(dst, "null"...)
	}
	return strconv.AppendInt(dst, int64(version), 10)
}
