package memfifo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"millrace/broker"
	"millrace/broker/auth"
	"millrace/persistence/journal"
	"millrace/persistence/journal/journaltest"
	"millrace/persistence/local"
	"millrace/rest/flowmq"
)

func TestBodiesAndContentTypesComeBackByteByByte(t *testing.T) {
	d := open(t)
	for driver := range map[string]bool{"memfifo": true, "logfifo": true} {
		d.queue(t, driver, driver, "")
		for contentType, body := range map[string][]byte{
			"":                         {},
			"text/plain":               []byte("Hello"),
			`A/B;x="1;2"; charset=x`:   {0, 0, 1, 0xff, '\r', '\n', 0},
			"no media type at all, ok": bytes.Repeat([]byte{0}, 600),
			"a/b;\tc=\u00fc":           bytes.Repeat([]byte("\x00\xff\x80\n"), 1<<20), // 4 MiB
		} {
			r := request(t, "POST", "/queues/"+driver+"/messages", "")
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), -1
			want := "application/octet-stream"
			if contentType != "" {
				want = contentType
				r.Header.Set("Content-Type", contentType)
			}
			sent := d.send(r)
			if sent.Code != 200 || !strings.Contains(sent.Body.String(), fmt.Sprintf(`{"bytes":%d,"size":1}`, len(body))) {
				t.Fatalf("%s: %d %s", contentType, sent.Code, sent.Body)
			}
			got := d.do(t, "GET", "/queues/"+driver+"/messages", "")
			if got.Code != 200 || !bytes.Equal(got.Body.Bytes(), body) {
				t.Errorf("%s: status %d, %d bytes, sent %d", contentType, got.Code, got.Body.Len(), len(body))
			}
			if h := got.Header(); h.Get("Content-Type") != want || h.Get("Message-Id") != sent.Header().Get("Message-Id") || h.Get("Message-Id") == "" {
				t.Errorf("%q: headers %v", contentType, h)
			}
			if s := d.wants(t, 200, "GET", "/queues/"+driver, ""); !strings.Contains(s, `{"bytes":0,"size":0}`) {
				t.Errorf("after the read: %s", s)
			}
		}
	}
}

func TestFourMiBIsTheLargestBody(t *testing.T) {
	d := open(t)
	d.queue(t, "q", "memfifo", "")
	big := strings.Repeat("x", 4<<20)
	d.submit(t, "q", big)
	for _, known := range []bool{true, false} {
		r := request(t, "POST", "/queues/q/messages", big+"x")
		if !known {
			r.ContentLength = -1
		}
		if w := d.send(r); w.Code != 413 || w.Header().Get("Connection") != "close" {
			t.Errorf("length known %v: status %d", known, w.Code)
		}
	}
	if d.read(t, "q") != big {
		t.Error("the body changed")
	}
	d.empty(t, "q")
}

func TestOnlyItsOwnQueuesAreSeen(t *testing.T) {
	d := open(t)
	_, err := d.broker.CreateQueue(d.system, broker.NewQueueConfig("other", "a/#"))
	must(t, err)
	d.queue(t, "mine", "logfifo", "")
	for _, c := range [][3]string{
		{"GET", "/queues/other", ""},
		{"DELETE", "/queues/other", ""},
		{"PATCH", "/queues/other", "{}"},
		{"PUT", "/queues/other", "{}"},
		{"POST", "/queues/other/messages", "x"},
		{"GET", "/queues/other/messages", ""},
	} {
		d.wants(t, 404, c[0], c[1], c[2])
	}
	if all := d.wants(t, 200, "GET", "/queues", ""); strings.Contains(all, "other") || !strings.Contains(all, "mine") {
		t.Errorf("the list is %s", all)
	}
	d.wants(t, 400, "POST", "/queues", `{"name":"other","driver":"memfifo"}`) // names are the broker's
	if q, err := d.broker.Queue(d.system, "other"); err != nil || q.In != 0 {
		t.Errorf("the other queue: %+v, %v", q, err)
	}
	view := flowmqDoor(d)("GET", "/api/v1/queues/mine", "")
	if view.Code != 200 || strings.Contains(view.Body.String(), "memfifo") || !strings.Contains(view.Body.String(), `"driver":"disk"`) {
		t.Errorf("/api/v1 shows %s", view.Body)
	}
}

