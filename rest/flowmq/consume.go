package flowmq

import (
	"context"
	"math"
	"net/http"
	"time"

	"millrace/broker"
	"millrace/rest/internal/httpx"
)

// Caps of a consume; what is above is cut.
const (
	maxConsume = 100
	maxWait    = 60 * time.Second
)

// consumeOrAck serves .../messages/consume and .../messages/ack, which the
// router cannot tell from a message id.
func (a *api) consumeOrAck(w http.ResponseWriter, r *httpx.Request) error {
	switch r.Param("message") {
	case "consume":
		return a.consume(w, r)
	case "ack":
		return a.ackMany(w, r)
	}
	return httpx.ErrNoRoute
}

func (a *api) consume(w http.ResponseWriter, r *httpx.Request) error {
	o := broker.ReceiveOptions{Max: 1, Lease: broker.DefaultLease}
	err := r.ReadJSON(httpx.MaxJSON, httpx.RefuseUnknown, true, func(d *httpx.Decoder) error { return readConsume(d, &o) })
	if err != nil {
		return err
	}
	ctx := r.Context()
	if o.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = r.Poll()
		defer cancel()
	}
	from, err := a.source(r)
	if err != nil {
		return err
	}
	got, err := from.ReceiveAttempt(ctx, r.AttemptID(), o)
	if err != nil && (ctx.Err() == nil || !r.Drained()) {
		return err
	}
	attempt := r.AttemptID()
	if r.Context().Err() != nil {
		if attempt == "" {
			a.broker.GiveBack(got)
		}
		return r.Context().Err()
	}
	body := append(r.Buffer(), envelopeHead+`{"messages":[`...)
	for i := range got {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendDelivery(body, &got[i].Delivery, ofStream(r), got[i].Receipt)
	}
	body = appendInt(append(body, `],"count":`...), len(got))
	err = httpx.WriteJSON(w, r, http.StatusOK, append(append(body, '}'), envelopeTail...))
	if r.Lost() && attempt == "" {
		a.broker.HandBack(got)
	}
	return err
}

func readConsume(d *httpx.Decoder, o *broker.ReceiveOptions) error {
	return d.Object(func(name []byte) error {
		switch string(name) {
		case "max_messages":
			n, err := d.Int()
			if err == nil && n < 1 {
				err = httpx.Problem("is %d, it must be at least 1", n)
			}
			o.Max = int(min(n, maxConsume))
			return err
		case "timeout_seconds":
			n, err := readWhole(d, 0, math.MaxInt64)
			o.Wait = time.Duration(min(n, int64(maxWait/time.Second))) * time.Second
			return err
		case "visibility_timeout_seconds":
			var err error
			o.Lease, err = readSeconds(d)
			return err
		}
		return d.Unknown()
	})
}
