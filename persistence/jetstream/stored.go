package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace/broker"
)

// stored is a message as a stream holds it.
type stored struct {
	Subject string    `json:"subject"`
	Seq     uint64    `json:"seq"`
	Header  []byte    `json:"hdrs"`
	Data    []byte    `json:"data"`
	Time    time.Time `json:"time"`

	header nats.Header
}

// value is Data, never nil: nil means deleted.
func (m *stored) value() []byte {
	if m.Data == nil {
		return []byte{}
	}
	return m.Data
}

// getRequest asks for one message of a stream.
type getRequest struct {
	Seq  uint64 `json:"seq,omitempty"`
	Next string `json:"next_by_subj,omitempty"`
	Last string `json:"last_by_subj,omitempty"`
}

// fetch reads one message from the leader of a stream: what was acknowledged is
// there. ErrNotFound if there is none.
func (s *Store) fetch(ctx context.Context, stream string, r getRequest) (*stored, error) {
	var answer struct {
		Message *stored `json:"message"`
	}
	if err := s.request(ctx, "STREAM.MSG.GET."+stream, r, &answer); err != nil {
		if e, ok := errors.AsType[*apiError](err); ok && e.ErrCode == errNoStream {
			return nil, broker.ErrNotFound
		}
		return nil, err
	}
	m := answer.Message
	if m == nil {
		return nil, fmt.Errorf("%w: no message in the answer of stream %s", broker.ErrUnknown, stream)
	}
	return m, m.parse(stream)
}

// parse reads the header.
func (m *stored) parse(stream string) error {
	if len(m.Header) == 0 {
		return nil
	}
	m.header = nats.Header{}
	for i, line := range strings.Split(strings.TrimRight(string(m.Header), "\r\n"), "\r\n") {
		if i == 0 {
			continue // NATS/1.0
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("stream %s, message %d: header line %q", stream, m.Seq, line)
		}
		m.header[key] = append(m.header[key], strings.TrimSpace(value))
	}
	return nil
}

// each calls f with the messages of a stream that match a subject, oldest first.
func (s *Store) each(ctx context.Context, stream, subject string, f func(*stored) error) error {
	for seq := uint64(1); ; {
		m, err := s.fetch(ctx, stream, getRequest{Seq: seq, Next: subject})
		switch {
		case errors.Is(err, broker.ErrNotFound):
			return nil
		case err != nil:
			return err
		}
		if err := f(m); err != nil {
			return err
		}
		seq = m.Seq + 1
	}
}

// span is sequences of a stream: from the first on, and before the other.
type span struct{ from, before uint64 }

// whole is all of a stream.
var whole = span{1, math.MaxUint64}

