package pulsar

import (
	"bytes"
	"net/http"
	"strconv"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// makePartitions makes a topic with so many partitions, or gives one more. The
// body is the number.
func (a *api) makePartitions(w http.ResponseWriter, r *httpx.Request) error {
	at, err := topicOf(r)
	if err != nil {
		return err
	}
	const most = 64 // bytes of a number, with room around it
	body, err := r.ReadBody(most)
	if err != nil {
		return err
	}
	n := 1
	if text := bytes.TrimSpace(body); len(text) > 0 {
		if n, err = strconv.Atoi(string(text)); err != nil {
			return httpx.FieldError("partitions", "is %q, it must be a whole number", httpx.Clip(string(text)))
		}
	}
	if err := a.broker.CheckTopic(at.topic); err != nil {
		return err
	}
	c := broker.NewStreamConfig(at.stream, at.topic)
	c.Partitions = n
	s, err := a.broker.CreateStream(r.Context(), c)
	if broker.KindOf(err) == broker.Conflict {
		s, err = a.broker.UpdateStream(r.Context(), at.stream, func(c *broker.StreamConfig) error {
			c.Partitions = n
			return nil
		})
	}
	if err != nil {
		return err
	}
	httpx.SetDurability(w, s.Durability)
	return httpx.WriteNothing(w)
}

// countPartitions answers as Pulsar's server does.
func (a *api) countPartitions(w http.ResponseWriter, r *httpx.Request) error {
	at, err := topicOf(r)
	if err != nil {
		return err
	}
	s, err := a.broker.Stream(r.Context(), at.stream)
	if err != nil {
		return err
	}
	body := strconv.AppendInt(append(r.Buffer(), `{"partitions":`...), int64(s.Partitions), 10)
	return httpx.WriteJSON(w, r, http.StatusOK, append(body, '}'))
}

func topicOf(r *httpx.Request) (*place, error) {
	at := &place{}
	return at, at.setTopic(r.Param("tenant"), r.Param("namespace"), r.Param("topic"))
}
