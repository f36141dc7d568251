package memfifo

import (
	"cmp"
	"context"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/rest/internal/httpx"
)

// The headers of the dialect, in the form of net/http.
const (
	headerClient  = "Client-Id"
	headerMessage = "Message-Id"
	headerType    = "Content-Type"
)

const (
	maxClientID = 256 // bytes
	octets      = "application/octet-stream"
)

// submit stores a message and answers with the queue that holds it.
func (a *api) submit(w http.ResponseWriter, r *httpx.Request) error {
	client, err := clientID(r)
	if err != nil {
		return err
	}
	contentType, err := oneHeader(r, headerType, octets)
	if err != nil {
		return err
	}
	c, err := a.our(r, auth.Publish)
	if err != nil {
		return err
	}
	body, err := r.ReadBody(httpx.MaxRaw)
	if err != nil {
		return err
	}
	// The body's memory is used again once this returns, so the store has to be
	// done with it by then, whether or not the client still waits.
	ctx := context.WithoutCancel(r.Context())
	sent, err := a.broker.Send(ctx, c.Name, &broker.Message{
		Payload: body, ContentType: contentType, QoS: 1, Producer: client, Publisher: auth.From(ctx).Name,
	})
	if err != nil {
		return err
	}
	q, err := a.broker.QueueFor(ctx, auth.Publish, c.Name)
	if err != nil {
		return err
	}
	httpx.SetDurability(w, sent[0].Durability)
	w.Header()[headerMessage] = []string{sent[0].ID.String()}
	return answerQueue(w, r, &q)
}

// read hands the oldest message out and removes it. Nobody else is given it
// meanwhile, and it is back at its place if the client cannot be given it.
func (a *api) read(w http.ResponseWriter, r *httpx.Request) error {
	if _, err := clientID(r); err != nil {
		return err
	}
	c, err := a.our(r, auth.Consume)
	if err != nil {
		return err
	}
	got, err := a.broker.Receive(r.Context(), c.Name, broker.ReceiveOptions{Max: 1, Lease: shortLease})
	if err != nil {
		return err
	}
	if len(got) == 0 {
		return httpx.WriteNothing(w)
	}
	httpx.SetDurability(w, a.durability(&c))
	if err := a.hand(w, r, &c, &got[0]); err != nil {
		a.broker.GiveBack(got)
		return err
	}
	return a.remove(r, &c, &got[0])
}

// A message is leased for as long as its client may take to be given it, which
// for all but large ones is shortLease.
const (
	shortLease = 30 * time.Second
	shortBytes = 2 * httpx.WritePart
)

// hand writes the message.
func (a *api) hand(w http.ResponseWriter, r *httpx.Request, c *broker.QueueConfig, m *broker.Received) error {
	if parts := len(m.Payload) / httpx.WritePart; len(m.Payload) > shortBytes {
		lease := shortLease + time.Duration(parts)*httpx.WriteTimeout
		if _, err := a.broker.Extend(r.Context(), c.Name, m.ID, m.Receipt, lease); err != nil {
			return err
		}
	}
	w.Header()[headerMessage] = []string{m.ID.String()}
	httpx.SetTrace(w, &m.Message)
	return httpx.WriteRaw(w, r, typeOf(m), m.Payload)
}

// remove acks. Should that fail, the client is left with a broken answer.
func (a *api) remove(r *httpx.Request, c *broker.QueueConfig, m *broker.Received) error {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), patience)
	defer cancel()
	_, err := a.broker.Ack(ctx, c.Name, m.ID, m.Receipt)
	if broker.KindOf(err) == broker.NotFound {
		return nil // purged, or deleted with its queue: nobody else gets it
	}
	return err
}

func (a *api) durability(c *broker.QueueConfig) broker.Durability {
	if c.Driver == broker.Memory {
		return broker.DurabilityMemory
	}
	return a.broker.State().Durability
}

// typeOf is the Content-Type of a message. Those that came through other doors
// may have none, or one that HTTP cannot carry.
func typeOf(m *broker.Received) string {
	for i := range len(m.ContentType) {
		if c := m.ContentType[i]; c < ' ' && c != '\t' || c == 0x7f {
			return octets
		}
	}
	return cmp.Or(m.ContentType, octets)
}

// clientID returns the name that the client gives itself, which is noted with
// its message and in the log.
func clientID(r *httpx.Request) (string, error) {
	id, err := oneHeader(r, headerClient, "")
	switch {
	case err != nil:
		return "", err
	case id == "":
		return "", headerError(headerClient, "is missing: say which system is asking")
	case len(id) > maxClientID:
		return "", headerError(headerClient, "is longer than 256 bytes")
	case strings.ContainsFunc(id, unicode.IsControl):
		return "", headerError(headerClient, "has control characters")
	}
	r.SetClient(id)
	return id, nil
}

// oneHeader returns a header that can be sent on over any protocol.
func oneHeader(r *httpx.Request, name, absent string) (string, error) {
	switch v := r.Header[name]; {
	case len(v) == 0:
		return absent, nil
	case len(v) > 1:
		return "", headerError(name, "is given twice")
	case !utf8.ValidString(v[0]):
		return "", headerError(name, "is not UTF-8")
	case v[0] != "":
		return strings.TrimSpace(v[0]), nil
	}
	return absent, nil
}

func headerError(name, text string) error {
	return &broker.Error{Kind: broker.Invalid, Message: "the header " + name + " " + text}
}
