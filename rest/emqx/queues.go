package emqx

import (
	"math"
	"net/http"
	"strings"
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// Door is the name of the dialect, on the queues it makes.
const Door = "emqx"

// What a queue or a stream made here gets without a word about it.
const (
	defaultRetention = 7 * 24 * time.Hour
	unlimitedBytes   = 1 << 50 // as much as the broker lets anyone set
	roundRobin       = "round_robin"
)

// logView is a queue or a stream as EMQX 6 shows them.
type logView struct {
	Name        string     `json:"name"`
	TopicFilter string     `json:"topic_filter"`
	LastValue   bool       `json:"is_lastvalue"`
	Retention   any        `json:"data_retention_period"` // milliseconds, or infinity
	Dispatch    string     `json:"dispatch_strategy,omitempty"`
	Limits      limitsView `json:"limits"`
	CreatedAt   int64      `json:"created_at"`
}

type limitsView struct {
	Count any `json:"max_shard_message_count"`
	Bytes any `json:"max_shard_message_bytes"`
}

// orInfinity shows a number, and a limit that is none as the word for it.
func orInfinity(n, none int64) any {
	if n == none {
		return infinity
	}
	return n
}

func viewQueue(q *broker.QueueInfo) logView {
	return logView{
		Name: q.Name, TopicFilter: q.Filter, Retention: orInfinity(q.TTL.Milliseconds(), 0), Dispatch: roundRobin,
		Limits: limitsView{orInfinity(q.MaxMessages, 0), orInfinity(q.MaxBytes, unlimitedBytes)}, CreatedAt: q.Created.UnixMilli(),
	}
}

func viewStream(s *broker.StreamInfo) logView {
	return logView{
		Name: s.Name, TopicFilter: s.Filter, Retention: s.Retention.Milliseconds(),
		Limits: limitsView{infinity, orInfinity(s.MaxBytes, unlimitedBytes)}, CreatedAt: s.Created.UnixMilli(),
	}
}

// logBody is the body of POST and PUT; what was not given is nil.
type logBody struct {
	name, filter *string
	retention    *time.Duration // 0 = for ever
	count, bytes *int64         // 0 = no limit
}

func readLog(r *httpx.Request) (b logBody, err error) {
	lastValue, dispatch, key := false, roundRobin, ""
	err = readBody(r, maxBody, fields{
		"name": given(&b.name, text), "topic_filter": given(&b.filter, text),
		"is_lastvalue": flag(&lastValue), "dispatch_strategy": text(&dispatch), "key_expression": text(&key),
		"data_retention_period": given(&b.retention, readDuration),
		"limits": func(d *httpx.Decoder) error {
			return fields{
				"max_shard_message_count": given(&b.count, readLimit), "max_shard_message_bytes": given(&b.bytes, readLimit),
			}.read(d)
		},
	}.read)
	switch {
	case err != nil:
		return b, err
	case lastValue:
		return b, bad("is_lastvalue is true, and there are no last-value queues and streams here")
	case dispatch != roundRobin && dispatch != "random": // in turn is one of the orders that chance could choose
		return b, bad("dispatch_strategy is %q; messages go to the consumers in turn, which is round_robin", httpx.Clip(dispatch))
	}
	return b, nil
}

// readLimit reads a number, or infinity, which is 0.
func readLimit(v *int64) func(d *httpx.Decoder) error {
	return into(v, func(d *httpx.Decoder) (n int64, err error) {
		if d.Peek() == '"' {
			s, err := d.String()
			if err == nil && s != infinity {
				n, err = readSize(s)
			}
			return n, err
		}
		err = whole(&n, 1, math.MaxInt64)(d)
		return n, err
	})
}

// readSize reads a number of bytes with a unit, as EMQX writes it in settings.
func readSize(s string) (int64, error) {
	for unit, factor := range map[string]int64{"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30} {
		if digits, ok := strings.CutSuffix(strings.ToUpper(s), unit); ok {
			n, err := readDigits(digits)
			return n * factor, err
		}
	}
	return readDigits(s)
}

func readDigits(s string) (n int64, err error) {
	const most = 1 << 40 // with any unit still a number
	for _, c := range s {
		if c < '0' || c > '9' || n > most {
			return 0, httpx.Problem("is %q, it must be a number, as 100MB, or infinity", httpx.Clip(s))
		}
		n = n*10 + int64(c-'0')
	}
	if n == 0 {
		return 0, httpx.Problem("is %q, it must be a number from 1, or infinity", httpx.Clip(s))
	}
	return n, nil
}

// readDuration reads milliseconds, or a time with units as in 7d or 1h30m.
func readDuration(v *time.Duration) func(d *httpx.Decoder) error {
	const most = 100 * 365 * 24 * time.Hour
	return into(v, func(d *httpx.Decoder) (time.Duration, error) {
		if d.Peek() == '0' {
			var ms int64
			err := whole(&ms, 1, most.Milliseconds())(d)
			return time.Duration(ms) * time.Millisecond, err
		}
		s, err := d.String()
		if err != nil || s == infinity {
			return 0, err
		}
		if days, ok := strings.CutSuffix(s, "d"); ok {
			n, err := readDigits(days)
			if err == nil && n <= int64(most/(24*time.Hour)) {
				return time.Duration(n) * 24 * time.Hour, nil
			}
		}
		t, err := time.ParseDuration(s)
		if err != nil || t <= 0 || t > most {
			return 0, httpx.Problem("is %q, it must be milliseconds, or a time as 7d, 12h or 30m", httpx.Clip(s))
		}
		return t, nil
	})
}

func (b *logBody) toQueue(c *broker.QueueConfig) {
	if b.retention != nil {
		c.TTL = *b.retention
	}
	if b.count != nil {
		c.MaxMessages = *b.count
	}
	if b.bytes != nil {
		if c.MaxBytes = *b.bytes; c.MaxBytes == 0 {
			c.MaxBytes = unlimitedBytes
		}
	}
	if b.filter != nil {
		c.Filter = *b.filter
	}
}

// createQueue makes a queue with EMQX's promises: what is not acknowledged goes
// to another consumer when its own leaves, and without end.
func (a *api) createQueue(w http.ResponseWriter, r *httpx.Request) error {
	b, err := readLog(r)
	if err != nil {
		return err
	}
	if b.name == nil || b.filter == nil {
		return bad("name and topic_filter are needed")
	}
	c := broker.NewQueueConfig(*b.name, *b.filter)
	c.Maker, c.TTL, c.MaxRetries, c.MaxBytes = Door, defaultRetention, broker.Unlimited, unlimitedBytes
	b.toQueue(&c)
	q, err := a.broker.CreateQueue(r.Context(), c)
	if err != nil {
		return err
	}
	httpx.SetDurability(w, q.Durability)
	return answer(w, r, viewQueue(&q))
}

func (a *api) listQueues(w http.ResponseWriter, r *httpx.Request) error {
	all, err := a.broker.Queues(r.Context())
	if err != nil {
		return err
	}
	views := make([]logView, len(all))
	for i := range all {
		views[i] = viewQueue(&all[i])
	}
	return answerLogs(w, r, views)
}

// answerLogs answers the part of a list, which is in order of name, behind a cursor.
func answerLogs(w http.ResponseWriter, r *httpx.Request, all []logView) error {
	after, limit, err := readCursor(r)
	if err != nil {
		return err
	}
	l := list[logView]{Data: []logView{}}
	for i := range all {
		if all[i].Name <= after {
			continue
		}
		if l.Meta.HasNext = len(l.Data) == limit; l.Meta.HasNext {
			l.Meta.Cursor = cursor(l.Data[limit-1].Name)
			break
		}
		l.Data = append(l.Data, all[i])
	}
	return answer(w, r, l)
}

func (a *api) getQueue(w http.ResponseWriter, r *httpx.Request) error {
	q, err := a.broker.Queue(r.Context(), r.Param("name"))
	if err != nil {
		return err
	}
	return answer(w, r, viewQueue(&q))
}

func (a *api) changeQueue(w http.ResponseWriter, r *httpx.Request) error {
	b, err := readLog(r)
	if err != nil {
		return err
	}
	name := r.Param("name")
	if b.name != nil && *b.name != name {
		return bad("the name of a queue cannot be changed")
	}
	q, err := a.broker.UpdateQueue(r.Context(), name, func(c *broker.QueueConfig) error {
		b.toQueue(c)
		return nil
	})
	if err != nil {
		return err
	}
	httpx.SetDurability(w, q.Durability)
	return answer(w, r, viewQueue(&q))
}

func (a *api) deleteQueue(w http.ResponseWriter, r *httpx.Request) error {
	name := r.Param("name")
	durability := a.broker.Durability(name)
	if err := a.broker.DeleteQueue(r.Context(), name); err != nil {
		return err
	}
	httpx.SetDurability(w, durability)
	return httpx.WriteNothing(w)
}

// toStream applies what streams have. They hold as many messages as there is
// room for.
func (b *logBody) toStream(c *broker.StreamConfig) error {
	if orZero(b.count) != 0 {
		return bad("limits.max_shard_message_count is %d, streams are limited by bytes and time only", *b.count)
	}
	if b.retention != nil {
		c.Retention = *b.retention
	}
	if b.bytes != nil {
		if c.MaxBytes = *b.bytes; c.MaxBytes == 0 {
			c.MaxBytes = unlimitedBytes
		}
	}
	if b.filter != nil {
		c.Filter = *b.filter
	}
	return nil
}

func (a *api) createStream(w http.ResponseWriter, r *httpx.Request) error {
	b, err := readLog(r)
	if err != nil {
		return err
	}
	if b.name == nil || b.filter == nil {
		return bad("name and topic_filter are needed")
	}
	c := broker.NewStreamConfig(*b.name, *b.filter)
	c.Retention, c.MaxBytes = defaultRetention, unlimitedBytes
	if err := b.toStream(&c); err != nil {
		return err
	}
	s, err := a.broker.CreateStream(r.Context(), c)
	if err != nil {
		return err
	}
	httpx.SetDurability(w, s.Durability)
	return answer(w, r, viewStream(&s))
}

func (a *api) listStreams(w http.ResponseWriter, r *httpx.Request) error {
	all, err := a.broker.Streams(r.Context())
	if err != nil {
		return err
	}
	views := make([]logView, len(all))
	for i := range all {
		views[i] = viewStream(&all[i])
	}
	return answerLogs(w, r, views)
}

func (a *api) getStream(w http.ResponseWriter, r *httpx.Request) error {
	s, err := a.broker.Stream(r.Context(), r.Param("name"))
	if err != nil {
		return err
	}
	return answer(w, r, viewStream(&s))
}

func (a *api) changeStream(w http.ResponseWriter, r *httpx.Request) error {
	b, err := readLog(r)
	if err != nil {
		return err
	}
	name := r.Param("name")
	if b.name != nil && *b.name != name {
		return bad("the name of a stream cannot be changed")
	}
	s, err := a.broker.UpdateStream(r.Context(), name, b.toStream)
	if err != nil {
		return err
	}
	httpx.SetDurability(w, s.Durability)
	return answer(w, r, viewStream(&s))
}

func (a *api) deleteStream(w http.ResponseWriter, r *httpx.Request) error {
	if err := a.broker.DeleteStream(r.Context(), r.Param("name")); err != nil {
		return err
	}
	a.setDurability(w)
	return httpx.WriteNothing(w)
}