// flowmqDoor asks /api/v1 of the same broker as the administrator.
func flowmqDoor(d *door) func(method, path, body string) *httptest.ResponseRecorder {
	m := flowmq.New(d.broker, d.shared)
	return func(method, path, body string) *httptest.ResponseRecorder {
		r, w := httptest.NewRequest(method, path, strings.NewReader(body)), httptest.NewRecorder()
		r.Header.Set("Authorization", "Bearer root."+secret)
		m.ServeHTTP(w, r)
		return w
	}
}

func TestConcurrentReadsNeverShareAMessage(t *testing.T) {
	for _, driver := range []string{"memfifo", "logfifo"} {
		d := openOver(t, local.Options{Dir: t.TempDir()})
		d.queue(t, "q", driver, "")
		const n = 200
		for i := range n {
			d.submit(t, "q", fmt.Sprint(i))
		}
		got := make(chan string, 2*n)
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				last := -1
				for {
					w := d.do(t, "GET", "/queues/q/messages", "")
					if w.Code != 200 {
						return
					}
					got <- w.Body.String()
					var i int
					if _, err := fmt.Sscan(w.Body.String(), &i); err != nil || i <= last {
						t.Errorf("%s came after %d, %v", w.Body, last, err)
					}
					last = i
				}
			})
		}
		readers.Wait()
		close(got)
		seen := map[string]bool{}
		for body := range got {
			if seen[body] {
				t.Errorf("%s was read twice", body)
			}
			seen[body] = true
		}
		if len(seen) != n {
			t.Errorf("%s: read %d of %d", driver, len(seen), n)
		}
		d.empty(t, "q")
	}
}

// gone is a client to which nothing can be written after a number of bytes.
type gone struct {
	*httptest.ResponseRecorder
	takes int
}

func (g *gone) Write(b []byte) (int, error) {
	if g.takes -= len(b); g.takes < 0 {
		return 0, io.ErrClosedPipe
	}
	return g.ResponseRecorder.Write(b)
}

// breaks sends a read whose answer cannot be written, and wants it to be broken off.
func (d *door) breaks(t *testing.T, w http.ResponseWriter, r *http.Request) {
	t.Helper()
	defer func() {
		if v := recover(); v != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
			t.Errorf("the answer ended with %v", v)
		}
	}()
	d.mux.ServeHTTP(w, r)
}

func TestAMessageWhoseAnswerCannotBeWrittenIsBackAtItsPlace(t *testing.T) {
	for _, size := range []int{1, 5, 600, 100_000, 4 << 20} {
		d := open(t)
		d.queue(t, "q", "logfifo", "")
		first := strings.Repeat("1", size)
		d.submit(t, "q", first)
		d.submit(t, "q", "2")
		d.breaks(t, &gone{httptest.NewRecorder(), size - 1}, request(t, "GET", "/queues/q/messages", ""))
		ctx, leave := context.WithCancel(t.Context())
		d.breaks(t, &leaving{httptest.NewRecorder(), leave}, request(t, "GET", "/queues/q/messages", "").WithContext(ctx))
		if s := d.wants(t, 200, "GET", "/queues/q", ""); !strings.Contains(s, `"size":2`) {
			t.Errorf("the queue is %s", s)
		}
		ds, err := d.broker.Browse(d.system, "q", broker.Ready, 0, 9)
		must(t, err)
		if len(ds) != 2 || ds[0].Attempt != 0 {
			t.Errorf("%d messages are ready, the first with attempt %d", len(ds), ds[0].Attempt)
		}
		if got := d.read(t, "q"); got != first {
			t.Errorf("read %d bytes, want the first message", len(got))
		}
		if got := d.read(t, "q"); got != "2" {
			t.Errorf("read %.9s, want 2", got)
		}
	}
}

