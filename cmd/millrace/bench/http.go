package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// caller is one keep-alive connection. Requests are written by hand: net/http's
// client would cost more than the server under test.
type caller struct {
	conn net.Conn
	r    *bufio.Reader
	head string
	buf  []byte
}

func (o Options) dial(ctx context.Context) (*caller, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("--url: %w", err)
	}
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", u.Host, err)
	}
	head := " HTTP/1.1\r\nHost: " + u.Host + "\r\nContent-Type: application/json\r\n"
	if o.Key != "" {
		head += "Authorization: Bearer " + o.Key + "\r\n"
	}
	return &caller{conn: conn, r: bufio.NewReaderSize(conn, 64<<10), head: head}, nil
}

// post makes one request below /api/v1 and returns status and body.
func (c *caller) post(path string, body []byte) (int, []byte, error) {
	c.buf = fmt.Appendf(c.buf[:0], "POST /api/v1%s%sContent-Length: %d\r\n\r\n", path, c.head, len(body))
	c.buf = append(c.buf, body...)
	if _, err := c.conn.Write(c.buf); err != nil {
		return 0, nil, fmt.Errorf("POST %s: %w", path, err)
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("POST %s: %w", path, err)
	}
	defer func() { _ = resp.Body.Close() }() // everything was read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, fmt.Errorf("POST %s: %w", path, err)
	}
	return resp.StatusCode, text, nil
}

// must is post that wants 200 or 201.
func (c *caller) must(path string, body []byte) ([]byte, error) {
	status, text, err := c.post(path, body)
	if err == nil && status >= 300 {
		err = fmt.Errorf("POST %s answered %d: %s", path, status, bytes.TrimSpace(text))
	}
	return text, err
}

// makeQueue makes the queue that stores what is published, unless it is there.
func (o Options) makeQueue(ctx context.Context) error {
	if o.Queue == "" || o.Key == "" {
		return nil
	}
	c, err := o.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = c.conn.Close() }() // it was only for this
	body, err := json.Marshal(map[string]any{"name": o.Queue, "topic_filter": o.Topic + "/#"})
	if err != nil {
		return fmt.Errorf("make the queue: %w", err)
	}
	status, text, err := c.post("/queues", body)
	if err == nil && status != http.StatusCreated && status != http.StatusConflict {
		err = fmt.Errorf("make queue %s: answered %d: %s", o.Queue, status, bytes.TrimSpace(text))
	}
	return err
}

// publishBody is the body of a publish of n messages, and its path below a topic.
func (o Options) publishBody(n int) (path string, body []byte) {
	one := fmt.Sprintf(`{"payload":%q,"content_type":"text/plain"}`, fillPayload(o.Size))
	if n == 1 {
		return "/messages", []byte(one)
	}
	return "/messages/batch", []byte(`{"messages":[` + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + `]}`)
}

// HTTP publishes, one request in progress on each connection.
func HTTP(ctx context.Context, o Options) (*Result, error) {
	if err := o.makeQueue(ctx); err != nil {
		return nil, err
	}
	path, body := o.publishBody(o.Batch)
	m := newMeter(o.PID)
	err := o.timed(ctx, m, func(c *caller, i int) (int, error) {
		_, err := c.must(fmt.Sprintf("/topics/%s/%d%s", o.Topic, i, path), body)
		return o.Batch, err
	})
	r := &Result{Bench: "http", Connections: o.Connections, Size: o.Size, Batch: o.Batch}
	m.fill(r)
	return r, err
}

// errDone ends the loop of one connection.
var errDone = errors.New("done")

// timed calls f on every connection until the time is over or f returns
// errDone, and measures after the warm-up.
func (o Options) timed(ctx context.Context, m *meter, f func(c *caller, i int) (int, error)) error {
	start := time.Now()
	from, to := start.Add(o.Warm), start.Add(o.Warm+o.Time)
	measured := make(chan error, 1)
	ended := make(chan struct{})
	go func() { // ends with the loops below
		waitUntil(ctx, from)
		err := m.begin()
		select {
		case <-time.After(time.Until(to)):
		case <-ended:
		}
		measured <- errors.Join(err, m.end())
	}()
	err := each(ctx, o.Connections, func(ctx context.Context, i int) error {
		c, err := o.dial(ctx)
		if err != nil {
			return err
		}
		defer context.AfterFunc(ctx, func() { _ = c.conn.Close() })()
		defer func() { _ = c.conn.Close() }() // nothing is under way
		n, h, err := loop(c, i, from, to, f)
		m.add(n, h)
		return err
	})
	close(ended)
	return errors.Join(err, <-measured)
}

func loop(c *caller, i int, from, to time.Time, f func(*caller, int) (int, error)) (int64, *hdrhistogram.Histogram, error) {
	h, done := newHist(), int64(0)
	for {
		began := time.Now()
		if !began.Before(to) {
			return done, h, nil
		}
		n, err := f(c, i)
		if errors.Is(err, errDone) {
			return done, h, nil
		}
		if err != nil {
			return done, h, err
		}
		if now := time.Now(); began.After(from) && now.Before(to) {
			done += int64(n)
			_ = h.RecordValue(max(1, now.Sub(began).Microseconds())) // out of range only after ten minutes
		}
	}
}