// scan is each within a span, for a stream where it does no harm that something comes
// which was just removed: it reads from any replica, and what that does not have yet
// from the leader.
func (s *Store) scan(ctx context.Context, stream, subject string, in span, f func(*stored) error) error {
	const page = 1000
	for seq := max(in.from, 1); seq < in.before; {
		list, err := s.batch(ctx, stream, seq, page)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			m, err := s.fetch(ctx, stream, getRequest{Seq: seq, Next: subject})
			if errors.Is(err, broker.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			list = append(list, m)
		}
		for _, m := range list {
			if seq = m.Seq + 1; m.Seq >= in.before {
				break
			}
			if err := f(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// batch reads messages of a stream from a sequence on, from any replica. It may return
// less than there is. It asks for every subject: for others a server would count at each
// page what is still to come, message by message.
func (s *Store) batch(ctx context.Context, stream string, from uint64, n int) ([]*stored, error) {
	inbox := nats.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	ask, err := json.Marshal(map[string]any{"seq": from, "batch": n, "max_bytes": readBytes, "next_by_subj": ">"})
	if err != nil {
		return nil, err
	}
	if err := s.nc.PublishRequest(s.o.api()+"DIRECT.GET."+stream, inbox, ask); err != nil {
		return nil, nil // the leader is asked instead, again and again
	}
	ctx, cancel := context.WithTimeout(ctx, readWait)
	defer cancel()
	var list []*stored
	for len(list) < n {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil || m.Header.Get("Status") != "" {
			break // the end, or no answer: what is missing is asked of the leader
		}
		x := &stored{Subject: m.Header.Get("Nats-Subject"), Data: m.Data, header: m.Header}
		if x.Seq, err = strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64); err != nil {
			break
		}
		if x.Time, err = time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp")); err != nil {
			break
		}
		list = append(list, x)
	}
	return list, nil
}

// remove takes one message out of a stream; it reports whether it was there.
func (s *Store) remove(ctx context.Context, stream string, seq uint64) (bool, error) {
	var answer struct {
		Success bool `json:"success"`
	}
	err := s.request(ctx, "STREAM.MSG.DELETE."+stream, map[string]any{"seq": seq, "no_erase": true}, &answer)
	if e, ok := errors.AsType[*apiError](err); ok && (e.ErrCode == errDelete || e.ErrCode == errNoMessage || e.ErrCode == errNoStream) {
		return false, nil // not there, or no such stream
	}
	return answer.Success, err
}

// purge removes the messages of a stream that match a subject, all of them if it
// is empty, and says how many those were.
func (s *Store) purge(ctx context.Context, stream, subject string) (int, error) {
	var answer struct {
		Purged int `json:"purged"`
	}
	ask := map[string]any{}
	if subject != "" {
		ask["filter"] = subject
	}
	err := s.request(ctx, "STREAM.PURGE."+stream, ask, &answer)
	return answer.Purged, err
}

// purgeBefore is purge below a sequence.
func (s *Store) purgeBefore(ctx context.Context, stream, subject string, seq uint64) error {
	if seq <= 1 { // a server takes that for all of them
		return nil
	}
	ask := map[string]any{"seq": seq}
	if subject != "" {
		ask["filter"] = subject
	}
	var answer json.RawMessage
	return s.request(ctx, "STREAM.PURGE."+stream, ask, &answer)
}

// streamState is what a stream holds, and when it was made.
type streamState struct {
	Made  time.Time `json:"-"`
	Again bool      `json:"-"` // by us, in place of one that was gone

	Msgs  int64     `json:"messages"`
	Bytes int64     `json:"bytes"`
	First uint64    `json:"first_seq"`
	Last  uint64    `json:"last_seq"`
	Since time.Time `json:"first_ts"`
}

// firstOffset is that of the first message, or of the next if there is none.
func (at *streamState) firstOffset() uint64 {
	if at.Msgs == 0 {
		return at.Last
	}
	return at.First - 1
}

// soon repeats f while what was just made is not known to all servers.
func soon[T any](ctx context.Context, f func(context.Context) (T, error)) (v T, err error) {
	for end := time.Now().Add(giveUpAfter); ; {
		v, err = f(ctx)
		e, ok := errors.AsType[*apiError](err)
		if !ok || e.ErrCode != errNoStream && e.ErrCode != errNoConsumer || time.Now().After(end) {
			return v, err
		}
		select {
		case <-time.After(resendAfter / 10):
		case <-ctx.Done():
			return v, err
		}
	}
}

// state asks the leader of a stream.
func (s *Store) state(ctx context.Context, stream string) (streamState, error) {
	var answer struct {
		State  streamState `json:"state"`
		Made   time.Time   `json:"created"`
		Config struct {
			Metadata map[string]string `json:"metadata"`
		} `json:"config"`
	}
	err := s.request(ctx, "STREAM.INFO."+stream, nil, &answer)
	answer.State.Made, answer.State.Again = answer.Made, answer.Config.Metadata[madeAgain] != ""
	return answer.State, err
}

// consumerState is how far the consumer of a queue is.
type consumerState struct {
	Delivered struct {
		Stream uint64 `json:"stream_seq"`
	} `json:"delivered"`
	Pending int64 `json:"num_ack_pending"`
}

// consumed asks the leader of the consumer of a queue.
func (s *Store) consumed(ctx context.Context, stream string) (consumerState, error) {
	var at consumerState
	err := s.request(ctx, "CONSUMER.INFO."+stream+"."+consumerName, nil, &at)
	return at, err
}

// createStream makes a stream, or brings the settings of one that is there to c. One
// that has them is only looked at, which its own leader answers: a start asks for
// hundreds, and to make one is the work of all servers. A start waits for those that are
// missing for the copies.
func (s *Store) createStream(ctx context.Context, c jetstream.StreamConfig) error {
	if c.Replicas == 0 {
		c.Replicas = s.o.Replicas
	}
	err := s.tryCreate(ctx, c)
	for said := false; tooFew(err) && time.Now().Before(s.until); said = true {
		if !said {
			s.log.Warn().Err(err).Time("until", s.until).Msg("too few nats servers for the copies; they are waited for")
		}
		select {
		case <-time.After(resendAfter):
		case <-ctx.Done():
			return err
		}
		err = s.tryCreate(ctx, c)
	}
	return err
}

// tooFew reports whether err is that of a stream for which servers are missing.
func tooFew(err error) bool {
	e, ok := errors.AsType[*apiError](err)
	return ok && (e.ErrCode == errNoPeers || e.ErrCode == errNoCluster)
}

func (s *Store) tryCreate(ctx context.Context, c jetstream.StreamConfig) error {
	return again(ctx, func(ctx context.Context) error {
		have, err := s.js.Stream(ctx, c.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			if c.FirstSeq = s.marks.next(c.Name); c.FirstSeq > 0 {
				c.Metadata = map[string]string{madeAgain: "true"}
			}
			if _, err = s.js.CreateStream(ctx, c); err == nil {
				return nil
			}
			return cannotMake(c, err)
		}
		if err != nil {
			return err
		}
		is := have.CachedInfo().Config
		if err := checkStream(is, c); err != nil {
			return err
		}
		if now := changed(is, c); !reflect.DeepEqual(now, is) {
			_, err = s.js.UpdateStream(ctx, now)
		}
		return err
	})
}

// changed is a stream with the settings of c, and its own where c has none.
func changed(is, c jetstream.StreamConfig) jetstream.StreamConfig {
	if c.Duplicates != 0 {
		is.Duplicates = c.Duplicates
	}
	if c.MaxMsgsPerSubject != 0 {
		is.MaxMsgsPerSubject = c.MaxMsgsPerSubject
	}
	is.MaxAge = c.MaxAge
	is.AllowRollup, is.DenyDelete, is.AllowDirect = c.AllowRollup, c.DenyDelete, c.AllowDirect
	is.AllowMsgTTL, is.AllowMsgSchedules = c.AllowMsgTTL, c.AllowMsgSchedules
	return is
}

// createConsumer is createStream for a consumer.
func (s *Store) createConsumer(ctx context.Context, stream string, c jetstream.ConsumerConfig) (have jetstream.Consumer, err error) {
	err = again(ctx, func(ctx context.Context) error {
		have, err = s.js.Consumer(ctx, stream, c.Durable)
		if err == nil {
			is := have.CachedInfo().Config
			now := is
			now.AckPolicy, now.AckWait, now.MaxDeliver, now.FilterSubject = c.AckPolicy, c.AckWait, c.MaxDeliver, c.FilterSubject
			if c.MaxAckPending != 0 {
				now.MaxAckPending, now.MaxWaiting = c.MaxAckPending, c.MaxWaiting
			}
			if reflect.DeepEqual(now, is) {
				return nil
			}
		} else if !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound) { // it is young
			return err
		}
		have, err = s.js.CreateOrUpdateConsumer(ctx, stream, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("consumer of stream %s: %w", stream, err)
	}
	return have, nil
}

// cannotMake words why a stream was refused.
func cannotMake(c jetstream.StreamConfig, err error) error {
	e, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return err
	}
	is, kind, hint := &apiError{e.Code, int(e.ErrorCode), e.Description}, ErrUnfit, "see the limits of our account"
	switch {
	case errors.Is(is, broker.ErrFull):
		return is
	case tooFew(is):
		hint = "start the servers that are missing, or ask for fewer with --nats-replicas"
		if is.missing() {
			kind = ErrUnreachable
		}
	}
	return &openError{kind, fmt.Errorf("stream %s cannot be made with %d copies: %w; %s", c.Name, c.Replicas, is, hint)}
}

// deleteStream removes a stream that may be gone already.
func (s *Store) deleteStream(ctx context.Context, name string) error {
	return again(ctx, func(ctx context.Context) error {
		err := s.js.DeleteStream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil
		}
		return err
	})
}