// leaving is a client that goes while it is answered.
type leaving struct {
	*httptest.ResponseRecorder
	leave func()
}

func (l *leaving) WriteHeader(status int) {
	l.leave()
	l.ResponseRecorder.WriteHeader(status)
}

// overAPipe serves d to f over a connection in memory, in fake time; the queue q
// holds 4 MiB, which f has asked for.
func overAPipe(t *testing.T, f func(t *testing.T, d *door, c net.Conn, message string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		d.queue(t, "q", "memfifo", "")
		message := strings.Repeat("x", 4<<20)
		d.submit(t, "q", message)
		s := &http.Server{Handler: d.mux}
		ours, theirs := net.Pipe()
		l := &one{conns: make(chan net.Conn, 1)}
		l.conns <- theirs
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		_, err := io.WriteString(ours, "GET /queues/q/messages HTTP/1.1\r\nHost: x\r\nClient-Id: slow\r\n\r\n")
		must(t, err)
		f(t, d, ours, message)
		_ = ours.Close() // may be closed already
		must(t, s.Close())
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		synctest.Wait()
	})
}

func TestAReaderThatTakesItsTimeKeepsItsMessage(t *testing.T) {
	overAPipe(t, func(t *testing.T, d *door, c net.Conn, message string) {
		t.Helper()
		var got bytes.Buffer
		for got.Len() < len(message) {
			_, err := io.CopyN(&got, c, 64<<10)
			must(t, err)
			time.Sleep(8 * time.Second)
			d.empty(t, "q") // for everybody else
		}
	})
}

func TestAReaderThatLeavesHalfWayHasReadNothing(t *testing.T) {
	overAPipe(t, func(t *testing.T, d *door, c net.Conn, message string) {
		t.Helper()
		_, err := io.CopyN(io.Discard, c, 1<<20)
		must(t, err)
		d.empty(t, "q")
		must(t, c.Close())
		synctest.Wait()
		if d.read(t, "q") != message {
			t.Error("the message changed")
		}
	})
}

func TestAReaderThatStopsReadingIsCutAndHasReadNothing(t *testing.T) {
	overAPipe(t, func(t *testing.T, d *door, c net.Conn, message string) {
		t.Helper()
		_, err := io.CopyN(io.Discard, c, 1<<20)
		must(t, err)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if d.read(t, "q") != message {
			t.Error("the message changed")
		}
	})
}

// one is a listener with one connection.
type one struct{ conns chan net.Conn }

func (o *one) Accept() (net.Conn, error) {
	c, ok := <-o.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (o *one) Close() error   { close(o.conns); return nil }
func (o *one) Addr() net.Addr { return &net.TCPAddr{} }

// counted counts what a server has written to its connections.
type counted struct {
	net.Listener
	written atomic.Int64
}

func (l *counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &countedConn{c, l}, err
}

type countedConn struct {
	net.Conn
	l *counted
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.l.written.Add(int64(n))
	return n, err
}

func TestNoReaderHasAWholeMessageBeforeItsRemovalIsOnDisk(t *testing.T) {
	gate := journaltest.NewGateFS(journal.OS())
	d := openOver(t, local.Options{Dir: t.TempDir(), FS: gate})
	d.queue(t, "q", "logfifo", "")
	s := httptest.NewUnstartedServer(d.mux)
	l := &counted{Listener: s.Listener}
	s.Listener = l
	s.Start()
	defer s.Close()
	for _, size := range []int{0, 1, 1900, 5000, 66_000, 120_000} {
		d.submit(t, "q", strings.Repeat("x", size))
		l.written.Store(0)
		gate.Hold()
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		must(t, err)
		_, err = io.WriteString(c, "GET /queues/q/messages HTTP/1.1\r\nHost: x\r\nClient-Id: c\r\nConnection: close\r\n\r\n")
		must(t, err)
		<-gate.Held()
		early := l.written.Load()
		gate.Release()
		answer, err := io.ReadAll(c)
		must(t, err)
		if !strings.HasSuffix(string(answer), "\r\n\r\n"+strings.Repeat("x", size)) {
			t.Errorf("%d bytes: answered %.300s", size, answer)
		}
		if early >= int64(len(answer)) {
			t.Errorf("%d bytes: %d of %d were written before the disk had it", size, early, len(answer))
		}
		must(t, c.Close())
	}
}

func TestWhatDevicesPublishIsRead(t *testing.T) {
	d := open(t)
	d.queue(t, "q", "memfifo", `"topic-filter":"a/+"`)
	for _, m := range []*broker.Message{
		{Topic: "a/b", Payload: []byte{0, 0xff}, ContentType: "image/x"},
		{Topic: "a/b", Payload: []byte("x"), ContentType: "evil\r\nSet-Cookie: a=b", QoS: 2},
		{Topic: "other", QoS: 1},
	} {
		_, err := d.broker.Publish(d.system, m)
		must(t, err)
	}
	if w := d.do(t, "GET", "/queues/q/messages", ""); w.Body.String() != "\x00\xff" || w.Header().Get("Content-Type") != "image/x" {
		t.Errorf("got %q %v", w.Body, w.Header())
	}
	if w := d.do(t, "GET", "/queues/q/messages", ""); w.Header().Get("Content-Type") != "application/octet-stream" {
		t.Errorf("headers %v", w.Header())
	}
	d.empty(t, "q")
}

func TestWhatIsSubmittedIsConsumedThroughOtherDoors(t *testing.T) {
	d := open(t)
	d.queue(t, "q", "logfifo", "")
	d.submit(t, "q", "x")
	got, err := d.broker.Receive(d.system, "q", broker.ReceiveOptions{Max: 1, Lease: time.Minute})
	must(t, err)
	if m := got[0]; m.Topic != "$queue/q" || m.Producer != "tester" || string(m.Payload) != "x" {
		t.Errorf("got %+v", m.Message)
	}
	d.empty(t, "q")
	if s := d.wants(t, 200, "GET", "/queues/q", ""); !strings.Contains(s, `{"bytes":1,"size":1}`) {
		t.Errorf("a leased message is not counted: %s", s)
	}
}

func TestAFullQueueThatTopicsFeedDropsItsOldest(t *testing.T) {
	d := open(t)
	d.queue(t, "q", "memfifo", `"topic-filter":"a","max-bytes":2`)
	publish := func(text string) error {
		_, err := d.broker.Publish(d.system, &broker.Message{Topic: "a", Payload: []byte(text), QoS: 1})
		return err
	}
	for _, text := range []string{"1", "2", "3"} {
		must(t, publish(text))
	}
	if got := d.read(t, "q"); got != "2" {
		t.Errorf("read %s, want 2", got)
	}
	d.wants(t, 413, "POST", "/queues/q/messages", "456")
	d.wants(t, 200, "PATCH", "/queues/q", `{"attributes":{"topic-filter":null}}`)
	d.submit(t, "q", "4")
	d.wants(t, 503, "POST", "/queues/q/messages", "5")
	d.wants(t, 200, "PATCH", "/queues/q", `{"attributes":{"topic-filter":"a"}}`)
	d.submit(t, "q", "5")
	flowmqDoor(d)("PATCH", "/api/v1/queues/q", `{"overflow":"reject"}`)
	if err := publish("6"); broker.KindOf(err) != broker.Full {
		t.Errorf("a queue that rejects answers %v", err)
	}
	d.wants(t, 200, "PATCH", "/queues/q", `{"attributes":{"topic-filter":null}}`)
	d.wants(t, 200, "PATCH", "/queues/q", `{"attributes":{"max-bytes":1}}`)
	d.wants(t, 503, "POST", "/queues/q/messages", "7")
}

func TestARestartKeepsMessagesOnDiskAndDefinitions(t *testing.T) {
	dir := t.TempDir()
	d := openOver(t, local.Options{Dir: dir})
	d.queue(t, "kept", "logfifo", `"max-bytes":100`)
	d.queue(t, "forgotten", "memfifo", `"max-bytes":100,"topic-filter":"a","message-ttl":9`)
	sent := d.do(t, "POST", "/queues/kept/messages", "a\x00b").Header().Get("Message-Id")
	d.submit(t, "kept", "second")
	d.submit(t, "forgotten", "x")
	before := strings.Replace(d.wants(t, 200, "GET", "/queues", ""), `{"bytes":1,"size":1}`, `{"bytes":0,"size":0}`, 1)
	d.close()
	d = openOver(t, local.Options{Dir: dir})
	if after := d.wants(t, 200, "GET", "/queues", ""); after != before {
		t.Errorf("the queues were %s and are %s", before, after)
	}
	d.empty(t, "forgotten")
	w := d.do(t, "GET", "/queues/kept/messages", "")
	if w.Body.String() != "a\x00b" || w.Header().Get("Message-Id") != sent || w.Header().Get("Millrace-Durability") != "disk" {
		t.Errorf("read %q %v, sent %s", w.Body, w.Header(), sent)
	}
	d.close()
	d = openOver(t, local.Options{Dir: dir})
	if got := d.read(t, "kept"); got != "second" {
		t.Errorf("read %s, want second", got)
	}
	d.empty(t, "kept")
}

func TestDurabilityIsThatOfTheDriver(t *testing.T) {
	d := openOver(t, local.Options{Dir: t.TempDir()})
	for driver, want := range map[string]string{"memfifo": "memory", "logfifo": "disk"} {
		for _, c := range [][3]string{
			{"POST", "/queues", `{"name":"` + driver + `","driver":"` + driver + `"}`},
			{"PATCH", "/queues/" + driver, `{}`},
			{"POST", "/queues/" + driver + "/messages", "x"},
			{"GET", "/queues/" + driver + "/messages", ""},
			{"DELETE", "/queues/" + driver, ""},
		} {
			if got := d.do(t, c[0], c[1], c[2]).Header().Get("Millrace-Durability"); got != want {
				t.Errorf("%s %s: durability %q, want %s", c[0], c[1], got, want)
			}
		}
	}
}

func TestRulesAboutAnonymousHoldWithoutCredentials(t *testing.T) {
	d := open(t)
	d.queue(t, "open", "memfifo", "")
	d.queue(t, "closed", "memfifo", "")
	must(t, d.broker.Auth().SetRules(t.Context(), []auth.Rule{{Effect: "deny", Who: "anonymous", Do: []string{"publish", "consume", "manage"}, Filter: "queue:closed"}}))
	d.submit(t, "open", "x")
	d.wants(t, 403, "POST", "/queues/closed/messages", "x")
	d.wants(t, 403, "GET", "/queues/closed/messages", "")
	d.wants(t, 403, "DELETE", "/queues/closed", "")
}

func TestAMessageOfADeletedQueueIsNotFound(t *testing.T) {
	d := open(t)
	d.queue(t, "q", "memfifo", "")
	r := request(t, "POST", "/queues/q/messages", "")
	r.Body, r.ContentLength = io.NopCloser(&deletes{t: t, d: d}), -1
	if w := d.send(r); w.Code != 404 {
		t.Errorf("status %d %s", w.Code, w.Body)
	}
}

// deletes is a body during whose sending the queue goes.
type deletes struct {
	t *testing.T
	d *door
}

func (b *deletes) Read([]byte) (int, error) {
	b.d.wants(b.t, 200, "DELETE", "/queues/q", "")
	return 0, io.EOF
}
